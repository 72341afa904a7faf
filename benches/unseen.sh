#!/bin/bash
# unseen.sh [DIR]: measures on data that the engine was not made with, as ratios to the stock programs beside it, in one run:
# full backup, differential and restore, with one and two threads; on the machine as it is, and while $BUSY other processes
# (default: twice as many as there are processors; 0 for none) compete for it. Each ratio is the median of $RUNS (3) pairs that
# were run in turns. Writes benches/unseen.md, or $RESULTS.
# Data is made below DIR (default: /var/tmp/pve-xdelta3-unseen) by windows.sh, server.sh and data.sh, and by guest.sh where
# $GUEST is set; needs root and 25 GB of disk. $QUICK takes less of all, 4 GB. $SETS says which: "windows server own guest".
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
dir=${1:-/var/tmp/pve-xdelta3-unseen}
(cd "$here" && cargo build --release --locked --bin pve-xdelta3 --example archive)
sets=${SETS:-windows server${GUEST:+ guest}}
for set in $sets; do
	case $set in own) "$here/benches/data.sh" "$dir/$set" ;; *) "$here/benches/$set.sh" "$dir/$set" ;; esac
done
results=$(realpath "${RESULTS:-$here/benches/unseen.md}")
# shellcheck disable=SC2086
exec python3 "$here/benches/unseen.py" "$here/target/release/pve-xdelta3" "$dir" "$results" "${RUNS:-3}" \
	"${BUSY:-$((2 * $(nproc)))}" $sets
