#!/bin/bash
# Builds small packages named like those of Proxmox VE, from tests/tree, as a local apt repository with ours.
# Usage: tests/packages/repository.sh FOLDER OURS
#
# Releases: 8.4.20 and 8.4.21 (pve-manager), 9.2.2 (all), 9.9.1 (pve-manager without the sub our hunk hangs on), 9.9.2
# (pve-manager: matches, but of no release the patch set was verified with). Triggers are those of the real packages,
# and what pve-manager does with its services, too. Ours are there as they are, and once more with other hunks.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
tree=$here/../tree
repository=$1 ours=$2
mkdir -p "$repository"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

services() { # ROOT: what they were asked for, and whether our lines were in place then, is in /run/test/services
	local name tell
	tell='echo "%p $1 $(grep -c pve-diff-backup: /usr/share/perl5/PVE/Storage.pm)" >>/run/test/services'
	mkdir -p "$1/usr/lib/systemd/system"
	for name in pvedaemon pveproxy pvescheduler pvestatd; do
		cat >"$1/usr/lib/systemd/system/$name.service" <<-UNIT
			[Service]
			ExecStart=/bin/sleep infinity
			ExecStartPost=/bin/sh -c '${tell//\$1/started}'
			ExecReload=/bin/sh -c '${tell//\$1/reloaded}'
			[Install]
			WantedBy=multi-user.target
		UNIT
	done
}

build() { # PACKAGE VERSION [SED EXPRESSION for VZDump.pm]
	local package=$1 version=$2 root=$work/$1 file
	rm -rf "$root"
	mkdir -p "$root/DEBIAN"
	while read -r file; do
		[ -f "$tree$file" ] || continue
		install -D -m "$(stat -c %a "$tree$file")" "$tree$file" "$root$file"
		# Every release's files are its own.
		case $file in *.pm) echo "# $package $version" >>"$root$file" ;; esac
	done <"$tree/var/lib/dpkg/info/$package.list"
	[ -z "${3:-}" ] || sed -i "$3" "$root/usr/share/perl5/PVE/VZDump.pm"
	(cd "$root" && find usr -type f -exec md5sum {} + >DEBIAN/md5sums)
	{
		echo "Package: $package"
		echo "Version: $version"
		echo "Architecture: all"
		echo "Maintainer: pve-diff-backup"
		[ "$package" != pve-manager ] ||
			echo "Depends: libpve-storage-perl, libpve-guest-common-perl, libpve-common-perl, pve-container, qemu-server"
		echo "Description: a small stand-in for tests"
	} >"$root/DEBIAN/control"
	if [ "$package" = pve-manager ]; then
		printf 'interest-noawait %s\n' pve-api-updates /usr/share/perl5/PVE >"$root/DEBIAN/triggers"
		install -m 755 "$here/pve-manager.postinst" "$root/DEBIAN/postinst"
		services "$root"
	else
		echo "activate-noawait pve-api-updates" >"$root/DEBIAN/triggers"
	fi
	dpkg-deb --root-owner-group -Znone --build "$root" "$repository/${package}_$version.deb" >/dev/null
}

declare -A old=([libpve-storage-perl]=8.3.8 [libpve-guest-common-perl]=5.2.2 [libpve-common-perl]=8.3.8
	[pve-container]=5.3.5 [qemu-server]=8.4.10)
declare -A new=([libpve-storage-perl]=9.1.0 [libpve-guest-common-perl]=6.0.2 [libpve-common-perl]=9.1.0
	[pve-container]=6.1.0 [qemu-server]=9.1.0)
build qemu-server 8.4.11
for package in "${!old[@]}"; do
	build "$package" "${old[$package]}"
	build "$package" "${new[$package]}"
done
for version in 8.4.20 8.4.21 9.2.2 9.9.2; do
	build pve-manager $version
done
build pve-manager 9.9.1 's/^sub exec_backup_task {/sub run_backup_task {/'

# The pve-xdelta3 of old, by its version.
mkdir -p "$work/old/DEBIAN" "$work/old/usr/bin"
printf '#!/bin/sh\necho old\n' >"$work/old/usr/bin/pve-xdelta3"
chmod 755 "$work/old/usr/bin/pve-xdelta3"
printf '%s\n' 'Package: pve-xdelta3' 'Version: 3.0.11-dfsg-1ubuntu1.zstd.ayufan2' 'Architecture: amd64' \
	'Maintainer: pve-diff-backup' 'Description: a small stand-in for tests' >"$work/old/DEBIAN/control"
dpkg-deb --root-owner-group -Znone --build "$work/old" "$repository/pve-xdelta3_old.deb" >/dev/null

# Ours as they are, and as an upgrade with one more line in a hunk: the program with patch sets of its own.
cp "$ours"/pve-diff-backup_*.deb "$ours"/pve-xdelta3_*.deb "$repository"
for deb in "$ours"/pve-diff-backup_*.deb "$ours"/pve-xdelta3_*.deb; do
	next=$work/next
	rm -rf "$next"
	dpkg-deb -R "$deb" "$next"
	sed -i 's/^\(Version: .*\)/\1+next/; s/^\(Depends: .*pve-xdelta3 (= [^)]*\))/\1+next)/' "$next/DEBIAN/control"
	case ${deb##*/} in pve-diff-backup_*)
		mkdir -p "$next/usr/lib/pve-diff-backup"
		mv "$next/usr/bin/pve-diff-backup" "$next/usr/lib/pve-diff-backup/program"
		cp -r "$here/../../patches" "$next/usr/lib/pve-diff-backup/"
		sed -i -E "s/^version: .*/version: 1000/; 0,/^    insert: \\|/ s/^    insert: \\|/&\n      # of the next version/" \
			"$next"/usr/lib/pve-diff-backup/patches/*/patchset.yaml
		cat >"$next/usr/bin/pve-diff-backup" <<-'NEXT'
			#!/bin/sh
			exec /usr/lib/pve-diff-backup/program --patches /usr/lib/pve-diff-backup/patches "$@"
		NEXT
		chmod 755 "$next/usr/bin/pve-diff-backup"
		;;
	esac
	dpkg-deb --root-owner-group -Znone -b "$next" "$repository/next-${deb##*/}" >/dev/null
done
cd "$repository"
dpkg-scanpackages --multiversion . >Packages 2>/dev/null
