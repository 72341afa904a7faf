#!/bin/bash
# server.sh DIR: makes the tar streams of a mail and file server below DIR (6 GB of disk, 3 minutes; with $QUICK 1.5 GB): very
# many small files, mail with real text and attachments and the shares of a file server, and the same a day later. See unseen.sh.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
cd "$1"
[ ! -e day.tar ] || exit 0
megabytes=1200
[ -z "${QUICK:-}" ] || megabytes=250
for when in full day; do
	python3 "$here/benches/server.py" $when tree $megabytes
	tar -C tree -cf part .
	mv part $when.tar
done
rm -r tree
