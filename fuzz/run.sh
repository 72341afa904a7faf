#!/bin/bash
# run.sh [SECONDS [TARGET...]]: libFuzzer with AddressSanitizer, SECONDS (default: 180) on each parser, without
# cargo-fuzz. Needs rustup's nightly toolchain (its sanitizers) and a C++ compiler. What is learnt stays in fuzz/corpus;
# an input that fails is left in fuzz/crash-TARGET-*, and run again by giving it to the program in place of the corpus.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-180}
coverage='-sanitizer-coverage-level=4 -sanitizer-coverage-inline-8bit-counters -sanitizer-coverage-pc-table
	-sanitizer-coverage-trace-compares'
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module"
for option in $coverage; do
	RUSTFLAGS+=" -Cllvm-args=$option"
done
export RUSTFLAGS+=" -Zsanitizer=address -Cdebug-assertions -Ccodegen-units=4"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
# With a target named, flags are not for build scripts and macros.
triple=$(rustc +nightly -vV | sed -n 's/^host: //p')
cargo +nightly build --release --target "$triple" --bins
programs=$CARGO_TARGET_DIR/$triple/release
"$programs/seed"
failed=()
for folder in corpus/*/; do
	target=$(basename "$folder")
	[[ $# -lt 2 || " ${*:2} " == *" $target "* ]] || continue
	echo "== $target"
	"$programs/$target" -max_len=16384 -rss_limit_mb=900 -malloc_limit_mb=300 -timeout=10 -max_total_time="$seconds" \
		-print_final_stats=1 -artifact_prefix="crash-$target-" "$folder" 2>&1 | tail -n 12 || failed+=("$target")
done
[[ ${#failed[@]} -eq 0 ]] || { echo "failed: ${failed[*]}"; exit 1; }
