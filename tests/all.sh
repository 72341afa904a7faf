#!/bin/bash
# All tests: format, lints, Rust and Perl. Installs what it needs (tests/setup.sh). The last line counts.
# The packages are tested in Debian chroots where that is possible (tests/packages.sh says where). Tests on Proxmox' own code
# run where PVE_MIRRORS names a folder of clones. What cannot run here is named at the end and counted as skipped; what
# is missing although tests/setup.sh installs it counts as failed. CI runs this in a bare Debian (tests/bare.sh).
set -uo pipefail
cd "$(dirname "$0")/.."
tests/setup.sh || exit 1

# Nothing stays in the folder of everybody. As open as that one: some tests run programs as nobody.
work=$(mktemp -d) || exit 1
trap 'rm -rf --one-file-system "$work"' EXIT
mkdir -m 1777 "$work/tmp"
chmod 711 "$work"
export TMPDIR=$work/tmp

passed=0 failed=0 skipped=0
: >"$work/skipped"
cpu() { # sets `cpu` to the seconds of processor time that was used so far
	times >"$work/times"
	cpu=$(awk -F'[ms ]' 'NR == 2 { print int($1 * 60 + $2 + $4 * 60 + $5) }' "$work/times")
}
step() { # NAME COMMAND...: runs it, and counts it as one test
	local name=$1 begin=$SECONDS before
	shift
	cpu
	before=$cpu
	echo "== $name: $*"
	if "$@"; then
		passed=$((passed + 1))
	else
		echo "== $name FAILED"
		failed=$((failed + 1))
	fi
	cpu
	echo "== $name: $((SECONDS - begin)) s, $((cpu - before)) s of processor time"
}

# What depends on the machine, or on files that are not ours to bring.
machine='PVE_MIRRORS|PVE_HOST|EXTJS|PERLS names none|does not name a program|dissect.archive|no program vma|not root|as root|no /dev/fuse'
machine+='|no /dev/nbd0|no udev|no /etc/mtab|no program systemctl|cannot be run as nobody|immutable|overlay|namespaces|cgroup|no systemd boots|may not trace|mirror|no Debian'
skip() { # NAME REASON: allowed or not
	if grep -qE "$machine" <<<"$2"; then
		skipped=$((skipped + 1))
		echo "$1: $2" >>"$work/skipped"
	else
		echo "FAILED: $1 did not run: $2"
		failed=$((failed + 1))
	fi
}

rust_tests() { # counts each test of each program; one that says `skipped: REASON` is none that passed
	local log=$work/rust status good bad name reason
	cargo test --locked --no-fail-fast -- --show-output 2>&1 | tee "$log"
	status=${PIPESTATUS[0]}
	while read -r good bad; do
		passed=$((passed + good)) failed=$((failed + bad))
	done < <(sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed;.*/\1 \2/p' "$log")
	while IFS=$'\t' read -r name reason; do
		passed=$((passed - 1))
		skip "$name" "$reason"
	done < <(awk '
		/^(failures|successes):$/ { good = $1 == "successes:"; name = "" }
		/^---- .* stdout ----$/ { name = $2; told = 0 }
		good && name != "" && !told && sub(/^skipped: /, "") { told = 1; print name "\t" $0 }' "$log")
	return "$status"
}

perl_tests() { # counts each file of tests
	local log=$work/perl status name reason files bad
	prove --directives -r tests/perl 2>&1 | tee "$log"
	status=${PIPESTATUS[0]}
	files=$(sed -n 's/^Files=\([0-9]*\),.*/\1/p' "$log")
	bad=$(grep -c '^tests/perl/.*(Wstat: ' "$log")
	passed=$((passed + ${files:-0} - bad))
	while IFS=$'\t' read -r name reason; do
		passed=$((passed - 1))
		skip "$name" "$reason"
	done < <(sed -nE 's/^(tests[^ ]*) \.+ skipped: (.*)$/\1\t\2/p; s/^ok [0-9]+ # skip (.*)$/a Perl test\t\1/p' "$log" | sort -u)
	return "$status"
}

perl_files() {
	tests/files.sh 'patches/*.pm' 'tests/*.pm' 'tests/*.t' tests/make-tree-dpkg tests/tree/usr/bin tests/tree/usr/sbin
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
	done < <(tests/files.sh)
	return $status
}

counted() { # NAME COMMAND...: its last line counts; what it says of skipped parts counts too
	local log=$work/counted code good bad reason
	"${@:2}" 2>&1 | tee "$log"
	code=${PIPESTATUS[0]}
	while read -r reason; do
		skip "$1" "$reason"
	done < <(sed -n 's/^skipped: //p' "$log")
	[ "$code" != 77 ] || return 0
	read -r good _ bad _ < <(tail -1 "$log")
	passed=$((passed + ${good:-0})) failed=$((failed + ${bad:-0}))
	return "$code"
}

told() { # CODE FILE: what a program said that ended with that code
	cat "$2"
	return "$1"
}

licences() { # debian/copyright names every crate that is linked in
	debian/copyright.pl | diff -u debian/copyright - || {
		echo "debian/copyright is out of date: debian/copyright.pl >debian/copyright"
		return 1
	}
}

critic() { perl_files | xargs -0 perlcritic --profile .perlcriticrc; }

step "format" cargo fmt --check
step "clippy" cargo clippy --locked --all-targets -- -D warnings
# The programs with the tests: built alone, they would need the crates with other features, and so all would be built twice.
step "build" cargo test --locked --no-run
step "Rust tests" rust_tests
# One program after the other, for two minutes: beside the Perl tests, which are so, too.
tests/xdelta3-suite.sh >"$work/suite" 2>&1 &
suite=$!
step "Perl tests" perl_tests
step "perltidy" tidy
step "perlcritic" critic
step "shell scripts" shell
step "licences" licences
step "old kernels" counted "old kernels" tests/old-kernel.sh
step "other Perls" counted "other Perls" tests/perls.sh
wait "$suite"
suite=$?
step "xdelta3's own tests" counted "xdelta3's own tests" told "$suite" "$work/suite"
step "packages" counted packages tests/packages.sh
step "web interface" counted "web interface" tests/host/web/run

[ ! -s "$work/skipped" ] || sed 's/^/not run here: /' "$work/skipped"
cpu
echo "processor time: $((cpu / 60)) minutes"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
