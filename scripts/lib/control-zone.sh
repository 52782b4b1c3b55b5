#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The control zone of a SmartOS host: a zone of brand lx that holds Ansible and reaches the global zone by SSH. A global zone has neither
# Python nor a place for one that a boot leaves, so the commands of this checkout hand over to this program there; see --help.
#
# For any POSIX shell and the tools of illumos: nothing here is bash's, and nothing but zlogin's far side is GNU's.
set -eu

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
ALIAS=zonestack-control
CHECKOUT=/opt/zonestack
# The address of inventory/examples/smartos, of which nobody has one (RFC 5737)
PLACEHOLDER=192.0.2.11
USBKEY=${USBKEY:-/usbkey}

usage() {
  cat <<TEXT
usage: scripts/bootstrap-aio.sh --image IMAGE [--address ADDRESS/LENGTH --gateway ADDRESS] [OPTION ...]    (in a global zone of SmartOS)

Make a control zone on this SmartOS host: a zone of brand lx, named $ALIAS, with this checkout, the Python packages of the
control side, and a key that root of this global zone accepts, now and after each boot. Begin in it the deployment aio,
of zones on this very host. Run it as often as you like: what is there is kept, and a changed checkout is copied again.

  --image IMAGE          UUID or name of an image of Debian for lx zones, of the release that suite of services/_base.yml names;
                         the images of zones begin with it as well. Not needed once the zone is there.
  --address A/LENGTH     the control zone's address on NIC tag admin (default: dhcp), which must lead to package servers
  --gateway ADDRESS      its router
  --host ADDRESS         where the control zone reaches this global zone (default: admin_ip of $USBKEY/config)
  --certificates FOLDER  *.crt are further certificates that the control zone, and all others, are to trust
  --help                 this text

Proxies and package indexes (http_proxy, https_proxy, no_proxy, PIP_INDEX_URL, UV_*) are taken from this environment.
TEXT
}

say() { printf '%s\n' "$*"; }

stop() {
  say "error: $1" >&2
  exit "${2:-1}"
}

# A text as one word for a shell.
quoted() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }

is_address() { printf '%s\n' "$1" | grep -E '^([0-9]{1,3}\.){3}[0-9]{1,3}$' >/dev/null; }
is_uuid() { printf '%s\n' "$1" | grep -E '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' >/dev/null; }

# Run the script on standard input in the zone. zlogin takes one argument as it stands, and several without quoting them.
in_zone() { zlogin -Q "$zone" 'exec /bin/bash -eu'; }

# The control zone's UUID; nothing where there is none.
find_zone() {
  found=$(vmadm lookup "alias=$ALIAS")
  [ "$(say "$found" | wc -l)" -eq 1 ] ||
    stop "several zones have the alias $ALIAS ($(say "$found" | tr '\n' ' ')): give all but the control zone another one (vmadm update UUID alias=..)"
  say "$found"
}

have_running() {
  state=$(vmadm list -H -o state "uuid=$zone")
  case $state in
    running) ;;
    stopped) vmadm start "$zone"; changed="$changed
  the control zone was started" ;;
    *) stop "the control zone is $state: look at it, vmadm get $zone; one that was never finished can go, vmadm delete $zone, and this be run again" ;;
  esac
}

# What is made ---------------------------------------------------------------------------------------------------------

# The UUID of an installed image of Debian, installed where it is not.
have_image() {
  if is_uuid "$image"; then
    uuid=$image
  else
    uuid=$(imgadm list -H -o uuid "name=$image" type=lx-dataset | tail -1)
    [ "$uuid" ] || uuid=$(imgadm avail -H -o uuid "name=$image" type=lx-dataset | tail -1)
    [ "$uuid" ] || stop "--image $image: no image for lx zones of that name is installed or offered; look at: imgadm avail type=lx-dataset"
  fi
  imgadm get "$uuid" >/dev/null 2>&1 || imgadm import -q "$uuid" >&2 || stop "--image $image: see above; is it one of: imgadm avail type=lx-dataset"
  say "$uuid"
}

make_zone() {
  image=$(have_image)
  resolvers=$(sed -n 's/^ *nameserver  *\([0-9.]*\) *$/"\1"/p' /etc/resolv.conf | paste -s -d , -)
  case $address in
    dhcp) nic='"ips": ["dhcp"]' ;;
    *) nic="\"ips\": [\"$address\"], \"gateways\": [\"$gateway\"]" ;;
  esac
  say "Making the control zone"
  vmadm create <<TEXT
{"brand": "lx", "alias": "$ALIAS", "hostname": "$ALIAS", "image_uuid": "$image", "kernel_version": "5.10.0",
 "max_physical_memory": 2048, "max_swap": 4096, "tmpfs": 512, "quota": 20, "resolvers": [$resolvers],
 "nics": [{"nic_tag": "admin", "primary": true, $nic}]}
