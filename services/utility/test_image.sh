#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# All that the machine of the image zonestack-test does by itself, under several names as busybox is: see the end.
export PATH=/usr/bin
home=/home/zonestack
state=/var/lib/zonestack
metadata=http://169.254.169.254/openstack/latest

# Progress, with the seconds since the kernel started, on the serial line (the console log) and on the screen.
say() {
  read -r up _ </proc/uptime
  for console in /dev/ttyS0 /dev/tty1; do echo "zonestack: $up s: $*" >$console 2>/dev/null; done
}

boot() {
  mount -t proc proc /proc
  mount -t sysfs sysfs /sys
  mount -t tmpfs -o mode=0755 run /run
  mkdir -p /dev/pts /run/metadata
  mount -t devpts devpts /dev/pts
  ln -sf /proc/self/fd /dev/fd
  chmod 0666 /dev/null /dev/zero /dev/random /dev/urandom /dev/tty /dev/ptmx
  for module in virtio_net button evdev; do modprobe $module; done
  acpid
  say "the system runs"
  ip link set lo up
  first=
  for device in /sys/class/net/eth*; do
    name=${device##*/}
    [ -e "$device" ] || continue
    ip link set "$name" up
    # The first interface is waited for, any other may come when it comes. It stays, to renew its lease.
    if [ -z "$first" ]; then
      first=$name
      lease "$name" -T 1 -t 30 -b
    else
      lease "$name" -T 2 -b &
    fi
  done
  know_myself
  dropbear -R -s -E 2>/dev/ttyS0
  say "SSH listens; $(hostname) is up"
}

lease() {
  name=$1
  shift
  udhcpc -i "$name" -p "/run/udhcpc.$name.pid" -s /usr/lib/zonestack/dhcp -O 26 -O 121 "$@" >/dev/null 2>&1
}

# DHCP's events; udhcpc gives what it was told in variables. Who gives static routes means them instead of the router (RFC 3442).
# shellcheck disable=SC2154
dhcp() {
  event=$1
  case $event in
    deconfig)
      ip addr flush dev "$interface"
      ip link set "$interface" up
      ;;
    bound | renew)
      [ -z "$mtu" ] || ip link set "$interface" mtu "$mtu"
      ip addr replace "$ip/$mask" dev "$interface"
      if [ -n "$staticroutes" ]; then
        # shellcheck disable=SC2086
        set -- $staticroutes
        while [ $# -ge 2 ]; do
          if [ "$2" = 0.0.0.0 ]; then
            ip route replace "$1" dev "$interface"
          else
            ip route replace "$1" via "$2" dev "$interface"
          fi
          shift 2
        done
      elif [ -n "$router" ]; then
        ip route replace default via "${router%% *}" dev "$interface"
      fi
      for server in $dns; do echo "nameserver $server"; done >/run/resolv.conf
      [ "$event" = renew ] || say "$interface has $ip/$mask${staticroutes:+, routes $staticroutes}${mtu:+, MTU $mtu}"
      ;;
  esac
}

# meta_data.json and user_data, from the metadata service or from a configuration drive: both hold them in one form.
read_metadata() {
  tries=0
  while [ $tries -lt 20 ] && ip route get 169.254.169.254 >/dev/null 2>&1; do
    if wget -q -T 10 -O /run/metadata/meta_data.json $metadata/meta_data.json 2>/dev/null; then
      wget -q -T 10 -O /run/metadata/user_data $metadata/user_data 2>/dev/null || rm -f /run/metadata/user_data
      say "metadata came from the metadata service"
      return
    fi
    tries=$((tries + 1))
    sleep 1
  done
  rm -f /run/metadata/*
  drive=$(blkid | sed -n 's/: LABEL="config-2".*//p')
  if [ -n "$drive" ] && mount -o ro "$drive" /mnt; then
    cp /mnt/openstack/latest/meta_data.json /mnt/openstack/latest/user_data /run/metadata/ 2>/dev/null
    umount /mnt
    say "metadata came from the configuration drive $drive"
    return
  fi
  say "there is no metadata: neither a metadata service nor a configuration drive answers"
  return 1
}

# A string of the metadata's top level. The keys of its "keys" list are called otherwise.
field() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" /run/metadata/meta_data.json; }

