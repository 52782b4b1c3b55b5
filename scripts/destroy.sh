#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Remove a zone, a service or a whole deployment: see --help.
set -euo pipefail
# shellcheck source=scripts/lib/env.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib/env.sh"
answer_help destroy "$@"
need_venv
exec "$PYTHON" "$ROOT/scripts/lib/destroy.py" "$@"
