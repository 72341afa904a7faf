#!/bin/bash
# memory.sh [GIB...]: CPU seconds and peak memory by the size of the stream (default: 1 4 16 64 GiB), for a full
# backup, a differential a day later, and its restore. Writes benches/memory.md. The streams are made on the fly:
# no two of their blocks are equal, but they compress well, so that little disk is needed (2 GB, an hour).
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
(cd "$here" && cargo build --release --locked --bin pve-xdelta3)
exec python3 "$here/benches/memory.py" "$here/target/release/pve-xdelta3" "$here/benches/memory.md" "$@"
