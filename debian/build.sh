#!/bin/bash
# Builds the packages into a folder. Usage: debian/build.sh [FOLDER] (default: target/packages).
# Debian's own build dependencies are used where they are installed (apt-get build-dep .); rustup's cargo does as well.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-target/packages}
mkdir -p "$out"
out=$(realpath "$out")

for program in dpkg-buildpackage dh cargo; do
	command -v $program >/dev/null || {
		echo "debian/build.sh: there is no program $program here. As root, in $PWD: apt-get update; apt-get build-dep --yes ." >&2
		exit 1
	}
done
options=(-b -us -uc)
# dpkg knows nothing of rustup's cargo.
dpkg-checkbuilddeps 2>/dev/null || options+=(-d)

# dpkg-buildpackage writes beside the sources: a copy of these is built, so that nothing else is there.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/source"
tests/files.sh | tar --null --ignore-failed-read -T - -c | tar -x --no-same-owner -C "$work/source"
(cd "$work/source" && dpkg-buildpackage "${options[@]}")
cp "$work"/*.deb "$work"/*.buildinfo "$work"/*.changes "$out"
sha256sum "$out"/*.deb
