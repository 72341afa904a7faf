#!/bin/bash
# Lists the files of this folder, each ended by a zero byte: those that git knows or would take, and where there is no git or no
# repository (an unpacked archive) all but what was built. Patterns (* crosses folders) and folders leave only what they
# match. Usage: tests/files.sh [PATTERN...]
set -uo pipefail
cd "$(dirname "$0")/.."
[ ! -e .git ] || ! git ls-files -z --cached --others --exclude-standard -- "$@" 2>/dev/null || exit 0
wanted=(-true)
for pattern in "$@"; do
	wanted[0]=-false
	wanted+=(-o -path "./$pattern" -o -path "./$pattern/*")
done
find . \( -name target -o -path ./.git -o -name '*.deb' \) -prune -o \
	\( -type f -o -type l \) \( "${wanted[@]}" \) -printf '%P\0'
