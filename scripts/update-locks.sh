#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Resolve one OpenStack release's Python packages into locks/<release>.txt, with a hash for every file.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
release=2026.2
constraints=
loosen=keystoneauth1,oslo.versionedobjects
python=3.13 # of the zones: Debian 13

usage() {
    cat <<EOF
usage: scripts/update-locks.sh [--release R] [--constraints FILE] [--loosen NAME,NAME...]

Resolves what locks/R.in pins and what the services' files (services/*/*.yml, image.python) name, all together,
for Python $python, and writes locks/R.txt: exact versions with hashes, from which the images are built.

  --release R         OpenStack release (default $release); locks/R.in must exist
  --constraints FILE  versions that upstream tests with (the upper-constraints.txt of that release); without
                      it the newest of everything is taken, which upstream has not tested
  --loosen NAMES      names whose constraint is ignored because a release needs a newer one
                      (default $loosen). What locks/R.in pins is loosened by itself
  --help              show this

Needs uv (UV=/path/to/uv when it is not on the path). Package index and proxy are uv's own settings
(UV_DEFAULT_INDEX, UV_INDEX, HTTPS_PROXY...); no index address is written to the lock.
EOF
}

die() {
    echo "error: $*" >&2
    exit 1
}

while (($#)); do
    case $1 in
        --release | --constraints | --loosen)
            (($# > 1)) || die "$1 needs a value (see --help)"
            case $1 in
                --release) release=$2 ;;
                --constraints) constraints=$2 ;;
                --loosen) loosen=$2 ;;
            esac
            shift 2
            ;;
        --help | -h)
            usage
            exit
            ;;
        *) die "unknown argument '$1' (see --help)" ;;
    esac
done

uv=${UV:-uv}
command -v "$uv" >/dev/null || die "uv is not on the path: install it, or name it with UV=/path/to/uv"
[[ $release =~ ^[0-9]{4}\.[0-9]$ ]] || die "--release: '$release' is not an OpenStack release: write one such as 2026.2"
input=$root/locks/$release.in
[[ -r $input ]] || die "$input does not exist: write the release's top-level pins there"
[[ -z $constraints || -r $constraints ]] || die "--constraints: cannot read '$constraints'"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Requirements: the pins, and the services' names (a component may name some of its own).
# Constraints: without the loosened and the pinned names (PEP 503: case and -_. do not matter).
"$uv" run --quiet --no-project --with PyYAML python - "$root" "$input" "$constraints" "$loosen" "$work" <<'EOF'
import pathlib, re, sys

import yaml

root, pins, constraints, loosen, work = sys.argv[1:]


def canonical(requirement):
    name = re.match(r"[A-Za-z0-9._-]+", requirement.strip())
    return re.sub(r"[-_.]+", "-", name.group().lower()) if name else ""


def python_names(node):
    """Every entry of an ``image: {python: [...]}`` anywhere in a service's file, or of the image below them, ``_python.yml``."""
    if isinstance(node, dict):
        image = node.get("image")
        if isinstance(image, dict):
            yield from image.get("python") or []
        for value in node.values():
            yield from python_names(value)


files = sorted(pathlib.Path(root, "services").glob("*/*.yml"))
declared = [yaml.safe_load(file.read_text()) for file in files]
declared.append({"image": yaml.safe_load(pathlib.Path(root, "services/_python.yml").read_text())})
asked = {name for data in declared for name in python_names(data)}
pathlib.Path(work, "services.in").write_text("".join(f"{name}\n" for name in sorted(asked)))

free = {canonical(name) for name in loosen.split(",")}
free |= {canonical(line) for line in pathlib.Path(pins).read_text().splitlines() if "==" in line}
lines = pathlib.Path(constraints).read_text().splitlines() if constraints else []
kept = [line for line in lines if canonical(line) not in free]
pathlib.Path(work, "constraints.txt").write_text("".join(f"{line}\n" for line in kept))
EOF

"$uv" pip compile --quiet --python-version "$python" --python-platform linux --generate-hashes \
    --no-header --no-emit-index-url --no-annotate --constraints "$work/constraints.txt" \
    --output-file "$work/lock.txt" "$input" "$work/services.in" >/dev/null ||
    die "the requirements of $input and services/*/*.yml do not resolve together; uv says why above.
  What to try: --loosen the name whose constraint is in the way, or correct the pin"

{
    echo "# SPDX-License-Identifier: GPL-3.0-or-later"
    echo "# OpenStack $release for Python $python on Linux: every version and hash an image may hold."
    echo "# Made $(date --utc +%F) by scripts/update-locks.sh --release $release${constraints:+ --constraints ${constraints##*/}} --loosen $loosen"
    echo "# from locks/$release.in and services/*/*.yml. Do not edit: change those and run it again."
    cat "$work/lock.txt"
} >"$root/locks/.$release.new"
mv "$root/locks/.$release.new" "$root/locks/$release.txt"
echo "locks/$release.txt: $(grep -c '==' "$root/locks/$release.txt") packages"