know_myself() {
  hostname "$(cat $state/hostname 2>/dev/null || echo zonestack-test)"
  read_metadata || return
  chmod 0600 /run/metadata/*
  name=$(field hostname)
  hostname "${name%%.*}"
  hostname >$state/hostname
  # Keys: "public_keys": {"name": "ssh-ed25519 AAAA... comment\n"}
  for folder in /root $home; do
    mkdir -p "$folder/.ssh"
    sed -n 's/.*"public_keys": *{\([^}]*\)}.*/\1/p' /run/metadata/meta_data.json |
      grep -oE '(ssh|ecdsa|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/=]+( [^"\\]*)?' >"$folder/.ssh/authorized_keys"
    chmod 0700 "$folder" "$folder/.ssh"
    chmod 0600 "$folder/.ssh/authorized_keys"
  done
  chown -R zonestack:zonestack $home/.ssh
  # A snapshot of this machine is another machine: what identifies it is made anew, and its user-data runs.
  if [ "$(field uuid)" != "$(cat $state/instance 2>/dev/null)" ]; then
    rm -f /etc/dropbear/dropbear_*_host_key $state/user-data-done
    field uuid >$state/instance
  fi
  say "$(hostname) is instance $(field uuid), $(grep -c . $home/.ssh/authorized_keys) SSH key(s)"
}

# A script that the instance was started with runs once in the instance's life; its output is in the console log.
user_data() {
  [ -e /run/metadata/user_data ] && [ ! -e $state/user-data-done ] || return
  case $(head -c 2 /run/metadata/user_data) in
    '#!')
      : >$state/user-data-done
      cp /run/metadata/user_data $state/user-data
      chmod 0700 $state/user-data
      say "user-data runs"
      cd /root && $state/user-data </dev/null >/dev/ttyS0 2>&1
      say "user-data ended with exit code $?"
      ;;
    *) say "user-data is no script (#!), so it is left alone" ;;
  esac
}

# Quick, because who stops an instance waits for it; processes get a moment to end, the file system is left clean.
shut_down() {
  say "power off"
  kill -TERM -1
  usleep 200000
  sync
  mount -o remount,ro /
}

# What people and Tempest ask a machine for and busybox has not, as far as they ask it.
find_drives() {
  modprobe -a ata_piix ahci virtio_scsi sr_mod isofs 2>/dev/null
  [ "$1" != -L ] || { findfs "LABEL=$2"; return; }
  sed -n 's/.* \([shv][rd][a-z0-9]*\)$/\1/p' /proc/partitions | while read -r device; do
    [ "$(findfs LABEL=config-2 2>/dev/null)" = "/dev/$device" ] && echo "/dev/$device: LABEL=\"config-2\" TYPE=\"iso9660\""
    [ "$(findfs LABEL=zonestack 2>/dev/null)" = "/dev/$device" ] && echo "/dev/$device: LABEL=\"zonestack\" TYPE=\"ext4\""
  done
  return 0
}

list_disks() {
  echo "NAME MAJ:MIN RM SIZE RO TYPE MOUNTPOINT"
  for device in /sys/block/[hsv]d*; do
    [ -e "$device" ] || continue
    echo "${device##*/} $(cat "$device/dev") $(cat "$device/removable") $(($(cat "$device/size") * 512)) $(cat "$device/ro") disk"
  done
}

# Root has no password, so su asks for none.
as_root() {
  while :; do
    case $1 in -[nEHSik]) shift ;; *) break ;; esac
  done
  [ "$(id -u)" -ne 0 ] || exec "$@"
  # shellcheck disable=SC2016
  exec su root -c 'exec "$0" "$@"' -- "$@"
}

copy_url() {
  output=- post='' url=''
  while [ $# -gt 0 ]; do
    case $1 in
      -o) output=$2 && shift ;;
      -d) post=$2 && shift ;;
      -X) shift ;;
      -*) ;;
      *) url=$1 ;;
    esac
    shift
  done
  exec wget -q -T 30 -O "$output" ${post:+--post-data "$post"} "$url"
}

case $0 in
  */boot) boot ;;
  */user-data) user_data ;;
  */shutdown) shut_down ;;
  */dhcp) dhcp "$@" ;;
  */00000080) say "the power button was pressed" && poweroff ;;
  */sudo) as_root "$@" ;;
  */blkid) [ "$(id -u)" -eq 0 ] || exec sudo blkid "$@" && find_drives "$@" ;;
  */lsblk) list_disks ;;
  */mkfs.ext4) exec mke2fs "$@" ;;
  */curl) copy_url "$@" ;;
esac
