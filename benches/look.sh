#!/bin/bash
# look.sh [DIR [GIB]]: measures reading out of backups without restoring them, in one run with restore, vma extract and tar: a thin
# disk of GIB (64) GiB with $DATA (2048) MiB of data, a container of 2 GiB. Writes benches/look.md, or $RESULTS.
# Takes about 16 GiB below DIR (default: /var/tmp/pve-xdelta3-bench-look); needs qemu-utils, libnbd-bin.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
dir=${1:-/var/tmp/pve-xdelta3-bench-look}
[ -n "${PROGRAM:-}" ] || (cd "$here" && cargo build --release --locked --bin pve-xdelta3)
exec python3 "$here/benches/look.py" "${PROGRAM:-$here/target/release/pve-xdelta3}" "$dir" \
	"$(realpath "${RESULTS:-$here/benches/look.md}")" "${@:2}"
