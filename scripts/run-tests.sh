#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
set -uo pipefail
# shellcheck source=scripts/lib/env.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib/env.sh"

usage() {
  cat <<'TEXT'
usage: scripts/run-tests.sh [PART ...] [-- PYTEST OPTIONS]

Run what every change must pass; without a PART all of them, in this order:

  lint         yamllint, ruff (rules and format), shellcheck, mypy, ansible-lint (production profile)
  sanity       ansible-test sanity of the plugins
  unit         pure functions and modules' logic; a minute, anywhere
  integration  plugins against real LXC on this machine
  molecule     the zone module: check, converge, idempotence, verify, in real LXC
  scenario     the all-in-one in a fresh Debian 13 host container: one command to a verified instance, second run, check
               mode, plan, override, bad input, secrets, isolation, rebuild, broken run, power loss, the dashboard in a
               browser, journals; identity in zones of a simulated SmartOS host; two hosts over SSH, one of which is lost,
               with a third one added and removed; an hour. With `-- --long` also Tempest, each zone rebuilt under an
               instance, the first of it again on Debian 12, a SmartOS host killed, rebuilt and rebooted, a SmartOS and a
               Linux host together, one of two hosts removed and added, five of production, a bundle, two regions; hours
               more

lint, sanity and unit run anywhere. The others need root and LXC, and scenario also mmdebstrap, nftables, chromium and
certutil (libnss3-tools); .ci/run installs all of it first. A part that cannot run here fails and says why: nothing is
skipped silently.

The tools come from locks/control-dev.txt and lie in .cache/venv-test; logs of failed scenarios in tests/output/.
The last line is pytest's; the exit code is 0 only when every part passed.

examples:
  scripts/run-tests.sh lint unit
  scripts/run-tests.sh scenario -- -k rebuild
  scripts/run-tests.sh scenario -- --suite trixie --keep-hosts -k dashboard
  scripts/run-tests.sh scenario -- --long
TEXT
}

readonly ALL_PARTS=(lint sanity unit integration molecule scenario)
readonly TOOLS=$ROOT/.cache/venv-test
readonly DEV_LOCK=$ROOT/locks/control-dev.txt

parts=()
pytest_options=()
while (($#)); do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --) shift; pytest_options=("$@"); break ;;
    lint | sanity | unit | integration | molecule | scenario) parts+=("$1"); shift ;;
    *) echo "error: unknown part '$1' (parts: ${ALL_PARTS[*]}); pytest's own options come after --" >&2; exit 2 ;;
  esac