TEXT
  zone=$(find_zone)
  changed="$changed
  the control zone $zone, of image $image"
}

# What of this checkout goes into the zone: all but what each side makes for itself. Deployments are described in the zone. Network and
# sbin are what a run makes in /opt/zonestack of the global zone, where this checkout may lie.
contents() { (cd "$ROOT" && ls -A) | grep -vE '^(\.git|\.venv|\.cache|\.collections|logs|inventory|network|sbin)$'; }

pack() {
  # shellcheck disable=SC2046  # names of ours, without blanks
  (cd "$ROOT" && tar cf - $(contents) inventory/examples)
}

copy_checkout() {
  mark=$(pack | cksum)
  [ "$(echo "cat $CHECKOUT/.copied 2>/dev/null || true" | in_zone)" != "$mark" ] || return 0
  say "Copying this checkout into the control zone"
  echo "mkdir -p $CHECKOUT/inventory; cd $CHECKOUT; rm -rf .copied inventory/examples $(contents | tr '\n' ' ')" | in_zone
  pack | zlogin -Q "$zone" "exec tar -C $CHECKOUT --no-same-owner -xf -"
  echo "echo '$mark' >$CHECKOUT/.copied" | in_zone # last: a copy that was broken off is made again
  changed="$changed
  the checkout, in the control zone's $CHECKOUT"
}

# What is to be known in the zone of this environment, as a script: over standard input, as it may hold a password.
environment() {
  for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY PIP_INDEX_URL PIP_EXTRA_INDEX_URL UV_DEFAULT_INDEX UV_INDEX UV_INDEX_URL; do
    eval "value=\${$name-}"
    [ ! "$value" ] || say "export $name=$(quoted "$value")"
  done
}

