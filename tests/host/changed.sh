# tests/host/changed.sh: runs inside in-tree.sh, with PVE_KVM=qemu.  Differentials of a running VM that read only what
# changed, by real vzdump around a real QEMU: which way each backup goes and why, what its log says, that all of them
# are restored as the disks were, and that a killed one is in nobody's way.
set -u
export PATH=$PATH:/usr/sbin
passed=0 failed=0
check() { # NAME CODE [DETAIL]
	if [ "$2" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)) && echo "FAIL $1 ${3:-}"; fi
}
L=/var/log/changed I=/var/lib/vz/images/200 D=/var/nas/dump
mkdir -p $L $I $D /var/nas2/dump
for storage in local nas nas2; do
	path=/var/$storage content=backup
	[ $storage != local ] || path=/var/lib/vz content=images,rootdir,backup
	printf 'dir: %s\n\tpath %s\n\tcontent %s\n\tprune-backups keep-all=1\n\n' $storage $path $content
done >/etc/pve/storage.cfg
truncate -s 96M $I/vm-200-disk-0.raw
truncate -s 4M $I/vm-200-disk-1.raw
head -c 40M /dev/urandom | dd of=$I/vm-200-disk-0.raw conv=notrunc 2>/dev/null
seq 300000 | dd of=$I/vm-200-disk-1.raw conv=notrunc 2>/dev/null
printf 'boot: order=scsi0\ncores: 1\nmemory: 512\nname: vm200\nostype: l26\nscsi0: local:200/vm-200-disk-0.raw,size=96M\nvirtio1: local:200/vm-200-disk-1.raw,size=4M\nscsihw: virtio-scsi-pci\n' >/etc/pve/qemu-server/200.conf
echo 'changed-blocks: fleecing' >/etc/pve/pve-diff-backup.conf
guest 200 start
n=0
to="--storage nas" fleecing="--fleecing enabled=1,storage=local"

