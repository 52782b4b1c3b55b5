#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Open a shell in a zone, or run a command there: see --help.
set -euo pipefail
# shellcheck source=scripts/lib/env.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib/env.sh"
answer_help zone-shell "$@"
need_venv
exec "$PYTHON" "$ROOT/scripts/lib/zone_shell.py" "$@"
