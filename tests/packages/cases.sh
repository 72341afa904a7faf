#!/bin/bash
# Runs tests in a Debian chroot, each in a copy of its own. Called by tests/packages.sh in own namespaces of mounts and
# processes. Usage: cases.sh SUITE WORK "CASES". Prints `passed: N`, `failed: N`, `skipped: CASE: REASON`.
set -uo pipefail
cd "$(dirname "$0")/../.."
suite=$1 work=$2/$1 repository=$2/repository
mkdir -p "$work/base" "$work/upper"
tar -x -C "$work/base" -f "target/chroot-$suite.tar" || exit 1
mkdir -p "$work/base/repository" "$work/base/tests"
cp "$repository"/* "$work/base/repository/"
cp tests/packages/*.sh "$work/base/tests/"
mount -t tmpfs -o mode=755 upper "$work/upper" || exit 1

copy() { # NAME: a copy of the chroot, of which only changes take room
	mkdir -p "$work/upper/$1" "$work/upper/$1.work" "$work/$1"
	mount -t overlay -o "lowerdir=$work/base,upperdir=$work/upper/$1,workdir=$work/upper/$1.work" "$1" "$work/$1"
}
environment=(env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 TERM=dumb
	DEBIAN_FRONTEND=noninteractive)

life() {
	mount -t proc proc "$work/life/proc"
	mount -t tmpfs run "$work/life/run"
	"${environment[@]}" chroot "$work/life" bash /tests/life.sh
}

installed() {
	mount -t proc proc "$work/installed/proc"
	cp -r debian/tests "$work/installed/tests/of-packages"
	"${environment[@]}" chroot "$work/installed" bash /tests/installed.sh
}

jobs() {
	mount -t proc proc "$work/jobs/proc"
	mount -t tmpfs run "$work/jobs/run"
	"${environment[@]}" chroot "$work/jobs" bash /tests/jobs.sh
}

cluster() {
	unshare --net true || { echo "skipped: no network namespaces here" && return 77; }
	mount -t proc proc "$work/cluster/proc"
	mount -t tmpfs run "$work/cluster/run"
	"${environment[@]}" unshare --net chroot "$work/cluster" bash /tests/cluster.sh
}

# systemd wants a cgroup of its own, and one of version 2 since Debian 13.
booted() {
	local group code
	mount -t tmpfs run /run
	mount -t cgroup2 cgroup2 /sys/fs/cgroup || { echo "skipped: no cgroups of version 2 here" && return 77; }
	group=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
	group=${group%/}/pve-diff-backup-test-$suite-$(basename "${work%/*}")
	mkdir "$group" && echo $BASHPID >"$group/cgroup.procs" || { echo "skipped: no cgroup of our own here" && return 77; }
	cat >"$work/booted/etc/systemd/system/tests.service" <<'UNIT'
[Unit]
After=multi-user.target
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
Environment=LC_ALL=C.UTF-8 TERM=dumb DEBIAN_FRONTEND=noninteractive
ExecStart=/bin/bash /tests/booted.sh
TimeoutStartSec=600
StandardOutput=file:/tests/booted.log
StandardError=file:/tests/booted.log
[Install]
WantedBy=default.target
UNIT
	mkdir -p "$work/booted/etc/systemd/system/default.target.wants"
	ln -s ../tests.service "$work/booted/etc/systemd/system/default.target.wants/"
	timeout --kill-after=10 660 systemd-nspawn --quiet --register=no --keep-unit --boot --private-network --console=pipe \
		--directory="$work/booted" </dev/null >"$work/nspawn.log" 2>&1
	code=$?
	echo $BASHPID >"${group%/*}/cgroup.procs"
	find "$group" -depth -type d -exec rmdir {} +
	[ -s "$work/booted/tests/booted.log" ] || { echo "skipped: no systemd boots here: $(tail -1 "$work/nspawn.log")" && return 77; }
	cat "$work/booted/tests/booted.log"
	return $code
}

for case in $3; do
	begin=$SECONDS
	copy "$case" || { echo "skipped: $case: no overlay file system here" && continue; }
	"$case" 2>&1 | tee "$work/$case.log"
	code=${PIPESTATUS[0]}
	echo "$case: $((SECONDS - begin)) s"
	counts=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$work/$case.log" | tail -1)
	if [ "$code" = 77 ]; then
		echo "skipped: $case: $(sed -n 's/^skipped: //p' "$work/$case.log" | tail -1)"
	elif [ -n "$counts" ]; then
		echo "passed: ${counts% *}"
		echo "failed: ${counts#* }"
	else
		echo "FAILED: $case broke off with code $code"
		echo "failed: 1"
	fi
done
echo "cases: all"