backup() { # WHAT-THE-LOG-SAYS [OPTIONS OF vzdump]
	local expected=$1
	shift
	n=$((n + 1))
	sleep 1.1
	mkdir -p $L/disks-$n
	cp --sparse=always $I/*.raw $L/disks-$n/
	# shellcheck disable=SC2086 # words
	vzdump 200 --mode snapshot $to --compress zstd --fullbackup 7 $fleecing "$@" >$L/backup-$n.log 2>&1
	check "backup $n" $? "$(tail -3 $L/backup-$n.log)"
	grep -q "$expected" $L/backup-$n.log
	check "backup $n: $expected" $? "$(grep -E 'read|WARN|ERROR' $L/backup-$n.log)"
	# the line is there where all is read, and nowhere else
	[ "$(grep -c 'everything is read: ' $L/backup-$n.log)" = "$(grep -c 'everything is read: ' <<<"$expected")" ]
	check "backup $n: its line" $? "$(grep -E 'read' $L/backup-$n.log)"
}
only='reading only what changed since'
all='INFO: everything is read: '

backup 'INFO: full backup: there is no full backup'
guest 200 scsi0 'write -P 17 1M 64k' 'write -P 18 50M 4k' 'discard 2M 1M'
guest 200 virtio1 'write -P 19 3M 8k'
backup "$only"
grep -qE 'INFO: changed blocks: drive-scsi0: 1\.1 MiB of 96\.0 MiB read, .* noted as changed' $L/backup-2.log
check 'what was read of a disk' $? "$(grep changed $L/backup-2.log)"
grep -qE 'INFO: changed blocks: 1\.2 MiB of 100\.0 MiB read \(1\.2%\), .* changed since the full backup, at ' $L/backup-2.log
check 'what was read of all' $? "$(grep changed $L/backup-2.log)"
guest 200 scsi0 'write -P 33 1M 4k' 'write -P 34 90M 300k'
sed -i 's/memory: .*/memory: 777/' /etc/pve/qemu-server/200.conf
backup "$only"
backup "${all}the job has no fleecing" --fleecing enabled=0
guest 200 scsi0 'write -P 66 30M 4k'
backup "${all}what was noted of drive-scsi0 does not count from the newest backup"
guest 200 scsi0 'write -P 67 31M 4k'
backup "$only"
guest 200 stop
guest 200 start
guest 200 scsi0 'write -P 77 32M 4k'
backup "${all}what changed of drive-scsi0 was not noted since the last backup"
guest 200 scsi0 'write -P 78 33M 4k'
backup "$only"
guest 200 scsi0 'write -P 79 34M 4k'
mv "$(ls -t $D/*.vcdiff.zst | head -1)" /var/nas/
backup "${all}what was noted of drive-scsi0 does not count from the newest backup"
mv /var/nas/*.vcdiff.zst $D/
echo 'changed-blocks-audit: 1' >>/etc/pve/pve-diff-backup.conf
guest 200 scsi0 'write -P 80 34M 4k'
backup "$only"
guest 200 scsi0 'write -P 81 35M 4k'
backup "${all}1 backups in a row read only what changed"
grep -q 'INFO: audit: nothing changed that was not noted' $L/backup-$n.log
check 'an audit' $? "$(grep audit $L/backup-$n.log)"
# a bitmap that is cleared by hand spoils the next differential, and the audit finds it
guest 200 scsi0 'write -P 86 37M 4k'
python3 - <<'END'
import json, socket
qmp = socket.socket(socket.AF_UNIX)
qmp.connect("/run/qemu-server/200.qmp")
lines = qmp.makefile("rw")
lines.readline()
def ask(command, **arguments):
    lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    lines.flush()
    return json.loads(lines.readline())["return"]
name = "snapshot-access:pve-diff-backup:nas"
for node in ask("query-named-block-nodes"):
    if any(bitmap.get("name") == name for bitmap in node.get("dirty-bitmaps", [])):
        ask("block-dirty-bitmap-clear", node=node["node-name"], name=name)
END
backup "$only"
spoiled=$n
backup "${all}1 backups in a row read only what changed"
grep -q 'WARN: audit: QEMU did not note all that changed (.*drive-scsi0: 1 clusters of 64 KiB, the first at 38797312): differentials' $L/backup-$n.log
check 'an audit finds what a bitmap has missed' $? "$(grep audit $L/backup-$n.log)"
backup "${all}what was noted of drive-scsi0 does not count from the newest backup"
printf 'changed-blocks: auto\nstorage: nas\nchanged-blocks: of\n' >/etc/pve/pve-diff-backup.conf
guest 200 scsi0 'write -P 82 36M 4k'
backup "$only" --fleecing enabled=0
grep -q "WARN: '/etc/pve/pve-diff-backup.conf', line 3: not understood" $L/backup-$n.log
check 'a bad line is named' $?

# killed while it reads: the access ends by itself, and nothing is in the way of the next
guest 200 scsi0 'write -P 83 40M 2M'
begin_to_die() { # a backup in the middle of reading: $job, and $worker, which is what there is to kill
	cp /usr/bin/pve-xdelta3 /usr/bin/pve-xdelta3.real
	cat >/usr/bin/pve-xdelta3.new <<-'SLOW'
		#!/bin/sh
		[ "$1" != compose ] || { touch /run/composing; sleep 60; }
		exec /usr/bin/pve-xdelta3.real "$@"
	SLOW
	chmod 755 /usr/bin/pve-xdelta3.new
	mv /usr/bin/pve-xdelta3.new /usr/bin/pve-xdelta3
	rm -f /run/composing
	# shellcheck disable=SC2086 # words
	vzdump 200 --mode snapshot --storage nas --compress zstd --fullbackup 7 $fleecing >$L/killed.log 2>&1 &
	job=$!
	for _ in $(seq 600); do
		[ ! -e /run/composing ] || break
		sleep 0.1
	done
	[ -e /run/composing ]
	check 'a backup to kill' $? "$(tail -3 $L/killed.log)"
	read -r _ worker _ </run/qemu-server/200.pve-diff-backup
}
kill_watcher() { # the same program as the worker, and a child of nobody
	local process
	for process in /proc/[0-9]*; do
		cmp -s "$process/cmdline" "/proc/$worker/cmdline" || continue
		[ "${process#/proc/}" = "$worker" ] || kill -9 "${process#/proc/}"
	done
}
kill_job() {
	kill -9 "$worker" "$job" 2>/dev/null
	wait $job 2>/dev/null
	mv /usr/bin/pve-xdelta3.real /usr/bin/pve-xdelta3
	qm unlock 200
}
for stubborn in '' watcher; do
	begin_to_die
	[ -z "$stubborn" ] || kill_watcher
	kill_job
	if [ -z "$stubborn" ]; then
		for _ in $(seq 300); do
			[ -e /run/qemu-server/200.pve-diff-backup ] || break
			sleep 0.1
		done
		[ ! -e /run/qemu-server/200.pve-diff-backup ]
		check 'the watcher ended the access' $?
	fi
	guest 200 scsi0 'write -P 84 41M 4k'
	backup "$only"
	guest 200 scsi0 'write -P 85 42M 4k'
done
grep -q 'ending what a killed backup left in QEMU' $L/backup-$n.log
check 'what both left was ended' $?

# QEMU of before has no such access
guest 200 stop
FAKE_KVM_VERSION=9.0.2 guest 200 start
backup "${all}the QEMU that runs this VM is too old"
to="--dumpdir $D"
backup "${all}the backup goes to a folder"
to="--storage nas"
guest 200 stop
guest 200 start
backup "${all}what changed of drive-scsi0 was not noted"
backup "$only"
backup 'everything is read: the backup is not compressed' --compress gzip --fullbackup 300
guest 200 stop

count=0
for archive in $(ls -tr $D/*.zst $D/*.gz); do
	count=$((count + 1))
	qmrestore nas:backup/"${archive##*/}" 30$count --storage local --unique 1 >$L/restore-$count.log 2>&1
	check "restore $count" $? "$(tail -2 $L/restore-$count.log)"
	for d in 0 1; do
		[ $count.$d != "$spoiled.0" ] || continue
		cmp $L/disks-$count/vm-200-disk-$d.raw /var/lib/vz/images/30$count/vm-30$count-disk-$d.raw
		check "restore $count: disk $d" $?
	done
