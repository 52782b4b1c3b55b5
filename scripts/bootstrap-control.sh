#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
set -euo pipefail
# shellcheck source=scripts/lib/env.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib/env.sh"
# shellcheck source=scripts/lib/control.sh
source "$ROOT/scripts/lib/control.sh"

usage() {
  cat <<TEXT
usage: scripts/bootstrap-control.sh [DEPLOYMENT [--from EXAMPLE]]

Make this machine one from which is deployed onto others: install the Python packages of the control side into .venv. With
a DEPLOYMENT, also begin its folder inventory/DEPLOYMENT: a topology.yml to be changed, secrets, and the certificates in
/usr/local/share/ca-certificates, which the zones are to trust as well. The hosts themselves are only reached by the first
run; SSH to them is this user's own (ssh_config(5), keys, agent).

Needs Debian 12 or 13, and root where a package is missing. Run it as often as you like: what is there is kept.

  --from EXAMPLE  what topology.yml begins as: $(cd "$ROOT/inventory/examples" && echo *) (default: production)
  --help          this text
TEXT
}

name='' example=production
while (($#)); do
  case $1 in
    --from)
      (($# > 1)) || { echo "error: --from needs a value, for example two-hosts" >&2; exit 2; }
      example=$2; shift 2 ;;
    --from=*) example=${1#*=}; shift ;;
    -h | --help) usage; exit 0 ;;
    -*) echo "error: unknown argument '$1'" >&2; usage >&2; exit 2 ;;
    *)
      [[ -z $name ]] || { echo "error: one deployment at a time: '$name', then '$1'" >&2; exit 2; }
      name=$1; shift ;;
  esac
done
[[ -z $name || $name =~ ^[a-z][a-z0-9-]{0,30}$ ]] ||
  { echo "error: deployment '$name': a name has a-z, 0-9 and -, and begins with a letter" >&2; exit 2; }
[[ -e $ROOT/inventory/examples/$example/topology.yml ]] ||
  { echo "error: --from '$example': the examples are $(cd "$ROOT/inventory/examples" && echo *)" >&2; exit 2; }

lock_checkout
mapfile -t missing < <(missing_packages "${control_packages[@]}")
if ((${#missing[@]})); then
  ((EUID == 0)) || stop "Missing here: ${missing[*]}. Run this as root once, or install them."
  install_packages "${missing[@]}"
fi
install_python_packages
link_collection

deployment=$ROOT/inventory/$name
if [[ -n $name && ! -e $deployment/topology.yml ]]; then
  mkdir -p "$deployment"
  sed -E "s/^deployment: .*/deployment: $name/" "$ROOT/inventory/examples/$example/topology.yml" >"$deployment/topology.yml.new"
  mv "$deployment/topology.yml.new" "$deployment/topology.yml"
  changed+=("inventory/$name/topology.yml (as inventory/examples/$example)")
fi
if [[ -n $name ]]; then
  # They follow this machine, as on an all-in-one: a renewed certificate of the site must reach the images.
  for source in /usr/local/share/ca-certificates/*.crt; do
    target=$deployment/ca-certificates/${source##*/}
    [[ -e $source ]] || break    # none: the pattern itself
    ! cmp --quiet "$source" "$target" || continue
    install -D --mode=0644 "$source" "$target"
    changed+=("inventory/$name/ca-certificates/${source##*/} (extra certificate of this machine)")
  done
  have_secrets "$deployment"
fi

say_what_was_done
if [[ -n $name ]]; then
  say "Say in inventory/$name/topology.yml which hosts there are; see what becomes of it: scripts/topology.sh --deployment $name"
  say "Then deploy it: scripts/run-playbooks.sh --deployment $name"
else
  say "Begin a deployment: scripts/bootstrap-control.sh NAME"
fi
