#!/bin/bash
# windows.sh DIR: makes a guest below DIR that has its data as Windows has it (root, loop mounts, ntfs-3g, apt's mirrors; 8 GB
# of disk, 3 minutes; with $QUICK 2 GB): two NTFS disks with the programs, libraries and fonts of real packages, most of them PE
# files, and documents; and the same a day later: packages upgraded, files written anew, a registry and a page file changed in
# place, a log that grew. Its VMA streams are made in each order in which clusters can come. See unseen.sh.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
archive=${ARCHIVE:-$here/target/release/examples/archive}
mkdir -p "$1"
cd "$1"
[ ! -e day.interleaved.vma ] || exit 0

packages=(libreoffice-core libreoffice-common libmono-corlib4.5-dll libmono-system-core4.0-cil fonts-dejavu-core)
system=1500M data=600M
if [ -z "${QUICK:-}" ]; then
	packages+=(libwine openjdk-17-jre-headless libreoffice-writer libreoffice-calc fonts-noto-core)
	system=5G data=1G
fi
# All versions of a package that apt knows, the oldest first.
versions() { apt-cache madison "$1" | awk '{ print $3 }' | tac | uniq; }
unpacked() { # FOLDER PACKAGE VERSION
	(cd debs && apt-get -qq download "$2=$3" && dpkg -x "$2"_*.deb "$OLDPWD/$1" && rm "$2"_*.deb)
}
trap 'umount c d 2>/dev/null || true' EXIT
mkdir -p debs programs upgraded c d
chmod 777 debs
for package in "${packages[@]}"; do
	unpacked programs "$package" "$(versions "$package" | head -1)"
	[ "$(versions "$package" | wc -l)" -eq 1 ] || unpacked upgraded "$package" "$(versions "$package" | tail -1)"
done
for disk in system data; do
	truncate -s "${!disk}" full.$disk.raw
	mkntfs -qFf -c 4096 full.$disk.raw 2>/dev/null
done
with_disks() { # WHEN COMMAND...
	ntfs-3g -o loop "$1.system.raw" c
	ntfs-3g -o loop "$1.data.raw" d
	"${@:2}"
	umount c d
	sync
}
with_disks full python3 "$here/benches/windows.py" full c d programs upgraded
for disk in system data; do cp --sparse=always full.$disk.raw day.$disk.raw; done
with_disks day python3 "$here/benches/windows.py" day c d programs upgraded
rm -r debs programs upgraded
for order in bursts sequential interleaved; do
	seed=1
	for when in full day; do
		"$archive" $order $seed part drive-sata0=$when.system.raw drive-sata1=$when.data.raw
		mv part $when.$order.vma
		seed=2
	done
done
rm full.*.raw day.*.raw
