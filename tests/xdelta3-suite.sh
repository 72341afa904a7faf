#!/bin/bash
# Runs xdelta3's built-in tests against our program: the black-box ones call whatever name `xdelta3 test` was started
# under, through the shell. They need about two minutes of processor time.
# The last line counts; ends with code 77 where xdelta3 is not installed.
# Usage: tests/xdelta3-suite.sh [PROGRAM]     (default: target/debug/pve-xdelta3)
#
# Our program runs with -H, because the tests expect file names to be taken from a delta's header, which we do only
# when told. Nothing else is changed; bzip2, gzip, compress and xz are used as far as they are installed.
set -euo pipefail

program=$(realpath "${1:-$(dirname "$0")/../target/debug/pve-xdelta3}")
[ -x "$program" ] || { echo "$0: $program is not there: cargo build first" >&2; exit 1; }
command -v xdelta3 >/dev/null || { echo "skipped: the xdelta3 program is not installed"; exit 77; }

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
# A copy, as the user of the tests may not get at the build directory.
cp "$program" "$dir/program"
printf '#!/bin/sh\nXDELTA="-H $XDELTA" exec %q "$@"\n' "$dir/program" >"$dir/pve-xdelta3"
chmod 755 "$dir" "$dir"/*

# One test relies on a file that may not be written, which root may.
as_user=()
[ "$(id -u)" != 0 ] || as_user=(runuser -u nobody --)
if ! "${as_user[@]}" env -u XDELTA bash -c 'exec -a "$0" xdelta3 test' "$dir/pve-xdelta3" >"$dir/log" 2>&1; then
	cat "$dir/log"
	echo "$0: xdelta3's tests failed" >&2
	exit 1
fi
echo "$(grep -c 'success$' "$dir/log") passed, 0 failed"