done
[ $count = $n ]
check 'all backups are there' $? "$count of $n"
last=$(ls -t $D/*.vcdiff.zst | head -1)
[ "$(pvesm extractconfig nas:backup/"${last##*/}" 2>/dev/null | grep memory)" = 'memory: 777' ]
check configuration $?
X=$(mktemp -d /var/tmp/changed.XXXXXX)
zstd -dcq "${last%%--differential*}" >"$X/full.vma"
zstd -dcq "$last" | xdelta3 -d -c -s "$X/full.vma" >"$X/last.vma" && pve-xdelta3 vma extract "$X/last.vma" "$X/out"
cmp "$X/out/disk-drive-scsi0.raw" $L/disks-$((n - 1))/vm-200-disk-0.raw
check "Debian's xdelta3" $?
rm -rf "$X"

# what an administrator can try on a host of their own
mkdir -p /var/spare/dump
printf 'dir: spare\n\tpath /var/spare\n\tcontent backup\n\n' >>/etc/pve/storage.cfg
printf 'changed-blocks: fleecing\nchanged-blocks-audit: 2\n' >/etc/pve/pve-diff-backup.conf
guest 200 start
trial="pve-diff-backup selftest --changed-blocks --qemu 200 --target 299 --storage local --yes"
$trial --backups spare --fleecing local --overwrite virtio1 >$L/selftest.log 2>&1
check 'a self-test' $? "$(tail -15 $L/selftest.log)"
[ "$(grep -c 'identical: 2 disks; only what changed: [0-9.]* KiB of 100.0 MiB' $L/selftest.log)" = 4 ]
check 'its backups' $? "$(tail -15 $L/selftest.log)"
grep -q 'identical: 2 disks; everything, an audit: all was noted' $L/selftest.log
check 'its audit' $? "$(tail -15 $L/selftest.log)"
grep -q '^  scsi0: on local (dir)$' $L/selftest.log
check 'its report' $? "$(tail -15 $L/selftest.log)"
[ "$(ls /var/spare/dump /etc/pve/qemu-server/299.conf 2>/dev/null | grep -cv ':$')" = 0 ]
check 'it leaves nothing' $? "$(ls /var/spare/dump)"
qm status 200 --verbose | grep -q '^qmpstatus: running'
check 'the VM goes on' $? "$(qm status 200 --verbose)"
! $trial --backups nas --fleecing local >$L/refused.log 2>&1 && grep -q "storage 'nas' has backups of VM 200 already" $L/refused.log
check 'it refuses a storage with backups' $? "$(tail -3 $L/refused.log)"
$trial --backups spare >$L/unfleeced.log 2>&1
[ $? = 1 ] && grep -q 'FAILED: .*everything: the job has no fleecing' $L/unfleeced.log
check 'it fails where everything is read' $? "$(tail -12 $L/unfleeced.log)"

# what a killed backup left is in nobody's way after a revert
# shellcheck disable=SC2086 # words
vzdump 200 --mode snapshot --storage nas --compress zstd --fullbackup 7 $fleecing >$L/noting.log 2>&1
check 'a backup from which on changes are noted' $?
begin_to_die
kill_watcher
kill_job
pve-diff-backup revert >$L/revert.log 2>&1
check 'revert' $? "$(tail -3 $L/revert.log)"
[ ! -e /run/qemu-server/200.pve-diff-backup ]
check 'revert ends what a killed backup left' $?
# shellcheck disable=SC2086 # words
vzdump 200 --mode snapshot --storage nas --compress zstd $fleecing >$L/stock.log 2>&1
check 'a stock backup after that' $? "$(tail -3 $L/stock.log)"
guest 200 stop
echo "$passed passed, $failed failed"
[ $failed = 0 ]
