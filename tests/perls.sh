#!/bin/bash
# The Perl tests by other Perls than this machine's. PERLS names them, such as
#   PERLS="/opt/perl-5.14.2/bin/perl /opt/perl-5.24.1/bin/perl" tests/perls.sh
# Those of Proxmox VE are Debian's: 5.10.1 (PVE 2), 5.14.2 (3), 5.20.2 (4), 5.24.1 (5), 5.28.1 (6), 5.32.1 (7), 5.36.0
# (8), 5.40.1 (9). Core modules are enough, but for 5.10.1: that needs JSON::PP, and does without the tests of code that
# is for newer releases alone. The programs of target/debug are used.
# The last line counts test files; ends with code 77 where PERLS names none.
set -uo pipefail
cd "$(dirname "$0")/.."
if [ -z "${PERLS:-}" ]; then
	echo "skipped: PERLS names none"
	exit 77
fi
# As prove(1) does, by the Perl that is asked.
prove='my $prove = App::Prove->new; $prove->process_args(@ARGV); exit($prove->run ? 0 : 1)'
passed=0 failed=0
for perl in $PERLS; do
	echo "== $perl: $("$perl" -e 'print $^V')"
	for test in tests/perl/*.t; do
		case $test in
		*/script.t | */ui.t) continue ;; # a matter of browsers
		*/jobs.t | */tree.t) "$perl" -e 'exit($] < 5.014)' || continue ;;
		esac
		if "$perl" -MApp::Prove -e "$prove" -- -Q "$test"; then
			passed=$((passed + 1))
		else
			failed=$((failed + 1))
		fi
	done
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
