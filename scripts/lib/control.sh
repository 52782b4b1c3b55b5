# shellcheck shell=bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What a machine needs to be one from which is deployed. Sourced, after env.sh, by the commands that set up this checkout; what was
# done is added to the array `changed`.

python=/usr/bin/python3    # Debian's own: one from elsewhere on PATH may go, and .venv with it
changed=()
borrowed=()                # variables with which a borrowed Python and its tools are found
# Debian's packages. python3-venv makes .venv, ca-certificates lets it download; iproute2 and nftables are the tools of the preflight.
# shellcheck disable=SC2034  # used by the scripts that source this file
control_packages=(python3-venv ca-certificates openssh-client) aio_packages=(python3-venv ca-certificates iproute2 nftables)

say() { printf '%s\n' "$*"; }

stop() {
  say "error: $1" >&2
  exit 1
}

# One bootstrap at a time. The lock goes with the process, so a killed one leaves none behind.
lock_checkout() {
  mkdir -p "$ROOT/.cache"
  exec 9>"$ROOT/.cache/bootstrap.lock"
  flock --nonblock 9 || stop "Another bootstrap is running in this checkout: wait for it."
}

# Which of the packages named are not installed.
missing_packages() {
  local package
  for package; do
    [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || echo "$package"
  done
}

# Whether this machine's Python has its standard library: python3-minimal has only a part of it.
has_whole_python() { [[ -x $python ]] && "$python" -IBc 'import ctypes, shutil' 2>/dev/null; }

# The packages of a Python without its library.
minimal_python() {
  dpkg-query --show --showformat='${db:Status-Status} ${Package}\n' 'python3*-minimal' 'libpython3*-minimal' 2>/dev/null | sed -n 's/^installed //p'
}

# apt-get with lists and downloads of this checkout's own, so that it changes nothing outside. Of a bundle, with its packages alone: the
# bundle's digest vouches for them, and this machine's sources are not asked.
own_apt() {
  local own=$ROOT/.cache/apt
  mkdir -p "$own/lists/partial" "$own/archives/partial"
  local -a options=(--option "Dir::State::Lists=$own/lists" --option "Dir::Cache::Archives=$own/archives" --option Dir::Cache::pkgcache=
                    --option Dir::Cache::srcpkgcache= --option APT::Sandbox::User=root)
  if [[ -d $BUNDLE/debs ]]; then
    echo "deb [trusted=yes] file:$BUNDLE/debs ./" >"$own/bundle.list"
    options+=(--option "Dir::Etc::SourceList=$own/bundle.list" --option Dir::Etc::SourceParts=-)
  fi
  DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}" "$@"
}

# Run a command of apt's with its output in a log; what goes wrong ends the program, with the last lines.
try_apt() {
  local apt_log=$ROOT/.cache/apt.log what=$1
  shift
  "$@" >>"$apt_log" 2>&1 && return
  tail -n 5 "$apt_log" >&2
  stop "apt-get could not $what (all of its output: $apt_log). Fix what it says, then run this again."
}

# The packages named, downloaded and unpacked below .cache of this checkout: a machine that lacks Python is looked at before it is changed.
# Sets `python`, and finds the tools in them.
borrow_packages() {
  local tree=$ROOT/.cache/apt/root deb
  local -a wanted=("$@")
  if ! has_whole_python; then
    mapfile -t -O $# wanted < <(minimal_python)
    python=$tree$python
  fi
  say "Fetching $*, to look at this machine before anything is changed"
  mkdir -p "$ROOT/.cache"
  rm -rf "$tree" "$ROOT/.cache/apt.log"
  try_apt "read its package lists" own_apt update
  try_apt "download $*" own_apt --option Debug::NoLocking=1 install --yes --no-install-recommends --reinstall --download-only "${wanted[@]}"
  for deb in "$ROOT/.cache/apt/archives/"*.deb; do dpkg-deb --extract "$deb" "$tree"; done
  borrowed=("PATH=$PATH:$tree/usr/bin:$tree/usr/sbin:$tree/bin:$tree/sbin"
            "LD_LIBRARY_PATH=$(printf '%s:' "$tree"/usr/lib/*-linux-gnu "$tree"/lib/*-linux-gnu)")
}

