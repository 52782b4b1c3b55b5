#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
set -euo pipefail
# shellcheck source=scripts/lib/env.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib/env.sh"

usage() {
  cat <<'TEXT'
usage: scripts/bootstrap-aio.sh [--network CIDR] [--check | --control]

Make this machine an all-in-one development host: check that it can be one, install the Python packages of the control
side into .venv, and write the deployment inventory/aio with its secrets. The host itself (LXC, kernel settings, bridge)
is prepared by the first step of scripts/run-playbooks.sh, here as on every production host.

Needs Debian 12 or 13, root, 8 GiB of memory and 16 GiB of disk. Run it as often as you like: what is there is kept.

  --network CIDR  the network of the zones, for example 10.99.0.0/21 (default: the first of a few that nothing here uses)
  --check         only look whether this machine can be an all-in-one host; change nothing
  --control       only the control side: for a machine from which other hosts are deployed, and that holds no zones itself
  --help          this text

Downloads go by this machine's configuration: apt's sources, pip's index (pip.conf, PIP_INDEX_URL), UV_*, http_proxy, and
the certificates that it trusts. Certificates in /usr/local/share/ca-certificates are given to the zones as well.
TEXT
}

network=() check_only='' control_only=''
while (($#)); do
  case $1 in
    --network)
      (($# > 1)) || { echo "error: --network needs a value, for example 10.99.0.0/21" >&2; exit 2; }
      network=(--network "$2"); shift 2 ;;
    --network=*) network=(--network "${1#*=}"); shift ;;
    --check) check_only=1; shift ;;
    --control) control_only=1; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "error: unknown argument '$1'" >&2; usage >&2; exit 2 ;;
  esac
done

what='an all-in-one host'
[[ -z $control_only ]] || what='a control machine'
deployment=$ROOT/inventory/aio
# python3-venv makes .venv, ca-certificates lets it download; iproute2 and nftables are the tools of the preflight.
packages=(python3-venv ca-certificates iproute2 nftables)
# Hosts are reached by SSH.
[[ -z $control_only ]] || packages=(python3-venv ca-certificates openssh-client)
changed=()
python=/usr/bin/python3    # Debian's own: one from elsewhere on PATH may go, and .venv with it

say() { printf '%s\n' "$*"; }

missing_packages() {
  local package
  for package in "${packages[@]}"; do
    [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || echo "$package"
  done
}

# One line per problem of what must hold before anything else can be looked at.
first_problems() {
  local id='' version='' name='an unknown system'
  if [[ -r /etc/os-release ]]; then
    # shellcheck source=/dev/null
    read -r id version name < <(source /etc/os-release && echo "${ID-} ${VERSION_ID:-0} ${PRETTY_NAME-}")
  fi
  ((EUID == 0)) || echo "problem: not root: this is user $(id -un). Fix: sudo $0"
  case $id:$version in
    debian:12 | debian:13) ;;
    *) echo "problem: system: this is $name. Fix: use Debian 12 or 13 (Ubuntu and others are not supported yet)." ;;
  esac
}

# Prints the chosen settings as JSON on standard output, problems on standard error.
preflight() {
  [[ -z $control_only ]] || return 0
  # -I: no user packages, and nothing of the working directory
  "$python" -I "$ROOT/scripts/lib/preflight.py" --topology "$deployment/topology.yml" "${network[@]}"
}

stop() {
  say "error: $1" >&2
  exit 1
}

# Preflight --------------------------------------------------------------------------------------------------------------
problems=$(first_problems)
[[ -z $problems ]] || say "$problems" >&2
settings=
if [[ -x $python ]]; then
  settings=$(preflight) || problems+=$'\npreflight'
fi
[[ -z $problems ]] || stop "This machine cannot be $what yet; nothing was changed."
[[ -z $check_only ]] || { say "This machine can be an all-in-one host: ${settings:-python3 is not installed yet, so only root and system were checked}"; exit 0; }

# One bootstrap at a time. The lock goes with the process, so a killed one leaves none behind.
mkdir -p "$ROOT/.cache"
exec 9>"$ROOT/.cache/bootstrap.lock"
flock --nonblock 9 || stop "Another scripts/bootstrap-aio.sh is running in this checkout: wait for it."

