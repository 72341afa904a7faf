#!/bin/bash
# Runs a command in a bare Debian 12, in a copy of this folder: `mmdebstrap --variant=minbase`, as a newcomer may have it. So
# whatever tests/setup.sh does not install, and nobody has by chance, shows. Usage: tests/bare.sh COMMAND...
# Needs root, and a Debian mirror in apt's configuration. Where that cannot be, it fails: `bash tests/all.sh` runs here.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=bookworm
fail() {
	echo "tests/bare.sh: $*" >&2
	echo "tests/bare.sh: the command was NOT run; to run the tests on this machine as it is: bash tests/all.sh" >&2
	exit 1
}
[ "$(id -u)" = 0 ] || fail "a bare Debian is made by root"
unshare --mount --pid --fork true 2>/dev/null || fail "no namespaces of our own here"
command -v mmdebstrap >/dev/null || {
	DEBIAN_FRONTEND=noninteractive
	export DEBIAN_FRONTEND
	apt-get -q update && apt-get -q -y -o DPkg::Lock::Timeout=600 install --no-install-recommends mmdebstrap
} || fail "mmdebstrap cannot be installed"
mapfile -t sources < <(tests/packages/sources.sh $suite)
[ ${#sources[@]} -gt 0 ] || fail "no mirror of Debian in apt's configuration"

work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root
mmdebstrap --quiet --format=tar --variant=minbase $suite "$work/bare.tar" "${sources[@]}" </dev/null ||
	fail "no Debian $suite from the mirror in apt's configuration"
mkdir -p "$root/root/pve-diff-backup"
tar -x -C "$root" -f "$work/bare.tar" --exclude='./dev/*'
rm "$work/bare.tar"

# What is no package: how this machine reaches the network, and the crates that it has fetched already.
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
ln -sf /proc/self/mounts "$root/etc/mtab" # which systemd makes at a boot
mkdir -p "$root/usr/local/share/ca-certificates" "$root/root/.cargo"
find /usr/local/share/ca-certificates -name '*.crt' -exec cp {} "$root/usr/local/share/ca-certificates/" \;
for part in config.toml registry; do
	[ ! -e "${CARGO_HOME:-$HOME/.cargo}/$part" ] || cp -r "${CARGO_HOME:-$HOME/.cargo}/$part" "$root/root/.cargo/"
done
# The folder as it is, in a repository of its own.
tests/files.sh | tar --null --ignore-failed-read -T - -c |
	tar -x --no-same-owner -C "$root/root/pve-diff-backup"
git -C "$root/root/pve-diff-backup" init -q
git -C "$root/root/pve-diff-backup" add -A

# Own mounts and processes, which end with it.
unshare --mount --pid --fork --kill-child --propagation private bash -c '
	set -e
	root=$1
	shift
	# A mount point, as / is one: tests mount below it.
	mount --bind "$root" "$root"
	mount -t proc proc "$root/proc"
	mount --rbind /sys "$root/sys"
	mount --rbind /dev "$root/dev"
	# Built once: neither what a second build would need nor debug information. Fewer units repeat less.
	exec chroot "$root" env -i CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_DEV_CODEGEN_UNITS=2 \
		RUSTFLAGS="-C link-arg=-fuse-ld=lld" HOME=/root CI="${CI:-}" TERM="${TERM:-dumb}" LC_ALL=C.UTF-8 \
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		sh -c "cd /root/pve-diff-backup && exec \"\$@\"" - "$@"
' - "$root" "$@" </dev/null