done
((${#parts[@]})) || parts=("${ALL_PARTS[@]}")
wanted() { [[ " ${parts[*]} " == *" $1 "* ]]; }

cd "$ROOT" || exit 1
failed=()

# Run one check under its name, and remember when it failed.
check() {
  local name=$1 started=$SECONDS
  shift
  echo "== $name"
  if "$@"; then
    echo "== $name: passed, $((SECONDS - started)) s"
  else
    echo "== $name: FAILED, $((SECONDS - started)) s" >&2
    failed+=("$name")
  fi
}

# The tools of the lock, in a virtualenv of their own: the one that deploys stays exactly what operators get.
make_tools() {
  cmp -s "$DEV_LOCK" "$TOOLS/lock" && return
  echo "Installing the test tools of locks/control-dev.txt into .cache/venv-test"
  rm -rf "$TOOLS"
  python3 -m venv "$TOOLS" &&
    "$TOOLS/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes -r "$DEV_LOCK" &&
    cp "$DEV_LOCK" "$TOOLS/lock"
}

# This checkout under the name that Ansible looks for. Not .collections: that belongs to the deploying environment.
link_collection() {
  local parent=$ROOT/.cache/test-collections/ansible_collections/zonestack
  mkdir -p "$parent" && ln -sfn "$ROOT" "$parent/openstack"
  export ANSIBLE_COLLECTIONS_PATH=$ROOT/.cache/test-collections
}

lint_shell() {
  local files
  mapfile -t files < <(git ls-files -co --exclude-standard -- '*.sh' .ci/run)
  shellcheck --external-sources "${files[@]}"
}

# ansible.cfg refuses to run without an inventory.
lint_ansible() { ANSIBLE_INVENTORY=inventory/examples/aio/topology.yml ansible-lint --offline -q; }

# What is no package is checked one by one: each program is a main module of its own.
lint_types() {
  local program rc=0
  mypy plugins tests/host tests/smartos_sim scripts/lib || rc=1
  for program in scripts/*.py bench/*.py tests/browser/*.py; do
    mypy "$program" || rc=1
  done
  return $rc
}

# ansible-test insists on the folder's name and on git, so it gets a clone of what lies here now.
sanity() {
  local scratch clone python home=$ROOT/.cache/ansible-test rc
  scratch=$(mktemp -d) || return 1
  clone=$scratch/ansible_collections/zonestack/openstack
  mkdir -p "$clone"
  git ls-files -coz --exclude-standard | (while IFS= read -rd '' file; do [[ ! -e $file ]] || printf '%s\0' "$file"; done) |
    tar --null --files-from=- -cf - | tar -C "$clone" -xf - &&
    git -C "$clone" init -q && git -C "$clone" add -A
  # ansible-test makes a virtualenv for each of its tests, and fetches the script that puts pip into it from a site of its own.
  # Python brings pip along, so a script of that name that uses it serves as well, and package indexes stay the only site.
  # It keeps pip's variables from it, so that what they say is handed over as a file.
  mkdir -p "$home/.ansible/test/cache" "$home/.config/pip"
  (printf '[global]\nquiet = 2\n' && "$TOOLS/bin/python" -m pip config list |
    sed -n "s/\\\\n/ /g; s/^\\(global\\|install\\|:env:\\)\\.\\([^=]*\\)='\\(.*\\)'\$/\\2 = \\3/p" | sort -u -t ' ' -k 1,1) >"$home/.config/pip/pip.conf"
  cat >"$home/.ansible/test/cache/get_pip_24_2.py" <<'PYTHON'
import subprocess, sys
subprocess.check_call([sys.executable, "-m", "ensurepip"], stdout=subprocess.DEVNULL)
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", *(word for word in sys.argv[1:] if not word.startswith("--no-"))]))
PYTHON
  python=$("$TOOLS/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  (cd "$clone" && HOME=$home ansible-test sanity --color no --python "$python" plugins/ meta/)
  rc=$?
  rm -rf "$scratch"
  return $rc
}

need_root() {
  ((EUID == 0)) && command -v lxc-start >/dev/null && return
  echo "error: $1 needs root and LXC on this machine: run as root, after apt-get install lxc" >&2
  return 1
}

make_tools || { echo "error: the test tools could not be installed" >&2; exit 1; }
export PATH=$TOOLS/bin:$PATH PYTHONDONTWRITEBYTECODE=1
link_collection || exit 1

if wanted lint; then
  check yamllint yamllint --strict .
  check ruff ruff check --quiet .
  check format ruff format --quiet --check .
  check shellcheck lint_shell
  check mypy lint_types
  check ansible-lint lint_ansible
fi
if wanted sanity; then
  check sanity sanity
fi
if wanted molecule; then
  check molecule eval 'need_root molecule && molecule test --scenario-name lxc'
fi

# One pytest for all its parts, so that its closing line counts everything.
folders=()
for part in unit integration scenario; do
  wanted "$part" || continue
  [[ $part == unit ]] || need_root "$part" || { failed+=("$part"); continue; }
  folders+=("tests/$part")
done
summary() { ((${#failed[@]} == 0)) || printf '\nFAILED: %s\n' "${failed[*]}" >&2; }
if ((${#folders[@]})); then
  # Everything that failed so far is named before pytest's closing line, which stays the last.
  summary
  # Scenarios stay in their order on one worker; the other one meanwhile runs the rest.
  pytest --numprocesses 2 --dist loadgroup "${folders[@]}" "${pytest_options[@]}" || failed+=(pytest)
else
  summary
fi
((${#failed[@]} == 0))
