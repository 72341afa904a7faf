#!/bin/bash
# changed.sh [DIR [GIB[:MIB]...]]: measures differentials of what is dirty (pve-xdelta3 compose) against those that read everything,
# in one run, on disks of so many GiB (1 4 16), and on an empty one of 1 TiB. Of each 64 MiB of a disk, MIB (8) have data.
# Writes benches/changed.md, or $RESULTS. Takes three times the data below DIR (default: /var/tmp/pve-xdelta3-bench-changed);
# needs qemu-utils.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
dir=${1:-/var/tmp/pve-xdelta3-bench-changed}
(cd "$here" && cargo build --release --locked --bin pve-xdelta3)
exec python3 "$here/benches/changed.py" "$here/target/release/pve-xdelta3" "$dir" \
	"$(realpath "${RESULTS:-$here/benches/changed.md}")" "${@:2}"
