#!/bin/bash
# Tests our Debian packages with the real dpkg and apt in a Debian chroot, beside small packages named like those of
# Proxmox VE. Needs root and mmdebstrap; the mirror is the one in this machine's own apt configuration.
# Usage: tests/packages.sh [FOLDER of our packages] (default: they are built). The last line counts.
# SUITE (default: bookworm) names the Debian release; the chroot is kept as target/chroot-SUITE.tar.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=${SUITE:-bookworm}
packages=${1:-target/packages}
[ $# -gt 0 ] || debian/build.sh "$packages"

command -v mmdebstrap >/dev/null || apt-get -q -y install --no-install-recommends mmdebstrap
base=target/chroot-$suite.tar
if [ ! -e "$base" ]; then
	mkdir -p target
	# This machine's mirrors, with the suite asked for.
	own=$(. /etc/os-release && echo "$VERSION_CODENAME")
	mirrors=$(apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT) $(CREATED_BY)' |
		awk -v own="$own" '$2 == own && $3 == "main" && $4 == "Packages" { print $1; exit }')
	mmdebstrap --format=tar --variant=minbase --include=perl "$suite" "$base.new" "${mirrors:?no mirror of $own in /etc/apt}"
	mv "$base.new" "$base"
fi

work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
tar -x -C "$work" -f "$base"
mkdir "$work/repository" "$work/tests"
tests/packages/repository.sh "$work/repository"
cp "$packages"/pve-diff-backup_*.deb "$packages"/pve-xdelta3_*.deb "$work/repository"
# The same once more as an upgrade of ours.
next=$(mktemp -d -p "$work")
for deb in "$packages"/pve-diff-backup_*.deb "$packages"/pve-xdelta3_*.deb; do
	dpkg-deb -R "$deb" "$next/$(basename "$deb")"
	sed -i 's/^\(Version: .*\)/\1+next/; s/^\(Depends: .*pve-xdelta3 (= [^)]*\))/\1+next)/' \
		"$next/$(basename "$deb")/DEBIAN/control"
	dpkg-deb --root-owner-group -Znone -b "$next/$(basename "$deb")" "$work/repository/next-$(basename "$deb")" >/dev/null
done
rm -rf "$next"
(cd "$work/repository" && dpkg-scanpackages --multiversion . >Packages 2>/dev/null)
cp tests/packages/inside.sh "$work/tests/"

# Own mounts and processes, which end with it.
setsid --wait unshare --mount --pid --fork --propagation private bash -c '
	set -e
	mount -t proc proc "$1/proc"
	mount -t tmpfs tmpfs "$1/run"
	exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 TERM=dumb \
		DEBIAN_FRONTEND=noninteractive chroot "$1" bash /tests/inside.sh
' - "$work"
