#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
set -uo pipefail
# shellcheck source=scripts/lib/env.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib/env.sh"

usage() {
  cat <<'TEXT'
usage: scripts/run-tests.sh [PART ...] [-- PYTEST OPTIONS]
       scripts/run-tests.sh --list-long | --changed [BASE]

Run what every change must pass; without a PART all of them, in less than 45 minutes on two idle cores:

  lint         yamllint, ruff (rules and format), shellcheck, mypy, ansible-lint (production profile)
  docs         the documentation site, without warnings
  sanity       ansible-test sanity of the plugins
  unit         pure functions and modules' logic; two minutes, anywhere
  contact      first contacts: the first command on machines of many kinds, up to one zone; some minutes
  integration  plugins against real LXC on this machine
  molecule     the zone module: check, converge, idempotence, verify, in real LXC
  scenario     the all-in-one in a fresh Debian 13 host container: one command to a verified instance, second run, check
               mode, overrides, rebuild, secrets, isolation, power loss, broken runs, the dashboard in a browser,
               journals; identity in zones of a simulated SmartOS host; two hosts over SSH, with identity

What takes longer has names: `--list-long` prints them with their times, and `-- --long=NAME` runs one, `-- --long` all of
them, which takes hours. `--changed` says which parts and which of these the changes since BASE ask for (by default since
this branch left main), and runs nothing.

lint, docs, sanity and unit run anywhere. The others need root and LXC, and contact and scenario also mmdebstrap, nftables,
chromium and certutil (libnss3-tools); .ci/run installs all of it first. A part that cannot run here fails and says why:
nothing is skipped silently.

The tools come from locks/control-dev.txt and lie in .cache/venv-test; logs of failed scenarios in tests/output/.
The last line is pytest's; the exit code is 0 only when every part passed.

examples:
  scripts/run-tests.sh lint unit
  scripts/run-tests.sh scenario -- -k rebuild
  scripts/run-tests.sh scenario -- --suite trixie --keep-hosts -k dashboard
  scripts/run-tests.sh scenario -- --long=tempest,hypervisor
TEXT
}

readonly ALL_PARTS=(lint docs sanity unit contact integration molecule scenario)
readonly LONG=$ROOT/tests/scenario/long_scenarios.py
readonly TOOLS=$ROOT/.cache/venv-test
readonly DEV_LOCK=$ROOT/locks/control-dev.txt

parts=()
pytest_options=()
while (($#)); do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --) shift; pytest_options=("$@"); break ;;
    --list-long) exec python3 "$LONG" ;;
    --changed) exec python3 "$LONG" "$@" ;;
    lint | docs | sanity | unit | contact | integration | molecule | scenario) parts+=("$1"); shift ;;
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

# What is no package is checked one by one: each program is a main module of its own. One is part of an image, whose id its bytes are.
lint_types() {
  local program rc=0
  mypy plugins tests/host tests/smartos_sim scripts/lib || rc=1
  for program in scripts/*.py bench/*.py tests/browser/*.py roles/*/files/*.py services/*/*.py tests/scenario/services/*/*.py; do
    [[ $program == services/utility/test_image.py ]] || mypy "$program" || rc=1
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
# Compiled once, not by each of some thousand processes; and not beside the sources.
unset PYTHONDONTWRITEBYTECODE
export PATH=$TOOLS/bin:$PATH PYTHONPYCACHEPREFIX=$ROOT/.cache/bytecode
link_collection || exit 1

# Everything that is no pytest; what failed is added to the file $1.
checks() {
  if wanted lint; then
    check yamllint yamllint --strict .
    check ruff ruff check --quiet .
    check format ruff format --quiet --check .
    check shellcheck lint_shell
    check mypy lint_types
    check ansible-lint lint_ansible
  fi
  if wanted docs; then
    check docs scripts/build-docs.sh
  fi
  if wanted sanity; then
    check sanity sanity
  fi
  ((${#failed[@]} == 0)) || printf '%s\n' "${failed[@]}" >>"$1"
}

# Not beside pytest: zones of its own on this machine are a change there, which a test of the plan would take for the plan's.
molecule_alone() {
  wanted molecule || return 0
  failed=()
  check molecule eval 'need_root molecule && molecule test --scenario-name lxc'
  ((${#failed[@]} == 0)) || printf '%s\n' "${failed[@]}" >>"$1"
}

# Pass lines on, the last one not: that goes into the file $1.
hold_last_line() { sed --unbuffered --quiet -e '$!p' -e "\$w $1"; }

scratch=$(mktemp -d) || exit 1
beside=""
# shellcheck disable=SC2317,SC2329 # called by the trap
tidy() {
  [[ -z $beside ]] || kill -- "-$beside" 2>/dev/null
  rm -rf "$scratch"
}
trap tidy EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# One pytest for all its parts, so that its closing line counts everything. Scenarios come first: they take longest.
folders=()
for part in scenario contact integration unit; do
  wanted "$part" || continue
  [[ $part == unit ]] || need_root "$part" || { failed+=("$part"); continue; }
  folders+=("tests/$part")
done
printf '%s\n' "${failed[@]}" >"$scratch/failed"
failed=()

# Scenarios stay in their order on one worker; the other one meanwhile runs the rest.
run_pytest() { pytest --numprocesses 2 --dist loadgroup --no-loadscope-reorder "${folders[@]}" "${pytest_options[@]}"; }
# Everything that failed is named before pytest's closing line, which stays the last.
summary() {
  local names
  names=$(paste -s -d ' ' <(grep . "$scratch/failed"))
  [[ -z $names ]] || printf '\nFAILED: %s\n' "$names" >&2
}

rc=0
if [[ " ${folders[*]} " =~ \ tests/(scenario|contact|integration)\  ]]; then
  # These wait often enough for the checks to be made beside them; what they print comes after them.
  set -m
  (renice -n 5 -p $BASHPID >/dev/null && checks "$scratch/failed") >"$scratch/checks" 2>&1 </dev/null &
  beside=$!
  set +m
  run_pytest | hold_last_line "$scratch/closing"
  rc=${PIPESTATUS[0]}
  wait "$beside"
  beside=""
  cat "$scratch/checks"
  molecule_alone "$scratch/failed" </dev/null
  summary
  cat "$scratch/closing"
else
  checks "$scratch/failed"
  molecule_alone "$scratch/failed"
  summary
  if ((${#folders[@]})); then run_pytest || rc=$?; fi
fi
((rc == 0)) && ! grep -q . "$scratch/failed"
