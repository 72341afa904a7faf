#!/bin/bash
# Installs what building and testing need, on Debian 12 as root; does nothing where all is there.
# Rust of Debian 12's security archive (rustc-web) is used where no newer one is in PATH.
set -euo pipefail

packages=(
	gcc libc6-dev make pkg-config ca-certificates git
	perl tar zstd lzop xz-utils gzip bzip2 ncompress xdelta3 patch strace cstream procps pigz dpkg-dev bsdutils zsh fish rsync rclone
	perltidy libperl-critic-perl libjson-perl duktape lld qemu-utils libnbd-bin fuse3 e2fsprogs attr mount
	fdisk xfsprogs btrfs-progs dosfstools ntfs-3g
)

have_rust() {
	local version
	version=$(rustc --version 2>/dev/null | cut -d' ' -f2) || return 1
	dpkg --compare-versions "${version:-0}" ge 1.88 && cargo clippy --version >/dev/null 2>&1 &&
		cargo fmt --version >/dev/null 2>&1
}
have_rust || packages+=(rustc-web cargo-web rust-web-clippy rustfmt-web libstd-rust-web-dev)

missing=()
for package in "${packages[@]}"; do
	dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "These packages are missing: ${missing[*]}. Install them, or run this as root." >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -q -y -o DPkg::Lock::Timeout=600 install --no-install-recommends "${missing[@]}"
have_rust || {
	echo "Rust 1.88 or newer with clippy and rustfmt is needed; found: $(rustc --version 2>&1)" >&2
	exit 1
}
