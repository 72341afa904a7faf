#!/bin/bash
# Makes target/chroot-SUITE.tar, a small Debian with what the tests in it need, where it is not there yet.
# Usage: tests/packages/chroot.sh SUITE. Where that is not possible, says why in one line and ends with code 1.
set -uo pipefail
cd "$(dirname "$0")/../.."
suite=$1
# Of this format: another list of packages is another file.
base=target/chroot-$suite.tar
include=perl,systemd-sysv,openssh-server,openssh-client,iproute2,xdelta3,zstd
mkdir -p target
[ "$(cat "$base.list" 2>/dev/null)" != "$include" ] || [ ! -e "$base" ] || exit 0
exec 3>&1 >"$base.log" 2>&1

why() {
	echo "$* (log: $base.log)" >&3
	exit 1
}
mirror=$(tests/packages/sources.sh "$suite" | head -1)
[ -n "$mirror" ] || why "no mirror of Debian in apt's configuration"
timeout --kill-after=10 300 mmdebstrap --format=tar --variant=minbase --include="$include" \
	--aptopt='Acquire::Retries "1"' --aptopt='Acquire::http::Timeout "30"' --aptopt='Acquire::https::Timeout "30"' \
	"$suite" "$base.new" "$mirror" </dev/null
code=$?
case $code in
0) ;;
124 | 137) why "the mirror in apt's configuration took more than 5 minutes for Debian $suite" ;;
*) why "no Debian $suite from the mirror in apt's configuration: $(grep -m1 -E '^(E:|Err:)' "$base.log" || echo "mmdebstrap ended with code $code")" ;;
esac
mv "$base.new" "$base"
echo "$include" >"$base.list"
