#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Take a host out of a deployment: see --help.
set -euo pipefail
# shellcheck source=scripts/lib/env.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib/env.sh"
answer_help remove-host "$@"
need_venv
exec "$PYTHON" "$ROOT/scripts/lib/remove_host.py" "$@"
