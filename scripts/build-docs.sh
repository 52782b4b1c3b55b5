#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Build the documentation as one static site with search: the pages in docs/, and a page for each module, plugin and role.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."

usage() {
  cat <<'TEXT'
usage: scripts/build-docs.sh [--output FOLDER]

Build the documentation as one static site with search: the pages in docs/, and a page for each module, plugin and role.
The site needs no other server: open its index.html, or copy the folder to any web server.

  --output FOLDER   where the site goes (default: .cache/docs/site); what was there is replaced

The tools come from locks/docs.txt and are installed in .cache/venv-docs. A warning is an error: the exit code is 1.
TEXT
}

readonly ROOT=$PWD TOOLS=$PWD/.cache/venv-docs LOCK=$PWD/locks/docs.txt BUILD=$PWD/.cache/docs
output=$BUILD/site
while (($#)); do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --output) [[ -n ${2:-} ]] || { echo "error: --output needs a folder" >&2; exit 2; }; output=$2; shift 2 ;;
    *) echo "error: unknown argument '$1'" >&2; usage >&2; exit 2 ;;
  esac
done

# The tools of the lock, in a virtualenv of their own: the one that deploys stays exactly what operators get.
if ! cmp -s "$LOCK" "$TOOLS/lock"; then
  echo "Installing the tools of locks/docs.txt in .cache/venv-docs"
  rm -rf "$TOOLS"
  python3 -m venv "$TOOLS"
  "$TOOLS/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --no-deps --require-hashes -r "$LOCK"
  cp "$LOCK" "$TOOLS/lock"
fi
export PATH=$TOOLS/bin:$PATH

# antsibull-docs asks ansible-doc, which wants the collection under its name, and no inventory, which ansible.cfg here requires.
mkdir -p "$BUILD/collections/ansible_collections/zonestack"
ln -sfn "$ROOT" "$BUILD/collections/ansible_collections/zonestack/openstack"
export ANSIBLE_COLLECTIONS_PATH=$BUILD/collections ANSIBLE_CONFIG=$BUILD/ansible.cfg
: >"$ANSIBLE_CONFIG"

# The pages and the generated ones lie in one tree, in which links to the checkout's other files work as well.
tree=$BUILD/tree
rm -rf "$tree"
mkdir -p "$tree"
ln -s "$ROOT"/{inventory,plugins,scripts,tests,README.md} "$tree/"
cp -R docs "$tree/docs"
mkdir "$tree/docs/reference/collection"
antsibull-docs collection --use-current --squash-hierarchy --no-add-antsibull-docs-version --fail-on-error \
  --dest-dir "$tree/docs/reference/collection" zonestack.openstack

rm -rf "$BUILD/new"
sphinx-build --quiet --fail-on-warning --keep-going --builder html --doctree-dir "$BUILD/doctrees" "$tree/docs" "$BUILD/new"
rm -rf "$output"
mkdir -p "$(dirname "$output")"
mv "$BUILD/new" "$output"
echo "wrote $output/index.html"