copy_certificates() {
  [ "$certificates" ] || return 0
  for file in "$certificates"/*.crt; do
    [ -r "$file" ] || stop "--certificates $certificates: there is no *.crt"
    name=$(basename "$file")
    { echo "cat >/usr/local/share/ca-certificates/$(quoted "$name") <<'END OF CERTIFICATE'"; cat "$file"; say; say 'END OF CERTIFICATE'; } | in_zone
  done
  { environment; echo '{ command -v update-ca-certificates || { apt-get update; apt-get install -y ca-certificates; }; update-ca-certificates; } </dev/null >/dev/null'; } | in_zone
}

# The control side, and the deployment aio.
set_up() {
  seed=$(vmadm get "$zone" | sed -n 's/^ *"image_uuid": "\(.*\)",*$/\1/p')
  {
    environment
    cat <<TEXT
cd $CHECKOUT
scripts/bootstrap-control.sh aio --from smartos </dev/null
! grep -qF '${PLACEHOLDER}' inventory/aio/topology.yml || sed -i 's/${PLACEHOLDER}/$host/' inventory/aio/topology.yml
mkdir -p inventory/aio/group_vars inventory/aio/ca-certificates
test -e inventory/aio/group_vars/smartos_hosts.yml || echo 'zone_image_seed: {uuid: $seed}' >inventory/aio/group_vars/smartos_hosts.yml
find /usr/local/share/ca-certificates -name '*.crt' -exec cp -u {} inventory/aio/ca-certificates/ \;
mkdir -p -m 0700 ~/.ssh
test -e ~/.ssh/id_ed25519 || ssh-keygen -q -t ed25519 -N '' -C $ALIAS -f ~/.ssh/id_ed25519
TEXT
  } | in_zone
}

# Append a line to a file, whose last line may lack its end.
append() {
  [ ! -s "$2" ] || [ ! "$(tail -c 1 "$2")" ] || echo >>"$2"
  say "$1" >>"$2"
}

# Have root of this global zone accept the control zone's key. A boot makes root's file anew, of the one that the configuration names.
let_in() {
  key=$(echo 'cat ~/.ssh/id_ed25519.pub' | in_zone)
  [ "$key" ] || stop "the control zone $zone has no SSH key: look at ~/.ssh there"
  name=$(sed -n 's/^root_authorized_keys_file=//p' "$USBKEY/config" | tail -1)
  if [ ! "$name" ]; then
    name=authorized_keys
    append "root_authorized_keys_file=$name" "$USBKEY/config"
  fi
  mkdir -p "$USBKEY/config.inc"
  for file in "$USBKEY/config.inc/$name" "$HOME/.ssh/authorized_keys"; do
    [ -d "$(dirname "$file")" ] || mkdir -m 0700 "$(dirname "$file")"
    grep -F "$key" "$file" >/dev/null 2>&1 && continue
    (umask 077 && append "$key" "$file")
    changed="$changed
  the control zone's key, in $file"
  done
}

# Give the control zone this host's keys, which it need not ask the network for, and see that it gets in.
introduce() {
  keys=
  for folder in /var/ssh /etc/ssh "$USBKEY/ssh"; do
    for file in "$folder"/ssh_host_*_key.pub; do
      [ ! -r "$file" ] || keys="$keys$host $(cut -d ' ' -f 1,2 "$file")
"
    done
    [ ! "$keys" ] || break
  done
  [ "$keys" ] || stop "there are no host keys in /var/ssh, /etc/ssh or $USBKEY/ssh: is sshd on here (svcs ssh)?"
  {
    echo "cat >~/.ssh/known_hosts.new <<'END OF KEYS'"
    printf '%s' "$keys"
    cat <<TEXT
END OF KEYS
test ! -e ~/.ssh/known_hosts || grep -v '^$host ' ~/.ssh/known_hosts >>~/.ssh/known_hosts.new || true
mv ~/.ssh/known_hosts.new ~/.ssh/known_hosts
ssh -o BatchMode=yes -o ConnectTimeout=10 root@$host "vmadm lookup alias=$ALIAS" </dev/null
TEXT
  } | in_zone | grep -Fx "$zone" >/dev/null ||
    stop "the control zone does not get into this global zone: try it, zlogin $zone ssh root@$host vmadm list"
}

# The two ways in ------------------------------------------------------------------------------------------------------

bootstrap() {
  image='' address=dhcp gateway='' host='' certificates='' changed=''
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) usage; exit 0 ;;
      --image | --address | --gateway | --host | --certificates)
        [ $# -gt 1 ] || stop "$1 needs a value; see --help" 2
        eval "${1#--}=\$2"
        shift 2 ;;
      *) usage >&2; stop "unknown argument '$1'" 2 ;;
    esac
  done
  case $address in
    dhcp) [ ! "$gateway" ] || stop "--gateway goes with --address" 2 ;;
    */*)
      is_address "${address%/*}" || stop "--address $address: write 192.0.2.5/24" 2
      is_address "$gateway" || stop "--gateway '$gateway': --address goes with the address of its router" 2 ;;
    *) stop "--address $address: give it with the length of its network's prefix, 192.0.2.5/24" 2 ;;
  esac
  [ "$host" ] || host=$(sed -n 's/^admin_ip=//p' "$USBKEY/config" | tail -1)
  is_address "$host" || host=$(sysinfo -p | sed -n "s/^Admin_IP='\{0,1\}\([0-9.]*\).*/\1/p")
  is_address "$host" || stop "this global zone's address is not known (admin_ip of $USBKEY/config): give it with --host" 2

  zone=$(find_zone)
  if [ "$zone" ]; then
    have_running
  else
    [ "$image" ] || stop "there is no control zone yet: --image IMAGE says what it begins as; look at: imgadm avail type=lx-dataset" 2
    make_zone
  fi
  copy_checkout
  copy_certificates
  set_up
  let_in
  introduce
  if [ "$changed" ]; then say "Changed here:$changed"; else say "Nothing to change: there is a control zone already."; fi
  say "The cloud is described in the control zone, $CHECKOUT/inventory/aio/topology.yml (zlogin $zone). Deploy it: scripts/run-playbooks.sh"
}

# Run a command of the checkout in the control zone.
hand_over() {
  zone=$(find_zone)
  [ "$zone" ] || stop "this is a global zone without a control zone: make one, scripts/bootstrap-aio.sh --image IMAGE (see --help)"
  [ "$(vmadm list -H -o state "uuid=$zone")" = running ] || stop "the control zone $zone does not run: vmadm start $zone"
  line="cd $CHECKOUT && exec scripts/$1"
  shift
  for word; do line="$line $(quoted "$word")"; done
  # With a terminal where there is one: for the progress display, and for shells in zones.
  if [ -t 0 ] && [ -t 1 ]; then exec zlogin -Q -i "$zone" "$line"; fi
  exec zlogin -Q "$zone" "$line"
}

case ${1-} in
  bootstrap) shift; bootstrap "$@" ;;
  run) shift; hand_over "$@" ;;
  *) stop "usage: control-zone.sh bootstrap [OPTION ...] | run SCRIPT [ARGUMENT ...]" 2 ;;
esac
