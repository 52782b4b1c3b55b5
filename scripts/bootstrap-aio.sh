#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Until bash is sure these lines are for any shell: in a global zone of SmartOS another program makes a control zone.
if [ "$(zonename 2>/dev/null)" = global ]; then exec sh "$(dirname "$0")/lib/control-zone.sh" bootstrap "$@"; fi
if [ ! "${BASH_VERSION-}" ]; then exec bash "$0" "$@"; fi

set -euo pipefail
# shellcheck source=scripts/lib/env.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib/env.sh"
# shellcheck source=scripts/lib/control.sh
source "$ROOT/scripts/lib/control.sh"

usage() {
  cat <<'TEXT'
usage: scripts/bootstrap-aio.sh [--network CIDR] [--check]

Make this machine an all-in-one development host: check that it can be one, install the Python packages of the control
side into .venv, and write the deployment inventory/aio with its secrets. The host itself (LXC, kernel settings, bridge)
is prepared by the first step of scripts/run-playbooks.sh, here as on every production host.

Needs Debian 12 or 13, root, 8 GiB of memory and 16 GiB of disk. Run it as often as you like: what is there is kept.

  --network CIDR  the network of the zones, for example 10.99.0.0/21 (default: the first of a few that nothing here uses)
  --check         only look whether this machine can be an all-in-one host; change nothing
  --help          this text

Downloads go by this machine's configuration: apt's sources, pip's index (pip.conf, PIP_INDEX_URL), UV_*, http_proxy, and
the certificates that it trusts. Certificates in /usr/local/share/ca-certificates are given to the zones as well.

In a global zone of SmartOS this makes a control zone instead, which the other commands then hand over to: --help there.
TEXT
}

network=() check_only=
while (($#)); do
  case $1 in
    --network)
      (($# > 1)) || { echo "error: --network needs a value, for example 10.99.0.0/21" >&2; exit 2; }
      network=(--network "$2"); shift 2 ;;
    --network=*) network=(--network "${1#*=}"); shift ;;
    --check) check_only=1; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "error: unknown argument '$1'" >&2; usage >&2; exit 2 ;;
  esac
done

deployment=$ROOT/inventory/aio
# One line per problem of what must hold before anything else can be looked at.
first_problems() {
  local id='' version='' name='an unknown system'
  if [[ -r /etc/os-release ]]; then
    # shellcheck source=/dev/null
    read -r id version name < <(source /etc/os-release && echo "${ID-} ${VERSION_ID:-0} ${PRETTY_NAME-}")
  fi
  ((EUID == 0)) || echo "problem: not root: this is user $(id -un). Fix: sudo $0"
  case $id:$version in    # as SYSTEMS in lib/checks/machine.py
    debian:12 | debian:13) ;;
    *) echo "problem: system: this is $name. Fix: use Debian 12 or 13 (other distributions are not supported yet)." ;;
  esac
}

# Prints the chosen settings as JSON on standard output, problems on standard error.
preflight() {
  # no user packages, no PYTHON* variables, and no bytecode left in the checkout
  env "${borrowed[@]}" "$python" -EsB "$ROOT/scripts/lib/bootstrap.py" --topology "$deployment/topology.yml" "${network[@]}"
}

# Preflight --------------------------------------------------------------------------------------------------------------
problems=$(first_problems)
[[ -z $problems ]] || say "$problems" >&2
[[ -n $check_only ]] || ((EUID)) || lock_checkout
mapfile -t missing < <(missing_packages "${aio_packages[@]}")
# What is missing is borrowed, for nothing is changed before all of this machine was looked at.
if [[ -z $problems ]] && ((${#missing[@]})); then
  borrow_packages "${missing[@]}" >&2
fi
settings=
if [[ -x $python ]]; then
  settings=$(preflight) || problems+=$'\npreflight'
fi
[[ -z $problems ]] || stop "This machine cannot be an all-in-one host yet; nothing was changed."
[[ -z $check_only ]] || { say "This machine can be an all-in-one host: $settings"; exit 0; }

if ((${#missing[@]})); then
  install_packages "${missing[@]}"
fi
install_python_packages
link_collection

# The deployment ---------------------------------------------------------------------------------------------------------
written=$("$PYTHON" "$ROOT/scripts/lib/deployment.py" write-aio "$settings")
[[ -z $written ]] || mapfile -t -O "${#changed[@]}" changed <<<"$written"
have_secrets "$deployment"

say_what_was_done
say "The cloud is described in inventory/aio/topology.yml. Deploy it: scripts/run-playbooks.sh"
