#!/bin/bash
# verify.sh [DIR [MIB]]: what it costs to verify eight differentials of one full, against one of them, of a VM with MIB (1024) MiB of
# data and of a container with as much: the median of $RUNS (5) runs of each, in turns. Prints a table. Takes about 4 * MIB below DIR
# (default: /var/tmp/pve-diff-backup-bench-verify). PROGRAMS names a folder of built programs.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
dir=${1:-/var/tmp/pve-diff-backup-bench-verify}
[ -n "${PROGRAMS:-}" ] || (cd "$here" && cargo build --release --locked --bins)
mkdir -p "$dir"
exec python3 "$here/benches/verify.py" "$(realpath "${PROGRAMS:-$here/target/release}")" "$dir" "${2:-1024}" "${RUNS:-5}"
