#!/usr/bin/python
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible's door to module_utils/smartos/vmadm.py: documentation and result."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: vmadm
short_description: Create, change, start, stop, snapshot or remove one VM of a SmartOS host
version_added: 0.1.0
author: The zonestack authors (@zonestack)
description:
  - Brings one zone or virtual machine of a SmartOS host from what it is to what is described, in place, with the smallest payload
    that C(vmadm update) needs for it.
  - Only what is given is looked at. A property that is not given keeps its value, and so do keys of O(tags), O(customer_metadata)
    and O(internal_metadata) that are not given. O(nics), O(disks), O(filesystems), O(pci_devices) and O(routes) are whole where they
    are given, so what they do not name is removed.
  - Every payload is checked with C(vmadm validate) before anything is changed, and the VM is read again after every change, because
    vmadm drops what it does not know and reports success.
  - What only a new VM can have is refused, by name. A new image is brought in place where O(reprovision) allows it.
requirements:
  - SmartOS, root in its global zone, and a Python there (pkgsrc's tools set in C(/opt/tools)).
attributes:
  check_mode:
    support: full
    description: The same plan is made, checked with C(vmadm validate) and returned, but not run.
  diff_mode:
    support: full
    description: Shows what is set of the VM before and after, without the values of metadata and passwords.
notes:
  - Of a VM that is as described, one call of vmadm is made.
  - Values that vmadm limits are compared as it limits them. O(max_swap) is never below, O(max_locked_memory) and O(tmpfs) never above
    O(max_physical_memory), and O(cpu_shares) at most 65535. With a new O(max_physical_memory) those of the others that are not given
    move along.
  - vmadm writes the payloads that it is given to its own logs below C(/var/log/vm/logs), secrets included.
  - This follows the source of vmadm and recordings of it. It has not been run on SmartOS itself yet. In that source the code for
    changed and removed O(filesystems) looks unfinished; should vmadm leave them as they are, the task fails and says so.
seealso:
  - module: zonestack.openstack.vmadm_info
options:
  uuid:
    description:
      - UUID of the VM in lower case. Given, the VM is made at most once. Not given, the VM is looked for by O(alias), and a new
        one gets a random UUID.
    type: str
  alias:
    description:
      - Name of the VM for people. vmadm does not keep it unique, so this module does; one that begins with C(~) is refused, as
        vmadm takes that for a pattern.
    type: str
  state:
    description:
      - V(present) is as described; whether it runs is left alone. A new one runs unless O(autoboot=false).
      - V(running) and V(stopped) are as described, and running or not.
      - V(rebooted) is V(running), and has booted after all changes.
      - V(absent) is gone, with all its data.
    type: str
    choices: [present, running, stopped, rebooted, absent]
    default: present
  reprovision:
    description:
      - Whether a VM with another image may be given a new root from O(image_uuid), for brand bhyve from the first of O(disks).
      - The root's data and the snapshots are lost; the delegated dataset, nics, metadata and the rest stay.
    type: bool
    default: false
  allow_reboot:
    description:
      - Whether a running VM may be rebooted for changes that it sees only then, or stopped for those that vmadm makes only while it
        is stopped. Otherwise the first are told in RV(reboot_needed) and the second are refused.
    type: bool
    default: false
  replace_failed:
    description:
      - Whether a VM that was never finished (its state is C(failed), C(configured) or C(incomplete)) may be deleted with all its data
        and made anew. Otherwise it is refused.
    type: bool
    default: false
  remove_disks:
    description: Whether disks that are not in O(disks) may be removed with their data. Otherwise they are refused.
    type: bool
    default: false
  force:
    description: Halt instead of shutting down, where the VM is stopped or rebooted.
    type: bool
    default: false
  timeout:
    description:
      - Seconds for each command that changes something. vmadm itself waits up to 300 seconds for a new VM, longer for one of more
        than 8 GiB.
    type: int
    default: 600
  snapshot:
    description:
      - One snapshot of the VM, made or removed after all changes. vmadm has none of VMs with a delegated dataset or of brand kvm.
    type: dict
    suboptions:
      name:
        description: Name, 1 to 64 letters, digits and C(-_.:%).
        type: str
        required: true
      state:
        description:
          - V(rolled_back) halts the VM, brings it back to the snapshot and starts it. Newer snapshots are lost. It is done each time.
        type: str
        choices: [present, absent, rolled_back]
        default: present
  signal:
    description: Signal for the VM's init, such as V(SIGHUP), sent at the end, each time.
    type: str
  unset:
    description:
      - Names of properties that are to be taken away, such as V(cpu_cap) or V(package_name). An empty string or list does the same
        where the type has one.
    type: list
    elements: str
    default: []
  brand:
    description: Kind of the VM. Needed for a new one; cannot be changed.
    type: str
    choices: [joyent, joyent-minimal, builder, lx, bhyve, kvm]
  image_uuid:
    description:
      - Image of the root, which must be installed. Needed for new zones; the images of bhyve and kvm are those of O(disks).
    type: str
    aliases: [dataset_uuid, zone_dataset_uuid]
  zpool:
    description: Pool that the VM is made in; V(zones) when not given. Cannot be changed.
    type: str
    aliases: [zfs_storage_pool_name]
  zonename:
    description: Name of the zone; the UUID when not given. Cannot be changed.
    type: str
  autoboot:
    description: Whether the VM starts with its host. vmadm sets it with each start and stop; given, it is set back after them.
    type: bool
  archive_on_delete:
    description: Whether vmadm archives logs and description of the VM when it is deleted.
    type: bool
  bhyve_extra_opts:
    description: Further arguments for bhyve. For brand bhyve.
    type: str
  billing_id:
    description: UUID of a package, for accounts; no effect.
    type: str
  boot:
    description: Boot order, as the hypervisor of the brand takes it. For brands bhyve and kvm.
    type: str
  bootrom:
    description: V(bios), V(uefi) or a path. That of the image, or else V(bios), when not given. For brand bhyve.
    type: str
  com1:
    description: First serial port; C(/dev/zconsole) when not given. For brand bhyve.
    type: str
  com2:
    description: Second serial port; C(socket,/tmp/vm.ttyb) when not given. For brand bhyve.
    type: str
  cpu_cap:
    description: Limit of processor time in per cent of one core (200 is two cores); 0 for none.
    type: int
  cpu_shares:
    description: Weight against other VMs when processors are scarce, at most 65535. A new VM has 100.
    type: int
  cpu_type:
    description: Processor that the guest sees, V(qemu64) or V(host). For brand kvm.
    type: str
  customer_metadata:
    description:
      - Keys that the guest reads and writes with mdata-get(8) and mdata-put(8), such as C(user-script). Strings, numbers or booleans;
        null removes a key. Keys that are not given stay.
    type: dict
  internal_metadata:
    description: The same for keys that the guest does not see, except those ending in C(_pw) and those with a namespace.
    type: dict
  internal_metadata_namespaces:
    description: Prefixes of keys of O(internal_metadata) that the guest may read.
    type: list
    elements: str
  tags:
    description: Labels, as strings, numbers or booleans; null removes one. Labels that are not given stay.
    type: dict
  delegate_dataset:
    description: Whether the zone has a ZFS dataset of its own, which reprovisioning keeps. Cannot be changed. For zones.
    type: bool
  disk_driver:
    description: Model of disks that do not name one. For brands bhyve and kvm.
    type: str
  nic_driver:
    description: Model of nics that do not name one. For brands bhyve and kvm.
    type: str
  dns_domain:
    description: Search domain; V(local) in a new zone. For zones.
    type: str
  do_not_inventory:
    description: Whether Triton's accounts leave the VM out.
    type: bool
  docker:
    description:
      - Whether the zone is run as a container of Docker. vmadm then sets O(restart_init) to false, adds C(docker) to
        O(internal_metadata_namespaces) and sets O(init_name). For brands joyent-minimal and lx.
    type: bool
  firewall_enabled:
    description: Whether the rules of fwadm(8) hold for the VM.
    type: bool
  flexible_disk_size:
    description: MiB for all disks and their snapshots together; needed to resize a disk that came from an image. For brand bhyve.
    type: int
  fs_allowed:
    description: Kinds of file systems that the zone may mount, such as V(ufs). For zones.
    type: list
    elements: str
  hostname:
    description: Name that the guest has at its first boot; in brand lx at each boot.
    type: str
  indestructible_delegated:
    description: Whether the delegated dataset is protected; the VM can then not be deleted.
    type: bool
  indestructible_zoneroot:
    description: Whether the root is protected; the VM can then neither be deleted nor reprovisioned.
    type: bool
  init_name:
    description: Path of the zone's init. For zones.
    type: str
  restart_init:
    description: Whether a zone's init is started again when it ends; true in a new zone. For zones.
    type: bool
  kernel_version:
    description: Version of Linux that C(uname) tells; no effect otherwise. Needed for a new VM of brand lx.
    type: str
  limit_priv:
    description: Privileges of the zone, as in privileges(7), such as V(default), V(proc_clock_highres).
    type: list
    elements: str
  maintain_resolvers:
    description: Whether the zone's F(/etc/resolv.conf) follows later changes of O(resolvers). For zones.
    type: bool
  resolvers:
    description: Addresses of name servers.
    type: list
    elements: str
  routes:
    description:
      - Static routes, from an address or network to a gateway, C(nics[N]) or C(macs[MAC]). Whole; what is not given is removed.
    type: dict
  ram:
    description: Memory of the guest of brands bhyve and kvm in MiB; for zones another name for O(max_physical_memory).
    type: int
  max_physical_memory:
    description:
      - Limit of memory in MiB. A new zone has 256, a new VM of brand bhyve O(ram) and 1280 more, of brand kvm O(ram) and 1024 more.
        For both it is at least O(ram) and 256 more.
    type: int
  max_swap:
    description: Limit of virtual memory in MiB, at least 256 and at least O(max_physical_memory).
    type: int
  max_locked_memory:
    description: Limit of locked memory in MiB, at most O(max_physical_memory).
    type: int
  tmpfs:
    description: Size of the zone's F(/tmp) in MiB, at most O(max_physical_memory); 0 for none. For zones.
    type: int
  max_shm_memory:
    description: Limit of shared memory in MiB.
    type: int
  max_lwps:
    description: Limit of threads; 2000 in a new VM.
    type: int
  max_msg_ids:
    description: Limit of message queues; 4096 in a new VM.
    type: int
  max_sem_ids:
    description: Limit of semaphores; 4096 in a new VM.
    type: int
  max_shm_ids:
    description: Limit of shared memory segments; 4096 in a new VM.
    type: int
  mdata_exec_timeout:
    description: Seconds for C(user-script) at each boot; counts only when the VM is made. For zones.
    type: int
  nowait:
    description: Whether to go on while the VM is still being provisioned; counts only when it is made. For zones.
    type: bool
  owner_uuid:
    description: UUID of the owner; no effect on this host.
    type: str
  package_name:
    description: Name of a package, for accounts; no effect. Not for brand bhyve.
    type: str
  package_version:
    description: Version of O(package_name). Not for brand bhyve.
    type: str
  qemu_extra_opts:
    description: Further arguments for QEMU. For brand kvm.
    type: str
  qemu_opts:
    description: Arguments in place of the usual ones for QEMU. For brand kvm.
    type: str
  quota:
    description: Limit of the root and the delegated dataset together in GiB; 0 for none. A new VM has 10, of brand bhyve 1.
    type: int
  spice_opts:
    description: Options of SPICE. For brand kvm.
    type: str
  spice_password:
    description: Password of SPICE. For brand kvm.
    type: str
  spice_port:
    description: Port of SPICE; 0 for any, -1 for none. For brand kvm.
    type: int
  vnc_password:
    description: Password of VNC, at most 8 characters. For brands bhyve and kvm.
    type: str
  vnc_port:
    description: Port of VNC; 0 for any, -1 for none. For brands bhyve and kvm.
    type: int
  vcpus:
    description: Processors of the guest; 1 in a new VM. For brands bhyve and kvm.
    type: int
  vga:
    description: Graphics adapter, V(cirrus), V(std), V(vmware), V(qxl) or V(xenfb). For brand kvm.
    type: str
  virtio_txburst:
    description: Packets that a virtio nic sends at once. For brand kvm.
    type: int
  virtio_txtimer:
    description: Nanoseconds that a virtio nic waits for more packets. For brand kvm.
    type: int
  zfs_data_compression:
    description: Compression of the delegated dataset, for new blocks; V(off) when not given. For zones.
    type: str
  zfs_data_recsize:
    description: Record size of the delegated dataset in bytes, for new files; 0 for the usual 131072. For zones.
    type: int
  zfs_root_compression:
    description: Compression of the root, for new blocks; V(off) when not given.
    type: str
  zfs_root_recsize:
    description: Record size of the root in bytes, for new files; 0 for the usual 131072.
    type: int
  zfs_filesystem_limit:
    description: Limit of file systems below the root. 0 is a limit; to take it away, name it in O(unset).
    type: int
  zfs_snapshot_limit:
    description: Limit of snapshots. 0 is a limit; to take it away, name it in O(unset).
    type: int
  zfs_io_priority:
    description: Weight against other VMs when disks are busy; 100 in a new VM.
    type: int
  zlog_max_size:
    description: Bytes after which the zone's log is rotated. For zones.
    type: int
  nics:
    description:
      - Network interfaces. One is known by its MAC, without a MAC by its interface. Those with neither are taken for those that are
        left, in the order of their interfaces.
    type: list
    elements: dict
    suboptions:
      mac:
        description: MAC address. Random when not given; give it so that a nic is known for good. Cannot be changed.
        type: str
      interface:
        description: Name in the zone, such as V(net0), in brand lx V(eth0). The next free one when not given. Cannot be changed.
        type: str
      nic_tag:
        description: Tag of a network of the host, as C(nictagadm list) shows them. Needed for a new nic.
        type: str
      ips:
        description: Addresses with prefix length, V(dhcp) or V(addrconf).
        type: list
        elements: str
      gateways:
        description: IPv4 gateways. The default route is that of the primary nic.
        type: list
        elements: str
      ip:
        description: An older form of O(nics[].ips), with O(nics[].netmask).
        type: str
      netmask:
        description: Netmask of O(nics[].ip), with dots.
        type: str
      gateway:
        description: An older form of O(nics[].gateways).
        type: str
      primary:
        description: Whether this is the primary nic, of which a VM has one. Only true has an effect.
        type: bool
      vlan_id:
        description: VLAN, 0 (none) to 4095.
        type: int
      mtu:
        description: Largest packet in bytes, 576 to 9000; that of the tag when not given. Cannot be taken away.
        type: int
      model:
        description: Model, such as V(virtio). Needed for brands bhyve and kvm unless there is O(nic_driver).
        type: str
      network_uuid:
        description: UUID of a network of Triton; no effect on this host.
        type: str
      allow_ip_spoofing:
        description: Whether packets from other addresses may leave, as a router needs it.
        type: bool
      allow_mac_spoofing:
        description: Whether packets from other MAC addresses may leave.
        type: bool
      allow_dhcp_spoofing:
        description: Whether DHCP answers may leave.
        type: bool
      allow_restricted_traffic:
        description: Whether anything but IP and ARP may leave.
        type: bool
      allow_unfiltered_promisc:
        description: Whether the guest may see packets that are not for it. For brands bhyve and kvm.
        type: bool
      allowed_ips:
        description: Further source addresses or networks that may leave, at most 13.
        type: list
        elements: str
      allowed_dhcp_cids:
        description: Client identifiers that DHCP requests may have, at most 20. Not for brand bhyve.
        type: list
        elements: str
      blocked_outgoing_ports:
        description: TCP and UDP ports to which nothing may leave.
        type: list
        elements: int
      dhcp_server:
        description: Whether the VM serves DHCP on this nic.
        type: bool
      vrrp_vrid:
        description: Virtual router id, 0 to 255, from which the MAC follows. Cannot be changed.
        type: int
      vrrp_primary_ip:
        description: Address of another nic of the VM that VRRP speaks from. Needed with O(nics[].vrrp_vrid).
        type: str
  disks:
    description:
      - Disks. One is known by its path. Those without are taken for those that are left, in their order. Changed only while the VM
        is stopped, except O(disks[].compression) and O(disks[].refreservation). For brands bhyve and kvm.
    type: list
    elements: dict
    suboptions:
      path:
        description: Path of its device, such as C(/dev/zvol/rdsk/zones/UUID/disk0). vmadm chooses it when not given.
        type: str
      image_uuid:
        description: Image that it is a clone of. Either this or O(disks[].size) is needed for a new disk.
        type: str
      image_name:
        description: Name of that image. For brand kvm.
        type: str
      image_size:
        description: Size of that image in MiB; must be right where it is given.
        type: int
      size:
        description: Size in MiB. For a disk with an image only with O(flexible_disk_size). Brand kvm cannot resize.
        type: int
      dangerous_allow_shrink:
        description: Whether O(disks[].size) may be less than before, which cuts off data. For brand bhyve.
        type: bool
      model:
        description: Model, V(virtio), V(ahci) or V(nvme) for brand bhyve, V(virtio), V(scsi) or V(ide) for kvm.
        type: str
      media:
        description: V(disk) or V(cdrom); V(disk) when not given.
        type: str
      boot:
        description: Whether the VM boots from this disk.
        type: bool
      compression:
        description: Compression, for new blocks.
        type: str
      refreservation:
        description: MiB that are kept for it in the pool; all of it when not given.
        type: int
      block_size:
        description: Block size of the volume in bytes. Cannot be changed.
        type: int
      guest_block_size:
        description: Sector size that the guest sees in bytes, V(512), or logical and physical as in V(512/4096). For brand bhyve.
        type: str
      notrim:
        description: Whether the guest may not free blocks. For brand bhyve.
        type: bool
      pci_slot:
        description: Slot, as V(0:4:0). For brand bhyve.
        type: str
      uuid:
        description: UUID of the disk itself. For brand bhyve.
        type: str
      nocreate:
        description: Whether the volume exists already; counts only when the disk is added.
        type: bool
      zpool:
        description: Pool of the volume; that of the VM when not given. Cannot be changed.
        type: str
  filesystems:
    description: File systems of the host that the zone sees. One is known by its target. For zones.
    type: list
    elements: dict
    suboptions:
      target:
        description: Path in the zone.
        type: str
        required: true
      source:
        description: Path on the host. It must exist when the zone boots; vmadm does not check it.
        type: str
      type:
        description: Type, V(lofs) for a directory of the host.
        type: str
      raw:
        description: Raw device, where the type has one.
        type: str
      options:
        description: Options of mount, such as V(ro), V(nodevices).
        type: list
        elements: str
  pci_devices:
    description: Devices that are passed through. One is known by its path. Changed only while the VM is stopped. For brand bhyve.
    type: list
    elements: dict
    suboptions:
      path:
        description: Path of the device on the host, below C(/devices).
        type: str
        required: true
      pci_slot:
        description: Slot in the guest, as V(0:8:0).
        type: str
"""

EXAMPLES = r"""
- name: Run Keystone in an lx zone; its data outlives its image
  zonestack.openstack.vmadm:
    uuid: 6b1b7f0e-5d0e-5f4e-9d2e-0a6a3c1f8b11
    alias: smart1-keystone-1
    state: running
    brand: lx
    image_uuid: 1a1a1a1a-0b0b-4c0c-8d0d-b00000000001
    kernel_version: 6.1.0
    max_physical_memory: 2048      # MiB
    max_lwps: 4000
    cpu_cap: 200                   # two cores
    quota: 20                      # GiB
    delegate_dataset: true
    reprovision: true
    resolvers: [10.77.0.1]
    nics:
      - mac: "02:6b:1b:7f:0e:5d"
        nic_tag: stack0
        ips: [10.77.2.72/21]
        gateways: [10.77.2.1]
        primary: true
    tags: {role: keystone}
    customer_metadata:
      root_authorized_keys: "{{ operator_keys }}"

- name: Give it more memory and take the cap away, while it runs
  zonestack.openstack.vmadm:
    uuid: 6b1b7f0e-5d0e-5f4e-9d2e-0a6a3c1f8b11
    max_physical_memory: 4096
    unset: [cpu_cap]

- name: Mount a directory of the host, which needs a reboot
  zonestack.openstack.vmadm:
    uuid: 6b1b7f0e-5d0e-5f4e-9d2e-0a6a3c1f8b11
    allow_reboot: true
    filesystems:
      - {type: lofs, source: /opt/share, target: /share, options: [ro]}

- name: Go back to how it was before the upgrade
  zonestack.openstack.vmadm:
    alias: smart1-horizon-1
    snapshot: {name: before-upgrade, state: rolled_back}

- name: Remove a VM and all its data
  zonestack.openstack.vmadm:
    uuid: 6b1b7f0e-5d0e-5f4e-9d2e-0a6a3c1f8b11
    state: absent
"""

RETURN = r"""
uuid:
  description: UUID of the VM; none when, in check mode, one would be made with a random one.
  returned: success
  type: str
actions:
  description: What was done (in check mode, would be done), in order.
  returned: success
  type: list
  elements: str
  sample: [stop, "update (disks, ram)", start]
reboot_needed:
  description: Properties that this call changed and that the running VM sees only after a reboot.
  returned: success
  type: list
  elements: str
  sample: [filesystems]
rebooted:
  description: Whether a running VM was stopped and started again.
  returned: success
  type: bool
vm:
  description:
    - The VM as C(vmadm get) shows it, without the values of metadata and passwords; none when it is absent. In check mode, what is
      known before of the VM that would be there.
  returned: success
  type: dict
  sample: {uuid: 6b1b7f0e-5d0e-5f4e-9d2e-0a6a3c1f8b11, alias: smart1-keystone-1, state: running, max_physical_memory: 2048}
cmd:
  description: The command that failed.
  returned: failure of a command
  type: list
  elements: str
rc:
  description: Its exit code, 124 when it ran longer than O(timeout).
  returned: failure of a command
  type: int
stderr:
  description: What it said.
  returned: failure of a command
  type: str
bad_values:
  description: Properties whose values C(vmadm validate) refuses. So are RV(bad_properties) and RV(missing_properties).
  returned: refusal by C(vmadm validate)
  type: list
  elements: str
bad_properties:
  description: Properties that vmadm would drop without a word.
  returned: refusal by C(vmadm validate)
  type: list
  elements: str
missing_properties:
  description: Properties that vmadm misses.
  returned: refusal by C(vmadm validate)
  type: list
  elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zonestack.openstack.plugins.module_utils.cli import CommandError
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm import (
    InvalidPayload,
    VmError,
    Vmadm,
    converge,
    redact,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_checks import PlanError
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_want import (
    SNAPSHOT_STATES,
    STATES,
    Want,
)
from ansible_collections.zonestack.openstack.plugins.module_utils.smartos.vmadm_properties import argument_spec

OPTIONS: dict[str, t.Any] = {
    **argument_spec(),
    "state": {"type": "str", "choices": list(STATES), "default": "present"},
    "reprovision": {"type": "bool", "default": False},
    "allow_reboot": {"type": "bool", "default": False},
    "replace_failed": {"type": "bool", "default": False},
    "remove_disks": {"type": "bool", "default": False},
    "force": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 600},
    "snapshot": {
        "type": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": list(SNAPSHOT_STATES), "default": "present"},
        },
    },
    "signal": {"type": "str"},
    "unset": {"type": "list", "elements": "str", "default": []},
}
SHORTEST_SECRET = 8  # characters


def main() -> None:
    module = AnsibleModule(argument_spec=OPTIONS, required_one_of=[("uuid", "alias")], supports_check_mode=True)
    # Ansible blackens the values of secret options wherever they occur, so metadata such as "1" or "lx" would spoil every
    # number and word of the result. Nothing here puts a value of metadata into it; the long ones stay guarded all the same.
    module.no_log_values = {value for value in module.no_log_values if len(str(value)) >= SHORTEST_SECRET}
    echo = {"invocation": {"module_args": redact(module.params)}}
    failure: dict[str, t.Any] = {}
    try:
        result = converge(
            Vmadm(timeout=module.params["timeout"]), Want.from_options(module.params), check_mode=module.check_mode
        )
    except (PlanError, VmError) as bad:
        failure = {"msg": str(bad)}
    except CommandError as bad:
        failure = {"msg": str(bad), "cmd": bad.argv, "rc": bad.rc, "stderr": bad.err}
        failure.update(bad.properties if isinstance(bad, InvalidPayload) else {})
    if failure:
        module.fail_json(**failure, **echo)
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(**result, **echo)


if __name__ == "__main__":
    main()
