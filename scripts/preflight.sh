#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Ask the hosts of a deployment whether they can be that: see --help.
set -euo pipefail
# shellcheck source=scripts/lib/env.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib/env.sh"
answer_help preflight "$@"
need_venv
exec "$PYTHON" "$ROOT/scripts/lib/preflight.py" "$@"