# Install what was borrowed, from the same downloads, or else from this machine's sources.
install_packages() {
  local own=$ROOT/.cache/apt
  say "Installing $*"
  if [[ -d $own/root ]]; then
    # The lists are those of this machine's own sources: with them it need not ask these again.
    [[ -d $BUNDLE/debs ]] || cp --archive "$own/lists/." /var/lib/apt/lists/
    try_apt "install $*" own_apt install --yes --no-install-recommends "$@"
    rm -rf "$own/root" "$own/archives"
  else
    mkdir -p "$ROOT/.cache"
    rm -f "$ROOT/.cache/apt.log"
    try_apt "read its package lists" own_apt update
    try_apt "install $*" own_apt install --yes --no-install-recommends "$@"
  fi
  # shellcheck disable=SC2034  # used by bootstrap-aio.sh
  python=/usr/bin/python3 borrowed=()
  changed+=("packages: $*")
}

# pip's configuration also holds for uv, which does not read it, unless uv has one of its own.
# shellcheck disable=SC2153  # PYTHON is of env.sh
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
  # An index that is away for a minute is no reason to begin again.
  export UV_HTTP_RETRIES=${UV_HTTP_RETRIES-8}
}

install_python_packages() {
  ! venv_is_current || return 0
  say "Installing the control side's Python packages into .venv"
  # Always from the beginning: what an older lock, another Python or an interrupted run left never matters.
  rm -rf "$VENV"
  "$python" -m venv "$VENV"
  # uv comes from the lock as well: its entry, with the hashes on the lines below it
  sed -n '/^uv==/,/^    # /p' "$CONTROL_LOCK" >"$VENV/uv.txt"
  local -a from=()
  [[ ! -d $BUNDLE/wheels ]] || from=(--no-index --find-links "$BUNDLE/wheels")
  "$PYTHON" -m pip install "${from[@]}" --quiet --quiet --disable-pip-version-check --require-hashes --no-deps --requirement "$VENV/uv.txt"
  use_pip_settings
  # its cache in the checkout: nothing is left in the user's home
  (cd "$ROOT" && UV_CACHE_DIR=${UV_CACHE_DIR:-$ROOT/.cache/uv} uv pip install "${from[@]}" --quiet --python "$PYTHON" --require-hashes --requirements "$CONTROL_LOCK")
  cp "$CONTROL_LOCK" "$VENV_STAMP.new" && mv "$VENV_STAMP.new" "$VENV_STAMP"
  changed+=("Python packages: .venv, as locks/control.txt")
}

# The collection under its name, so that a checkout and an installed collection use the same names.
link_collection() {
  [[ $(readlink "$LINK_PARENT/openstack" || true) != ../../.. ]] || return 0
  mkdir -p "$LINK_PARENT"
  ln -sfn ../../.. "$LINK_PARENT/openstack"
  changed+=("the collection's link: .collections")
}

# The secrets of a deployment's folder; what is there is kept.
have_secrets() {
  local before
  before=$(sha256sum "$1/secrets.yml" 2>/dev/null || true)
  "$PYTHON" "$ROOT/scripts/deployment-secrets.py" ensure --deployment "$1" >/dev/null
  [[ $before == "$(sha256sum "$1/secrets.yml")" ]] || changed+=("${1#"$ROOT/"}/secrets.yml (strong random values, mode 0600)")
}

say_what_was_done() {
  if ((${#changed[@]})); then
    say "Changed:"
    printf '  %s\n' "${changed[@]}"
  else
    say "Nothing to change: this machine is set up already."
  fi
}
