#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Pin the control side's Python packages: pyproject.toml -> locks/control.txt, locks/control-dev.txt and locks/docs.txt.
#
# A pin that still satisfies pyproject.toml stays as it is; `--upgrade` takes the newest of everything, and
# `--upgrade-package NAME` of one. Options go to `uv pip compile`.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  echo 'usage: scripts/update-control-lock.sh [UV OPTIONS]'
  echo
  sed -n '3,6s/^# \{0,1\}//p' "$0"
  exit 0
fi
uv=.venv/bin/uv
[[ -x $uv ]] || uv=$(command -v uv) || { echo "error: uv is not installed: run scripts/bootstrap-aio.sh first" >&2; exit 1; }

# --universal: one file for every platform and Python that pyproject.toml allows, with markers where they differ.
# --no-emit-*: nothing about the index or the folders of the machine that made the lock.
# Each lock takes the one before it as a constraint, so that all install the same versions.
options=(--universal --generate-hashes --no-emit-index-url --no-emit-find-links --quiet
         --custom-compile-command scripts/update-control-lock.sh "$@")
"$uv" pip compile "${options[@]}" --output-file locks/control.txt pyproject.toml
"$uv" pip compile "${options[@]}" --constraint locks/control.txt --group dev --output-file locks/control-dev.txt pyproject.toml
"$uv" pip compile "${options[@]}" --constraint locks/control-dev.txt --python-version 3.11 --output-file locks/docs.txt --group docs
for lock in locks/control.txt locks/control-dev.txt locks/docs.txt; do
  echo "$lock: $(grep -c == "$lock") packages"
done
