# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The property table of vmadm: what each brand takes at create and at update, of which type, within which limits.

Columns after name and type: joyent, joyent-minimal, builder, lx, bhyve, kvm. C create, U update, ``!`` required at create;
of list items, A in a new entry (create or add_X), U in update_X; r only received from another host, - not at all.
``absent=V``: a property with this value is not stored. Source: facts section 12, marked R.
"""

from __future__ import annotations

import typing as t

BRANDS = ("joyent", "joyent-minimal", "builder", "lx", "bhyve", "kvm")

LISTS = ("disks", "nics", "filesystems", "pci_devices")
"""Properties that are lists of objects, changed by add_X, update_X and remove_X."""

KEYED = ("customer_metadata", "internal_metadata", "tags", "routes")
"""Properties that are flat objects, changed by set_X and remove_X."""

_TABLE = """\
add_disks                       object-array -   -   -   -   U   U
add_filesystems                 object-array U   U   U   U   -   U
add_nics                        object-array U   U   U   U   U   U
add_pci_devices                 object-array -   -   -   -   CU  -
alias                           string       CU  CU  CU  CU  CU  CU
archive_on_delete               boolean      CU  CU  CU  CU  CU  CU  absent=false
autoboot                        boolean      CU  CU  CU  CU  CU  CU
bhyve_extra_opts                string       -   -   -   -   CU  -
billing_id                      string       CU  CU  CU  CU  CU  CU
boot                            string       -   -   -   -   CU  CU
bootrom                         string       -   -   -   -   CU  -
brand                           string       C!  C!  C!  C!  C   C!
com1                            string       -   -   -   -   CU  -
com2                            string       -   -   -   -   CU  -
cpu_cap                         integer      CU  CU  CU  CU  CU  CU  min=0
cpu_shares                      integer      CU  CU  CU  CU  CU  CU  min=0
cpu_type                        string       -   -   -   -   -   CU
create_only                     boolean      r   r   r   r   r   r
create_timestamp                string       r   r   r   r   r   r
customer_metadata               flat-object  C   C   C   C   C   C
dataset_uuid                    uuid         C   C   C   C   -   -
datasets                        list         r   r   r   r   r   r
delegate_dataset                boolean      C   C   C   C   -   -
disk_driver                     string       -   -   -   -   CU  CU
disks                           object-array -   -   -   -   C   C
disks.*.block_size              integer      -   -   -   -   A   A   min=0
disks.*.boot                    boolean      -   -   -   -   AU  AU
disks.*.compression             string       -   -   -   -   AU  AU
disks.*.dangerous_allow_shrink  boolean      -   -   -   -   U   -
disks.*.guest_block_size        string       -   -   -   -   AU  -   check=validBhyveSectSize
disks.*.image_name              string       -   -   -   -   -   AU
disks.*.image_size              integer      -   -   -   -   A   A   min=0
disks.*.image_uuid              uuid         -   -   -   -   A   A
disks.*.media                   string       -   -   -   -   AU  AU
disks.*.model                   string       -   -   -   -   AU  AU
disks.*.nocreate                boolean      -   -   -   -   A   A
disks.*.notrim                  boolean      -   -   -   -   AU  -
disks.*.path                    string       -   -   -   -   AU  AU
disks.*.pci_slot                string       -   -   -   -   AU  -
disks.*.refreservation          integer      -   -   -   -   AU  AU  min=0
disks.*.size                    integer      -   -   -   -   AU  A   min=0
disks.*.uuid                    uuid         -   -   -   -   AU  -
disks.*.zfs_filesystem          string       -   -   -   -   r   r
disks.*.zpool                   string       -   -   -   -   A   A
dns_domain                      string       CU  CU  CU  CU  -   -
do_not_inventory                boolean      CU  CU  CU  CU  CU  CU  absent=false
docker                          boolean      -   CU  -   CU  -   -   absent=false
filesystems                     object-array C   C   C   C   -   -
filesystems.*.options           list         AU  AU  AU  AU  -   -
filesystems.*.raw               string       AU  AU  AU  AU  -   -
filesystems.*.source            string       AU  AU  AU  AU  -   -
filesystems.*.target            string       AU  AU  AU  AU  -   -
filesystems.*.type              string       AU  AU  AU  AU  -   -
firewall_enabled                boolean      CU  CU  CU  CU  CU  CU  absent=false
flexible_disk_size              integer      -   -   -   -   CU  -   min=0
fs_allowed                      list         CU  CU  CU  CU  -   -
hostname                        string       CU  CU  CU  CU  CU  CU
image_uuid                      uuid         C!  C!  C!  C!  C   C
indestructible_delegated        boolean      CU  CU  CU  CU  CU  CU  absent=false
indestructible_zoneroot         boolean      CU  CU  CU  CU  CU  CU  absent=false
init_name                       string       CU  CU  CU  CU  -   -
internal_metadata               flat-object  C   C   C   C   C   C
internal_metadata_namespaces    list         CU  CU  CU  CU  CU  CU  check=validAttrValue
kernel_version                  string       -   -   -   CU! -   -
limit_priv                      list         CU  CU  CU  CU  CU  CU
maintain_resolvers              boolean      CU  CU  CU  CU  -   -   absent=false
max_locked_memory               integer      CU  CU  CU  CU  CU  CU  min=0
max_lwps                        integer      CU  CU  CU  CU  CU  CU  min=0
max_msg_ids                     integer      CU  CU  CU  CU  CU  CU  min=0
max_physical_memory             integer      CU  CU  CU  CU  CU  CU  min=0
max_sem_ids                     integer      CU  CU  CU  CU  CU  CU  min=0
max_shm_ids                     integer      CU  CU  CU  CU  CU  CU  min=0
max_shm_memory                  integer      CU  CU  CU  CU  CU  CU  min=0
max_swap                        integer      CU  CU  CU  CU  CU  CU  min=256
mdata_exec_timeout              integer      C   C   C   C   -   -   min=0
nic_driver                      string       -   -   -   -   CU  CU
nics                            object-array C   C   C   C   C   C
nics.*.allow_dhcp_spoofing      boolean      AU  AU  AU  AU  AU  AU  absent=false
nics.*.allow_ip_spoofing        boolean      AU  AU  AU  AU  AU  AU  absent=false
nics.*.allow_mac_spoofing       boolean      AU  AU  AU  AU  AU  AU  absent=false
nics.*.allow_restricted_traffic boolean      AU  AU  AU  AU  AU  AU  absent=false
nics.*.allow_unfiltered_promisc boolean      -   -   -   -   AU  AU  absent=false
nics.*.allowed_dhcp_cids        list         AU  AU  AU  AU  -   AU  check=validCID
nics.*.allowed_ips              list         AU  AU  AU  AU  AU  AU
nics.*.blocked_outgoing_ports   list         AU  AU  AU  AU  AU  AU
nics.*.dhcp_server              boolean      AU  AU  AU  AU  AU  AU  absent=false
nics.*.gateway                  string       AU  AU  AU  AU  AU  AU
nics.*.gateways                 list         AU  AU  AU  AU  AU  AU
nics.*.interface                string       AU  AU  AU  AU  AU  AU
nics.*.ip                       string       AU  AU  AU  AU  AU  AU
nics.*.ips                      list         AU  AU  AU  AU  AU  AU
nics.*.mac                      string       AU  AU  AU  AU  AU  AU  check=validMacAddress
nics.*.model                    string       -   -   -   -   AU  AU
nics.*.mtu                      integer      AU  AU  AU  AU  AU  AU  min=576,max=9000
nics.*.netmask                  string       AU  AU  AU  AU  AU  AU
nics.*.network_uuid             uuid         AU  AU  AU  AU  AU  AU
nics.*.nic_tag                  string       AU  AU  AU  AU  AU  AU
nics.*.primary                  boolean      AU  AU  AU  AU  AU  AU  absent=false
nics.*.vlan_id                  integer      AU  AU  AU  AU  AU  AU  min=0,max=4095
nics.*.vrrp_primary_ip          string       AU  AU  AU  AU  AU  AU
nics.*.vrrp_vrid                integer      AU  AU  AU  AU  AU  AU  min=0,max=255
nowait                          boolean      C   C   C   C   -   -
owner_uuid                      string       CU  CU  CU  CU  CU  CU
package_name                    string       CU  CU  CU  CU  -   CU
package_version                 string       CU  CU  CU  CU  -   CU
pci_devices                     object-array -   -   -   -   CU  -
pci_devices.*.path              string       -   -   -   -   AU  -
pci_devices.*.pci_slot          string       -   -   -   -   AU  -
qemu_extra_opts                 string       -   -   -   -   -   CU
qemu_opts                       string       -   -   -   -   -   CU
quota                           integer      CU  CU  CU  CU  CU  CU  min=0
ram                             integer      CU  CU  CU  CU  CU  CU  min=0
remove_customer_metadata        list         U   U   U   U   U   U
remove_disks                    list         -   -   -   -   U   U
remove_filesystems              list         U   U   U   U   U   U
remove_internal_metadata        list         U   U   U   U   U   U
remove_nics                     list         U   U   U   U   U   U
remove_pci_devices              list         -   -   -   -   U   -
remove_routes                   list         U   U   U   U   U   U
remove_tags                     list         U   U   U   U   U   U
resolvers                       list         CU  CU  CU  CU  CU  CU  check=validResolver
restart_init                    boolean      CU  CU  CU  CU  -   -   absent=true
routes                          flat-object  C   C   C   C   C   C
set_customer_metadata           flat-object  U   U   U   U   U   U
set_internal_metadata           flat-object  U   U   U   U   U   U
set_routes                      flat-object  U   U   U   U   U   U
set_tags                        flat-object  U   U   U   U   U   U
spice_opts                      string       -   -   -   -   -   CU
spice_password                  string       -   -   -   -   -   CU
spice_port                      integer      -   -   -   -   -   CU  min=-1
tags                            flat-object  C   C   C   C   C   C
tmpfs                           integer      CU  CU  CU  CU  -   -   min=0
transition                      flat-object  r   r   r   r   r   r
update_disks                    object-array -   -   -   -   U   U
update_filesystems              object-array U   U   U   U   -   U
update_nics                     object-array U   U   U   U   U   U
update_pci_devices              object-array -   -   -   -   U   -
uuid                            uuid         C   C   C   C   C   C
v                               integer      r   r   r   r   r   r   min=0
vcpus                           integer      -   -   -   -   CU  CU  min=1
vga                             string       -   -   -   -   -   CU
virtio_txburst                  integer      -   -   -   -   -   CU  min=0
virtio_txtimer                  integer      -   -   -   -   -   CU  min=0
vnc_password                    string       -   -   -   -   CU  CU
vnc_port                        integer      -   -   -   -   CU  CU  min=-1
zfs_data_compression            string       CU  CU  CU  CU  -   -   absent=off
zfs_data_recsize                integer      CU  CU  CU  CU  -   -   min=0
zfs_filesystem                  string       r   r   r   r   r   r
zfs_filesystem_limit            integer      CU  CU  CU  CU  CU  CU  min=0,absent=none
zfs_io_priority                 integer      CU  CU  CU  CU  CU  CU  min=0
zfs_root_compression            string       CU  CU  CU  CU  CU  CU  absent=off
zfs_root_recsize                integer      CU  CU  CU  CU  CU  CU  min=0,absent=131072
zfs_snapshot_limit              integer      CU  CU  CU  CU  CU  CU  min=0,absent=none
zfs_storage_pool_name           zpool        C   C   C   C   -   C
zlog_max_size                   integer      CU  CU  CU  CU  -   -   min=0,max=9223372036854775807
zone_dataset_uuid               uuid         -   -   -   -   C   C
zonename                        string       C   C   C   C   C   C
zpool                           zpool        C   C   C   C   C   C
"""


class Property(t.NamedTuple):
    """One property: type, what each brand allows, limits of a number, name of a further check, value that vanishes."""

    type: str
    allows: dict[str, str]
    least: int | None = None
    most: int | None = None
    check: str | None = None
    absent: t.Any = None

    def allowed(self, brand: str, use: str) -> bool:
        """Whether ``brand`` takes it in ``use``: create, update, or for an item of a list add."""
        return {"create": "C", "update": "U", "add": "A"}[use] in self.allows[brand]


_ABSENT = {"false": False, "true": True, "131072": 131072}


def _read(table: str) -> dict[str, Property]:
    properties = {}
    for line in table.splitlines():
        name, kind, *rest = line.split()
        limits = dict(one.split("=") for one in "".join(rest[6:]).split(",") if one)
        absent = limits.get("absent")
        properties[name] = Property(
            kind,
            dict(zip(BRANDS, rest, strict=False)),
            int(limits["min"]) if "min" in limits else None,
            int(limits["max"]) if "max" in limits else None,
            limits.get("check"),
            _ABSENT.get(absent, absent) if absent else None,
        )
    return properties


PROPERTIES = _read(_TABLE)


def as_boolean(value: t.Any) -> bool | None:
    """The truth value that ``value`` is or spells; None when it is not one."""
    known: dict[t.Any, bool] = {"true": True, "false": False, "1": True, "0": False, 1: True, 0: False}
    return known.get(value) if isinstance(value, (str, bool, int)) else None


def as_list(value: t.Any) -> list[t.Any]:
    """A list as it is, a comma list taken apart."""
    return list(value) if isinstance(value, list) else [one for one in str(value).split(",") if one]
