#!/bin/bash
# Backups, restores and patching as on the kernels of old hosts: every system call that Linux got after 3.10 fails as an unknown
# one, for our programs and all that they run. Proxmox VE 4 has Linux 4.4, 5 has 4.10 to 4.15, 6 has 5.0 to 5.4.
# The last line counts test files; ends with code 77 where nothing can be traced.
set -uo pipefail
cd "$(dirname "$0")/.."
# By kernel release (syscalls(2)); `?`: strace need not know it.
calls=(
	sched_setattr sched_getattr                                                      # 3.14
	renameat2                                                                        # 3.15
	seccomp getrandom memfd_create                                                   # 3.17
	bpf execveat userfaultfd membarrier mlock2                                       # 3.18 to 4.4
	copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free              # 4.5 to 4.9
	statx                                                                            # 4.11
	'?io_pgetevents' '?rseq'                                                         # 4.18
	'?pidfd_send_signal' '?io_uring_setup' '?io_uring_enter' '?io_uring_register'    # 5.1
	'?open_tree' '?move_mount' '?fsopen' '?fsconfig' '?fsmount' '?fspick'            # 5.2
	'?pidfd_open' '?clone3'                                                          # 5.3
	'?openat2' '?pidfd_getfd' '?faccessat2' '?close_range' '?process_madvise'        # 5.6 to 5.10
	'?epoll_pwait2' '?mount_setattr' '?quotactl_fd' '?landlock_create_ruleset'       # 5.11 to 5.14
	'?memfd_secret' '?process_mrelease' '?futex_waitv' '?set_mempolicy_home_node'    # 5.14 to 5.17
	'?cachestat' '?fchmodat2' '?futex_wake' '?futex_wait' '?statmount' '?listmount' '?mseal' # 6.5 to 6.10
)
list=$(IFS=,; echo "${calls[*]}")
log=$(mktemp)
trap 'rm -f "$log"' EXIT
old=(strace --follow-forks --seccomp-bpf -qq --output="$log" --trace="$list" --inject="$list:error=ENOSYS")
"${old[@]}" true 2>/dev/null || {
	echo "skipped: strace is missing or may not trace"
	exit 77
}
passed=0 failed=0
for test in tests/perl/{tree,older,jobs}.t; do
	if "${old[@]}" prove -Q "$test"; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
done
# Else nothing was shown: Rust's library and glibc try the newer calls first.
for call in statx clone3 getrandom; do
	grep -q " $call(.*ENOSYS.*INJECTED" "$log" || {
		echo "FAILED: no $call was refused"
		failed=$((failed + 1))
	}
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
