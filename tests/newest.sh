#!/bin/bash
# Tries the patch sets with the newest packages of Proxmox VE, as apt gets them; nothing is installed.
# Usage: tests/newest.sh SUITE            Proxmox' own repository without subscription (trixie, bookworm)
#        tests/newest.sh 'deb LINE'       any other, as a line of sources.list
# Ends with the exit code of `pve-diff-backup new-version`: 0 where every line of ours still has its place.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$(realpath "${PROGRAM:-target/debug/pve-diff-backup}")
packages=(pve-manager libpve-storage-perl libpve-guest-common-perl pve-container qemu-server)
[ -x "$program" ] || { echo "tests/newest.sh: $program is missing: cargo build, or name it with PROGRAM" >&2 && exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work" # for apt's user
case ${1:?a suite, or a line of sources.list} in
deb\ *) line=$1 ;;
*)
	key=proxmox-archive-keyring
	[ "$1" != bookworm ] || key=proxmox-release
	wget -q -O "$work/key.gpg" "https://enterprise.proxmox.com/debian/$key-$1.gpg"
	line="deb [signed-by=$work/key.gpg] http://download.proxmox.com/debian/pve $1 pve-no-subscription"
	;;
esac
# An apt of its own: nothing of this machine's is read or changed.
mkdir -p "$work"/{state/lists/partial,cache/archives/partial,debs}
: >"$work/status"
echo "$line" >"$work/sources.list"
apt=(apt-get -q -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State=$work/state"
	-o "Dir::State::Status=$work/status" -o "Dir::Cache=$work/cache")
# A folder of this machine need not be open to apt's own user.
[[ $line != *file:* ]] || apt+=(-o APT::Sandbox::User=root)
"${apt[@]}" update
(cd "$work/debs" && "${apt[@]}" download "${packages[@]}")
"$program" --patches patches new-version "$work"/debs/*.deb
