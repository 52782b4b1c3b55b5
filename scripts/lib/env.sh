# shellcheck shell=bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The environment in which every command of this checkout runs. Sourced by the scripts beside this folder.
#
# Sets ROOT (the checkout) and PYTHON (its virtualenv's), and what Ansible needs to find this collection, so that the
# commands work from any working directory, with an empty environment, with or without systemd.

ROOT=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.." && pwd)
VENV=$ROOT/.venv
PYTHON=$VENV/bin/python
CONTROL_LOCK=$ROOT/locks/control.txt
VENV_STAMP=$VENV/zonestack.lock         # a copy of the lock, written last: there and equal = the virtualenv is whole
LINK_PARENT=$ROOT/.collections/ansible_collections/zonestack
BUNDLE=$ROOT/bundle                     # there when this checkout came in a bundle (bundle.sh): nothing is downloaded then
# shellcheck disable=SC2034  # used by the scripts that source this file
readonly ROOT VENV PYTHON CONTROL_LOCK VENV_STAMP LINK_PARENT BUNDLE

# A global zone of SmartOS has no Ansible: its control zone runs the command. Only that which makes a control side is for this machine.
if [[ ! -e $VENV && ${0##*/} != bootstrap-control.sh && $(zonename 2>/dev/null || true) == global ]]; then
  exec sh "$ROOT/scripts/lib/control-zone.sh" run "${0##*/}" "$@"
fi

export ANSIBLE_CONFIG=$ROOT/ansible.cfg
export ANSIBLE_COLLECTIONS_PATH=$ROOT/.collections
export ANSIBLE_HOME=${ANSIBLE_HOME:-$ROOT/.cache/ansible}
export LC_ALL=C.UTF-8                   # Ansible refuses to start without a UTF-8 locale
export PATH=$VENV/bin:$PATH:/usr/sbin:/sbin

# Package downloads trust what this machine trusts: uv and pip otherwise bring certificates of their own.
system_ca=/etc/ssl/certs/ca-certificates.crt
if [[ -e $system_ca ]]; then
  export SSL_CERT_FILE=${SSL_CERT_FILE:-$system_ca}
  export PIP_CERT=${PIP_CERT:-$SSL_CERT_FILE}
  export REQUESTS_CA_BUNDLE=${REQUESTS_CA_BUNDLE:-$SSL_CERT_FILE}
fi
unset system_ca

# True when the virtualenv is complete and as the lock says.
venv_is_current() { [[ -x $PYTHON ]] && cmp -s "$CONTROL_LOCK" "$VENV_STAMP"; }

# Answer --help of a command with any Python, before anything is installed. What follows `--` is not the command's own.
answer_help() {
  local command=$1 word
  shift
  for word in "$@"; do
    [[ $word != -- ]] || return 0
    [[ $word != --help && $word != -h ]] || exec python3 -B "$ROOT/scripts/lib/options.py" "$command"
  done
}

# End here where this checkout has no virtualenv yet, and say how it gets one.
need_venv() {
  venv_is_current && [[ -e $LINK_PARENT/openstack ]] && return
  echo "error: this checkout is not set up, or its packages are older than locks/control.txt: run scripts/bootstrap-aio.sh" >&2
  exit 1
}
