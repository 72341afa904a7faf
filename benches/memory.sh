#!/bin/bash
# memory.sh [GIB...]: CPU seconds and peak memory by the size of the stream (default: 1 4 16 64 GiB), for a full
# backup, a differential of the same stream, and its restore. The stream is made on the fly, all its blocks differ.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
program=$here/target/release/pve-xdelta3
dir=$(mktemp -d /var/tmp/pve-xdelta3-memory.XXXXXX)
trap 'rm -rf "$dir"' EXIT

stream() {
	perl -e 'srand 1; my $rest = pack "C*", map { int rand 256 } 1 .. 4088;
		for (my $n = 0; $n < $ARGV[0] << 18; $n++) { print pack("Q<", $n), $rest }' "$1"
}
measured() {
	/usr/bin/time -f '%U %S %M' -o "$dir/time" "$program" "$@"
	awk '{ printf " %.1f s, %d MiB |", $1 + $2, $3 / 1024 }' "$dir/time" >> "$dir/row"
}

echo '| GiB | full | diff | restore |'
echo '|---|---|---|---|'
for gib in "${@:-1 4 16 64}"; do
	for size in $gib; do
		echo -n "| $size |" > "$dir/row"
		stream "$size" | measured full --threads 2 > "$dir/full"
		stream "$size" | measured diff --threads 2 --base "$dir/full" > "$dir/diff"
		measured restore --threads 2 --base "$dir/full" "$dir/diff" > /dev/null
		echo "$(cat "$dir/row")"
	done
done
