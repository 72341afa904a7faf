#!/bin/bash
# Tests our Debian packages with the real dpkg, apt, systemd and sshd in Debian chroots, beside small packages named like
# those of Proxmox VE (tests/packages/repository.sh):
#   installed.sh  the tests in debian/tests, which autopkgtest runs on any Debian, with them installed
#   life.sh       every way in which packages are installed, upgraded, interrupted and removed
#   booted.sh     the same host with systemd running: which services reload
#   jobs.sh       the option in the settings of backup jobs, and messages about failures
#   cluster.sh    several hosts, each in a network of its own: status, apply and revert --cluster
# lintian looks at them, and tests/newest.sh, the weekly look at Proxmox' newest packages, at those small ones.
# Usage: tests/packages.sh [FOLDER of our packages] (default: they are built, not optimised). The last line counts.
# SUITES (default: bookworm trixie; bullseye passes too) names the Debian releases, CASES (default: installed life jobs
# booted cluster) what of it.
# Needs root, mmdebstrap (installed where it is not) and a Debian mirror in apt's configuration: where that cannot be, it
# ends with code 77 and says so. The chroots are kept as target/chroot-SUITE.tar.
set -uo pipefail
cd "$(dirname "$0")/.."
suites=${SUITES:-bookworm trixie}
skip() {
	echo "skipped: $*"
	exit 77
}
tools() { # installs what is missing
	local tool missing=
	for tool in mmdebstrap systemd-nspawn dh dpkg-scanpackages lintian zstd; do
		command -v $tool >/dev/null || missing=yes
	done
	[ "$missing" ] || return 0
	DEBIAN_FRONTEND=noninteractive timeout 300 apt-get -q -y -o DPkg::Lock::Timeout=120 -o Acquire::Retries=1 \
		-o Acquire::http::Timeout=30 install --no-install-recommends mmdebstrap systemd-container debhelper dpkg-dev lintian zstd
}
[ "$(id -u)" = 0 ] || skip "packages are tested as root"
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
unshare --mount --pid --fork true 2>/dev/null || skip "no namespaces of our own here"

tools || skip "mmdebstrap, systemd-container, debhelper and lintian cannot be installed"
for suite in $suites; do
	tests/packages/chroot.sh "$suite" >"$work/$suite.reason" || touch "$work/$suite.missing" &
done
wait
for suite in $suites; do
	[ ! -e "$work/$suite.missing" ] || skip "$(cat "$work/$suite.reason")"
done
packages=${1:-target/test-packages}
if [ $# = 0 ]; then
	rm -rf "$packages"
	# Quick to build and to unpack: what is tested here is how they are installed, which happens often, and they have
	# little data to deal with.
	DEB_BUILD_OPTIONS=noopt DEB_CFLAGS_APPEND=-O0 DPKG_DEB_COMPRESSOR_TYPE=gzip \
		DPKG_DEB_COMPRESSOR_LEVEL=1 debian/build.sh "$packages" >"$packages.log" 2>&1
fi || {
	tail -40 "$packages.log"
	echo "debian/build.sh failed: $packages.log"
	echo "0 passed, 1 failed"
	exit 1
}

tests/packages/repository.sh "$work/repository" "$packages" || exit 1
# Own mounts and processes, which end with it.
for suite in $suites; do
	timeout --kill-after=10 1200 unshare --mount --pid --fork --kill-child --propagation private --mount-proc \
		bash tests/packages/cases.sh "$suite" "$work" "${CASES:-installed life jobs booted cluster}" >"$work/$suite.log" 2>&1 &
done
wait
passed=0 failed=0 skipped=0
echo "== lintian"
if lintian --allow-root --fail-on error,warning "$packages"/*.deb; then
	passed=$((passed + 1))
else
	failed=$((failed + 1))
fi
echo "== tests/newest.sh with packages named like those of Proxmox VE"
dpkg-deb -x "$packages"/pve-diff-backup_*.deb "$work/ours"
if PROGRAM=$work/ours/usr/bin/pve-diff-backup tests/newest.sh "deb [trusted=yes] file:$work/repository ./" >"$work/newest" 2>&1; then
	passed=$((passed + 1))
else
	cat "$work/newest"
	failed=$((failed + 1))
fi
for suite in $suites; do
	sed "s/^/$suite: /" "$work/$suite.log"
	while read -r word count rest; do
		case $word in
		passed:) passed=$((passed + count)) ;;
		failed:) failed=$((failed + count)) ;;
		skipped:)
			echo "skipped: $suite $count $rest"
			skipped=$((skipped + 1))
			;;
		esac
	done <"$work/$suite.log"
	grep -q '^cases: all$' "$work/$suite.log" || {
		echo "$suite: broke off"
		failed=$((failed + 1))
	}
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
