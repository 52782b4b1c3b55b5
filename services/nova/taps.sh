#!/bin/sh
# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Hook of libvirt (https://libvirt.org/hooks.html): $1 is the guest, $2 what happens to it, its description comes on stdin.
#
# os-vif names the port to Open vSwitch before it makes the tap and sets it up. With its own datapath, ovs-vswitchd opens the tap as
# soon as it is there, remembers its flags, and writes them back with one more a moment later: who set it up in between did so in
# vain, and the guest has no network, although everybody calls the port active. When QEMU has started, that moment is over.
#
# Its exit status is always 0: libvirt would kill the guest on any other.

[ "$2" = started ] || exit 0
sed -n "s/.*<target dev='\(tap[^']*\)'.*/\1/p" | while read -r tap; do
    ip link set dev "$tap" up
done
exit 0
