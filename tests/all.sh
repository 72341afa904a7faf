#!/bin/bash
# All tests: format, lints, Rust and Perl. Installs what it needs (tests/setup.sh). The last line counts.
# The packages are tested in Debian chroots where that is possible (tests/packages.sh says where), or the last line says
# why not. Tests on Proxmox' own code run where PVE_MIRRORS names a folder of clones, and say so where they do not.
set -uo pipefail
cd "$(dirname "$0")/.."
tests/setup.sh || exit 1

passed=0 failed=0 skipped=
step() { # NAME COMMAND...: runs it, and counts it as one test
	local name=$1
	shift
	echo "== $name: $*"
	if "$@"; then
		passed=$((passed + 1))
	else
		echo "== $name FAILED"
		failed=$((failed + 1))
	fi
}

rust_tests() { # counts each test of each program
	local log status
	log=$(mktemp)
	cargo test --locked --no-fail-fast 2>&1 | tee "$log"
	status=${PIPESTATUS[0]}
	counts=$(sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed;.*/\1 \2/p' "$log")
	rm -f "$log"
	while read -r good bad; do
		passed=$((passed + ${good:-0})) failed=$((failed + ${bad:-0}))
	done <<<"$counts"
	return "$status"
}

perl_files() {
	git ls-files -z 'patches/*.pm' 'tests/*.pm' 'tests/*.t' tests/make-tree-dpkg tests/tree/usr/bin tests/tree/usr/sbin
}

tidy() {
	local file status=0
	while IFS= read -r -d '' file; do
		perltidy --profile=.perltidyrc -st "$file" | diff -u "$file" - || status=1
	done < <(perl_files)
	return $status
}

shell() {
	local file status=0
	while IFS= read -r -d '' file; do
		head -1 "$file" | grep -q '^#!.*sh$' || continue
		bash -n "$file" || status=1
	done < <(git ls-files -z)
	return $status
}

counted() { # NAME COMMAND...: counts each check; what it needs may be missing
	local log code counts
	log=$(mktemp)
	"${@:2}" 2>&1 | tee "$log"
	code=${PIPESTATUS[0]}
	counts=$(tail -1 "$log")
	rm -f "$log"
	if [ "$code" = 77 ]; then
		skipped+="; $1 skipped: ${counts#skipped: }"
		return 0
	fi
	read -r good _ bad rest <<<"$counts"
	passed=$((passed + ${good:-0})) failed=$((failed + ${bad:-0}))
	skipped+=${rest#failed}
	return "$code"
}

critic() { perl_files | xargs -0 perlcritic --profile .perlcriticrc; }

step "format" cargo fmt --check
step "clippy" cargo clippy --locked --all-targets -- -D warnings
step "build" cargo build --locked --bins
step "Rust tests" rust_tests
step "xdelta3's own tests" tests/xdelta3-suite.sh
step "Perl tests" prove -r tests/perl
step "perltidy" tidy
step "perlcritic" critic
step "shell scripts" shell
step "old kernels" counted "old kernels" tests/old-kernel.sh
step "other Perls" counted "other Perls" tests/perls.sh
step "packages" counted packages tests/packages.sh
step "web interface" counted "web interface" tests/host/web/run

[ -z "$skipped" ] || echo "not run here: ${skipped#; }"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
