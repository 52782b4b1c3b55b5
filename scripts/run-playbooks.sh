#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Deploy, or converge, a deployment: see --help. On a fresh machine this prepares the all-in-one host first.
set -euo pipefail
# shellcheck source=scripts/lib/env.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib/env.sh"

answer_help run-playbooks "$@"

# A checkout that is not set up becomes an all-in-one host, unless another deployment is asked for. One without root or on
# another system is told so by the bootstrap. What only looks sets nothing up.
if [[ " $* " == *" --plan "* || " $* " == *" --check "* ]]; then
  need_venv
elif ! venv_is_current || [[ ! -e $LINK_PARENT/openstack || ! -e $ROOT/inventory/aio/topology.yml && " $* " != *" --deployment"* ]]; then
  "$ROOT/scripts/bootstrap-aio.sh"
fi
exec "$PYTHON" "$ROOT/scripts/lib/run.py" "$@"
