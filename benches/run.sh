#!/bin/bash
# run.sh [DIR]: measures pve-xdelta3 against xdelta3, zstd and HDiffPatch, all in one run on the same files, and
# writes benches/results.md. CPU seconds (user + system), medians of $RUNS (default 3) runs; the long
# xdelta3 runs once. HDiffPatch's hdiffz is no Debian package: taken from $HDIFFZ or PATH, left out without it.
# Data is made below DIR (default: /var/tmp/pve-xdelta3-bench) by data.sh; needs root.
# With $QUICK the long runs of xdelta3 and zstd --patch-from are left out; $RESULTS is another file for the results.
# Memory and time by size: see memory.sh. A real guest: see guest.sh.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
dir=${1:-/var/tmp/pve-xdelta3-bench}
runs=${RUNS:-3}
(cd "$here" && cargo build --release --locked --bin pve-xdelta3 --example unpack)
"$here/benches/data.sh" "$dir"
results=$(realpath "${RESULTS:-$here/benches/results.md}")
exec python3 "$here/benches/measure.py" "$here/target/release/pve-xdelta3" "$dir" "$runs" "$results"
