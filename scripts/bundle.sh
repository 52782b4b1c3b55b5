#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
set -euo pipefail
# shellcheck source=scripts/lib/env.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib/env.sh"
# shellcheck source=scripts/lib/control.sh
source "$ROOT/scripts/lib/control.sh"

usage() {
  cat <<'TEXT'
usage: scripts/bundle.sh DEPLOYMENT FILE

Write all that a deployment needs into one tar archive, for a site without a way to the internet: this checkout as it is
committed, inventory/DEPLOYMENT without its secrets, the Python packages of the control side, the images of the zones, the
images of the cloud, and the Debian packages of control machine and hosts. FILE ends in .tar, .tar.gz or .tar.zst; its SHA-256
is put into FILE.sha256. Carry that to the site by another way: what it names is trusted there.

The deployment has to have its images: run its step images first. The Debian packages and the Python packages are for machines
of this one's release and architecture. A bundle that was interrupted is simply made again; what was fetched is kept until then.

There:  sha256sum --check FILE.sha256, unpack it, and in the folder zonestack scripts/bootstrap-aio.sh or
        scripts/bootstrap-control.sh DEPLOYMENT, and scripts/run-playbooks.sh as ever: they use the bundle alone.

  --help  this text
TEXT
}

[[ " $* " != *" --help "* && " $* " != *" -h "* ]] || { usage; exit 0; }
(($# == 2)) || { usage >&2; exit 2; }
name=$1 file=$(readlink --canonicalize-missing "$2")
topology=$ROOT/inventory/$name/topology.yml
[[ -e $topology ]] || stop "there is no inventory/$name/topology.yml: give the name of a deployment that this checkout has"
[[ $file == *.tar || $file == *.tar.gz || $file == *.tar.zst ]] || stop "$2: give a name that ends in .tar, .tar.gz or .tar.zst"
[[ ! -e $file ]] || stop "$2 is there already: give another name, or remove it"
[[ -d ${file%/*} ]] || stop "there is no folder ${file%/*}: make it, or give another"
for tool in git apt-get dpkg-deb; do
  command -v "$tool" >/dev/null || stop "$tool is not installed here: apt-get install git dpkg"
done
git -C "$ROOT" rev-parse --verify --quiet HEAD >/dev/null || stop "$ROOT is no git checkout, and a bundle holds what is committed: make it where the checkout is"
need_venv
[[ -z $(git -C "$ROOT" status --porcelain --untracked-files=no) ]] || say "note: changes that are not committed are not in the bundle"
lock_checkout

stage=$ROOT/.cache/bundle/$name
here=$stage/zonestack
bundle=$here/bundle
mkdir -p "$stage/lists/partial"
rm -rf "${stage:?}/zonestack.new"
mkdir "$stage/zonestack.new"
[[ ! -d $bundle ]] || mv "$bundle" "$stage/zonestack.new/"    # of an interrupted call
rm -rf "$here"
mv "$stage/zonestack.new" "$here"
mkdir -p "$bundle/wheels" "$bundle/debs/partial"

say "The checkout"
git -C "$ROOT" archive HEAD | tar --extract --directory "$here"
tar --create --directory "$ROOT" --exclude 'secrets*' --exclude '.*' "inventory/$name" | tar --extract --directory "$here"

say "Python packages"
use_pip_settings
"$PYTHON" -m pip download --quiet --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
  --requirement "$CONTROL_LOCK" --dest "$bundle/wheels"

say "Debian packages"
# As for a machine that has nothing installed, so that it is complete for every one.
mapfile -t hosts < <("$PYTHON" -c 'import sys, yaml; print(*yaml.safe_load(open(sys.argv[1]))["zone_host_packages"], sep="\n")' \
  "$ROOT/roles/zone_host/defaults/main.yml")
apt_log=$stage/apt.log
: >"$stage/nothing"
if ! apt-get --quiet --yes --download-only --no-install-recommends --option "Dir::State::status=$stage/nothing" \
  --option "Dir::Cache::archives=$bundle/debs" --option Dir::Cache::pkgcache= --option Dir::Cache::srcpkgcache= \
  --option APT::Sandbox::User=root --option Debug::NoLocking=1 \
  install python3 "${control_packages[@]}" "${aio_packages[@]}" "${hosts[@]}" >"$apt_log" 2>&1; then
  tail -n 5 "$apt_log" >&2
  stop "apt-get could not fetch the packages (all of its output: $apt_log). Run apt-get update, then this again."
fi
rm -rf "$bundle/debs/partial" "$bundle/debs/lock"
# What apt reads of a folder (https://wiki.debian.org/DebianRepository/Format): the control data of each, where it is, and its digest.
(cd "$bundle/debs" && for deb in *.deb; do
  dpkg-deb --field "$deb"
  printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$deb" "$(stat --format %s "$deb")" "$(sha256sum "$deb" | cut -d ' ' -f 1)"
done >Packages)

say "Images"
ansible-playbook --inventory "$topology" "$ROOT/playbooks/bundle.yml" --extra-vars "bundle_folder=$bundle" >"$stage/ansible.log" 2>&1 || {
  tail -n 30 "$stage/ansible.log" >&2
  stop "the images could not be had (all of the output: $stage/ansible.log): run scripts/run-playbooks.sh --deployment $name --step images, then this again."
}
compgen -G "$bundle/images/*.json" >/dev/null || stop "deployment $name has no host that builds images of LXC zones, and others are not carried yet"

say "The archive"
draft=${file%/*}/.${file##*/}    # tar goes by the end of the name
tar --create --auto-compress --file "$draft" --owner 0 --group 0 --directory "$stage" zonestack
echo "$(sha256sum "$draft" | cut -d ' ' -f 1)  ${file##*/}" >"$file.sha256"
mv "$draft" "$file"
rm -rf "$stage"
say "$file: $(du --human-readable "$file" | cut -f 1), SHA-256 in ${file##*/}.sha256"