# Packages ---------------------------------------------------------------------------------------------------------------
mapfile -t missing < <(missing_packages)
if ((${#missing[@]})); then
  say "Installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt_log=$ROOT/.cache/apt.log
  if ! { apt-get update && apt-get install --yes --no-install-recommends "${missing[@]}"; } >"$apt_log" 2>&1; then
    tail -n 5 "$apt_log" >&2
    stop "apt-get could not install ${missing[*]} (all of its output: $apt_log). Fix what it says, then run this again."
  fi
  changed+=("packages: ${missing[*]}")
  # Now the tools are there for the whole preflight.
  settings=$(preflight) || stop "This machine cannot be an all-in-one host yet; only ${missing[*]} were installed."
fi

# Python packages --------------------------------------------------------------------------------------------------------
# pip's configuration also holds for uv, which does not read it, unless uv has one of its own.
use_pip_settings() {
  local key value
  while IFS='=' read -r key value; do
    value=${value#\'} value=${value%\'}
    case $key in
      global.index-url | install.index-url | :env:.index-url) export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX-${UV_INDEX_URL-$value}} ;;
      global.extra-index-url | install.extra-index-url | :env:.extra-index-url) export UV_INDEX=${UV_INDEX-${UV_EXTRA_INDEX_URL-$value}} ;;
      global.find-links | install.find-links | :env:.find-links) export UV_FIND_LINKS=${UV_FIND_LINKS-${value// /,}} ;;
    esac
  done < <("$PYTHON" -m pip config list 2>/dev/null)
  # As pip does, take a version from whichever index has it; the lock's hashes say which file is the right one.
  export UV_INDEX_STRATEGY=${UV_INDEX_STRATEGY-unsafe-best-match}
}

if ! venv_is_current; then
  say "Installing the control side's Python packages into .venv"
  # Always from the beginning: what an older lock, another Python or an interrupted run left never matters.
  rm -rf "$VENV"
  "$python" -m venv "$VENV"
  # uv comes from the lock as well: its entry, with the hashes on the lines below it
  sed -n '/^uv==/,/^    # /p' "$CONTROL_LOCK" >"$VENV/uv.txt"
  "$PYTHON" -m pip install --quiet --quiet --disable-pip-version-check --require-hashes --no-deps --requirement "$VENV/uv.txt"
  use_pip_settings
  (cd "$ROOT" && uv pip install --quiet --python "$PYTHON" --require-hashes --requirements "$CONTROL_LOCK")
  cp "$CONTROL_LOCK" "$VENV_STAMP.new" && mv "$VENV_STAMP.new" "$VENV_STAMP"
  changed+=("Python packages: .venv, as locks/control.txt")
fi

# The collection under its name, so that a checkout and an installed collection use the same names ------------------------
if [[ $(readlink "$LINK_PARENT/openstack" || true) != ../../.. ]]; then
  mkdir -p "$LINK_PARENT"
  ln -sfn ../../.. "$LINK_PARENT/openstack"
  changed+=("the collection's link: .collections")
fi

# The deployment ---------------------------------------------------------------------------------------------------------
if [[ -z $control_only ]]; then
  written=$("$PYTHON" "$ROOT/scripts/lib/deployment.py" write-aio "$settings")
  [[ -z $written ]] || mapfile -t -O "${#changed[@]}" changed <<<"$written"
  before=$(sha256sum "$deployment/secrets.yml" 2>/dev/null || true)
  "$PYTHON" "$ROOT/scripts/deployment-secrets.py" ensure --deployment "$deployment" >/dev/null
  [[ $before == "$(sha256sum "$deployment/secrets.yml")" ]] || changed+=("inventory/aio/secrets.yml (strong random values, mode 0600)")
fi

# What was done ----------------------------------------------------------------------------------------------------------
if ((${#changed[@]})); then
  say "Changed:"
  printf '  %s\n' "${changed[@]}"
else
  say "Nothing to change: this machine is set up already."
fi
if [[ -z $control_only ]]; then
  say "The cloud is described in inventory/aio/topology.yml. Deploy it: scripts/run-playbooks.sh"
else
  say "Describe a cloud in inventory/NAME/topology.yml (inventory/examples has some). Deploy it: scripts/run-playbooks.sh --deployment NAME"
fi
