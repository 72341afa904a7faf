#!/bin/bash
# What storages, clocks and other nodes do to a chain of backups: run as root inside a patched host (a laid-out tree in private
# namespaces), with pve-xdelta3, pve-diff-backup and pve-verify-backups in /usr/bin, and faketime(1). A storage that is not
# mounted or goes away, two nodes that back up the same guest to one storage, both changes of daylight saving time, several
# backups a day, a full that is renamed, jobs that are killed at any moment, a full disk, a differential that is made a full.
# After each: nothing is lost, nothing wrong is called good, nothing piles up. Prints 'check NAME: ok|FAIL' lines and a closing
# count; every step speaks to Proxmox VE's real programs.
set -u -o pipefail
command -v faketime >/dev/null || { echo 'faketime is not installed'; exit 1; }
ok=0; bad=0
D=/var/lib/vz/dump; L=/var/log/faults; mkdir -p $L $D
check() { # NAME RC
	if [ "$2" = 0 ]; then ok=$((ok+1)); echo "check $1: ok"; else bad=$((bad+1)); echo "check $1: FAIL"; tail -15 $L/last.log 2>/dev/null | sed 's/^/    /'; fi; }
run() { "$@" >$L/last.log 2>&1; }                # the output is in last.log
says() { grep -qE -- "$1" $L/last.log; }
packs() { ls -1d $D/vzdump-$1-$2-* 2>/dev/null | grep -vE '\.(log|notes|protected|dat|tmp)$' | sort; }
fulls() { packs "$@" | grep -v -- --differential-; }
differentials() { packs "$@" | grep -- --differential-; }
left() { ls $D/*.dat 2>/dev/null; }
folders() { ls -d $D/*.tmp 2>/dev/null; } # vzdump's, one for each backup while it is made
untold() { for it in $(folders); do [ ! -e $it/pve-diff-backup.unfinished ] && grep -q "'${it##*/}' is the folder of another backup" $L/next.log || echo $it; done; }
vol() { echo "$Q:backup/${1##*/}"; }
desc() { local p; for p in $(ps -o pid= --ppid $1); do echo $p; desc $p; done; }
vzdump help 2>&1 | grep -q zstd && C=zstd || C=lzo
vzdump help 2>&1 | grep -q prune-backups && prune=1 || prune=
keep() { [ -n "$prune" ] && echo "--prune-backups keep-last=$1" || echo "--maxfiles $1 --remove 1"; }
mode() { [ "$1" = 100 ] && echo stop || echo snapshot; }
Q=local N=7
want() { [[ " ${FAULTS:-1 2 3 4 5 6 7 8} " == *" $1 "* ]]; } # by the numbers below
backup() { # ID [OPTIONS]: with a new second in its name
	sleep 1.1; local id=$1; shift; run vzdump $id --storage $Q --mode $(mode $id) --compress $C --fullbackup $N "$@"; }
at() { # SECONDS-SINCE-1970 ID [OPTIONS]: at a faked time
	local at=$1 id=$2; shift 2
	FAKETIME_FMT=%s run faketime -f "@$at" vzdump $id --storage $Q --mode $(mode $id) --compress $C --fullbackup $N "$@"; }
forget() { rm -f /run/vzdump.lock; sed -i '/^lock/d' /etc/pve/lxc/100.conf /etc/pve/qemu-server/200.conf; }
all_good() { run pve-verify-backups --all $D; }  # every full and differential that is here restores
clean() { rm -rf $D/*; }

keepall="$([ -n "$prune" ] && echo 'prune-backups keep-all=1' || echo 'maxfiles 0')"
storages() { # what storage.cfg has besides
	printf "dir: local\n\tpath /var/lib/vz\n\tcontent images,rootdir,backup\n\t$keepall\n\n$1" >/etc/pve/storage.cfg; }
storages ''
S=/var/lib/vz/images/100/subvol-100-disk-0.subvol; mkdir -p $S/{etc,root,dev,proc,sys,tmp,usr/share,sbin,var/lib}; echo 9.13 >$S/etc/debian_version
head -c 3000000 /dev/urandom >$S/usr/share/big
printf 'arch: amd64\nhostname: ct100\nmemory: 512\nostype: debian\nrootfs: local:100/subvol-100-disk-0.subvol,size=0T\n' >/etc/pve/lxc/100.conf
I=/var/lib/vz/images/200; mkdir -p $I; truncate -s 16M $I/vm-200-disk-0.raw; head -c 3000000 /dev/urandom | dd of=$I/vm-200-disk-0.raw conv=notrunc 2>/dev/null
printf 'boot: order=scsi0\ncores: 1\nmemory: 512\nname: vm200\nostype: l26\nscsi0: local:200/vm-200-disk-0.raw,size=16M\nscsihw: virtio-scsi-pci\n' >/etc/pve/qemu-server/200.conf
/usr/bin/kvm -id 200 -pidfile /var/run/qemu-server/200.pid -daemonize >/dev/null 2>&1; for _ in $(seq 100); do qm status 200 2>/dev/null | grep -q running && break; sleep 0.2; done
change() { for f in $S/usr/share/big $I/vm-200-disk-0.raw; do head -c ${2:-100000} /dev/urandom | dd of=$f bs=1000 seek=$((100 * $1)) conv=notrunc 2>/dev/null; done; }
same_ct() { # ARCHIVE: it restores to what the container has now
	rm -rf /etc/pve/lxc/300.conf /var/lib/vz/images/300
	run pct restore 300 "$(vol $1)" --storage local --rootfs local:0 && cmp $S/usr/share/big /var/lib/vz/images/300/*.subvol/usr/share/big >>$L/last.log 2>&1; }
same_vm() { # ARCHIVE
	rm -rf /etc/pve/qemu-server/301.conf /var/lib/vz/images/301
	run qmrestore "$(vol $1)" 301 --storage local --unique 1 && cmp $I/vm-200-disk-0.raw /var/lib/vz/images/301/vm-301-disk-*.raw >>$L/last.log 2>&1; }

# The helper, with something done while it reads the stream.
mv /usr/bin/pve-xdelta3 /usr/bin/pve-xdelta3.real
cat >/usr/bin/pve-xdelta3 <<'X'
#!/bin/bash
case $1 in full | diff) ;; *) exec /usr/bin/pve-xdelta3.real "$@" ;; esac
[ -e /var/during ] || exec /usr/bin/pve-xdelta3.real "$@"
(head -c 2000000; . /var/during >>/var/log/faults/during 2>&1; cat) | /usr/bin/pve-xdelta3.real "$@"
exit ${PIPESTATUS[1]}
X
chmod 755 /usr/bin/pve-xdelta3
waits() { for _ in $(seq 1200); do [ -e /var/in ] && return; sleep 0.1; done; return 1; } # for a helper that waits
mount --make-rshared / # as systemd leaves it: what is unmounted is so for jobs, too, which have a view of their own

# 1. A storage that is not mounted, and one that goes away while a job writes.
if want 1; then
M=/var/mnt-usb; mkdir -p /var/usb $M
for told in yes ''; do
	storages "dir: usb\n\tpath $M\n\tcontent backup\n\t$keepall\n${told:+\tis_mountpoint yes\n}"
	Q=usb D=$M/dump; name=mounted-${told:-no}
	mount --bind /var/usb $M; mkdir -p $D; clean
	backup 100; check $name-full $?; change 1; backup 100; says 'INFO: differential backup:'; check $name-differential $?; had=$(packs lxc 100)
	umount $M; change 2; backup 100 $(keep 1); rc=$?
	if [ -n "$told" ]; then
		[ $rc != 0 ] && [ -z "$(packs lxc 100)$(left)" ]; check $name-away-fails $?
	else
		[ $rc = 0 ] && says 'INFO: full backup: there is no full backup of this guest yet'; check $name-away-full $?
		backup 100 $(keep 1); check $name-away-again $?; [ "$(fulls lxc 100 | wc -l)" = 1 ] && all_good; check $name-away-bounded $?
	fi
	[ -z "$told" ] || { run pve-diff-backup doctor; says "Storage usb: nothing is mounted at $M"; check $name-doctor $?; }
	mountpoint -q $M || { [ ! -d $D ] || rm -rf $D; mount --bind /var/usb $M; }
	[ "$(packs lxc 100)" = "$had" ] && all_good; check $name-back $?
	change 3; backup 100; says 'INFO: differential backup:'; check $name-goes-on $?; same_ct $(packs lxc 100 | tail -1); check $name-restores $?
	# it goes while the data flows
	rm -f /var/go /var/in; echo 'touch /var/in; while [ ! -e /var/go ]; do sleep 0.1; done' >/var/during
	sleep 1.1; vzdump 100 --storage usb --mode stop --compress $C --fullbackup 7 >$L/last.log 2>&1 & p=$!
	waits; umount -l $M; touch /var/go; wait $p; rc=$?; rm /var/during
	[ $rc != 0 ] && [ -z "$(packs lxc 100)" ]; check $name-goes-in-between-fails $?
	mountpoint -q $M || { [ ! -d $D ] || rm -rf $D; mount --bind /var/usb $M; }; change 4; backup 100; says 'INFO: differential backup:'; check $name-next $?
	[ -z "$(left)" ] && all_good; check $name-nothing-left $?
	umount $M
done
storages ''; Q=local D=/var/lib/vz/dump
fi

# 2. Two nodes that back up the same guest to one storage. The other has its own name, identity, processes, locks and
# cluster, as a second cluster or a node whose lock was lost.
if want 2; then
printf 'cafecafecafecafecafecafecafecafe\n' >/var/other-id; cp -a /etc/pve /var/other-pve; mkdir -p /var/other-run
mkdir -p /var/other-pve/nodes; mv /var/other-pve/nodes/$(hostname) /var/other-pve/nodes/other
for link in local qemu-server lxc; do ln -sfn "$(readlink /var/other-pve/$link | sed "s!nodes/$(hostname)!nodes/other!")" /var/other-pve/$link; done
other() { # COMMAND...: on the other node
	unshare --mount --uts --pid --fork --mount-proc bash -c 'hostname other; mount --bind /var/other-id /etc/machine-id; mount --bind /var/other-pve /etc/pve
		mount -t tmpfs none /run; mkdir -p /run/{lock,lock/lxc,qemu-server,pve,lxc,pve-cluster}; exec "$@"' other "$@"; }
[ -e /etc/machine-id ] || touch /etc/machine-id
clean; backup 100; F=$(fulls lxc 100); change 5
rm -f /var/go /var/in; echo 'touch /var/in; while [ ! -e /var/go ]; do sleep 0.1; done' >/var/during
vzdump 100 --storage local --mode stop --compress $C --fullbackup 7 >$L/here.log 2>&1 & p=$!
waits; check two-nodes-writing $?
if [ -n "$prune" ]; then other pvesm prune-backups local --keep-last 1 >$L/last.log 2>&1; [ -e $F ]; check two-nodes-prune-keeps $?; fi
other pvesm free $(vol $F) >$L/last.log 2>&1; [ -e $F ] && says 'a backup is being made that needs it'; check two-nodes-free-refused $?
mv /var/during /var/later; other vzdump 100 --storage local --mode stop --compress $C --fullbackup 7 $(keep 1) >$L/last.log 2>&1; check two-nodes-other-works $?
[ -e $F ] && [ "$(left | wc -l)" = 1 ]; check two-nodes-nothing-taken-away $?
touch /var/go; wait $p; check two-nodes-first-works $?
[ -z "$(left)" ] && [ "$(fulls lxc 100)" = "$F" ] && [ "$(differentials lxc 100 | wc -l)" -ge 1 ] && all_good; check two-nodes-all-good $?
# begun in the same second
clean; rm -f /var/same; echo "while [ \$(ls $D/*.dat | wc -l) -lt 2 ] && [ ! -s /var/same ]; do sleep 0.1; done" >/var/during
for who in here other; do
	go=(env FAKETIME_FMT=%s faketime -f 1780279200 vzdump 100 --storage local --mode stop --compress $C --fullbackup 7)
	[ $who = here ] || go=(other "${go[@]}")
	("${go[@]}" >$L/same-$who 2>&1; echo $who $? >>/var/same) &
done
for _ in $(seq 3000); do [ -e /var/same ] && [ "$(wc -l </var/same)" = 2 ] && break; sleep 0.1; done; rm -f /var/during; forget
cat $L/same-* /var/same >$L/last.log; ls $D >>$L/last.log
[ "$(grep -c ' 0$' /var/same)" = 1 ] && says 'another node has made a backup of the same second' && [ "$(fulls lxc 100 | wc -l)" = 1 ] && [ -z "$(left)" ] && all_good; check two-nodes-same-second $?
# one that is killed on the other node
clean; backup 100; F=$(fulls lxc 100); rm -f /var/in; echo 'touch /var/in; sleep 100' >/var/during
unshare --mount --uts --pid --fork --mount-proc --kill-child bash -c 'hostname other; mount --bind /var/other-id /etc/machine-id; mount --bind /var/other-pve /etc/pve; mount -t tmpfs none /run; mkdir -p /run/{lock,lock/lxc,qemu-server,pve,lxc,pve-cluster}
	exec vzdump 100 --storage local --mode stop --compress '$C' --fullbackup 7' >$L/other.log 2>&1 & p=$!
waits; rm -f /var/during; kill -9 $(desc $p) $p 2>/dev/null; wait $p 2>/dev/null; sleep 0.5; forget; sed -i '/^lock/d' /var/other-pve/lxc/100.conf
[ "$(left | wc -l)" = 1 ]; check other-killed-left $?
backup 100 $(keep 1); rc=$?; [ $rc = 0 ] && says "WARN: '.*\.dat' is unfinished, of node other-" && [ -e $F ]; check other-killed-told $?
other vzdump 100 --storage local --mode stop --compress $C --fullbackup 7 >$L/last.log 2>&1; says "INFO: removed '.*\.dat', which a killed backup had left" && [ -z "$(left)" ] && all_good; check other-killed-cleared $?
fi

# 3. Daylight saving time, in both directions: daily jobs at 02:30, then one each hour of that night.
if want 3; then
export TZ=Europe/Berlin
clean; N=1; for day in '2026-03-27 02:30' '2026-03-28 02:30' '2026-03-29 03:00' '2026-03-30 02:30' '2026-03-31 02:30'; do change 6; at $(date -d "$day" +%s) 100; check "spring-$day" $?; done
[ "$(fulls lxc 100 | wc -l)" = 5 ] && all_good; ls $D >>$L/last.log; check spring-one-full-a-day $?
clean; for day in '2026-10-23 02:30 CEST' '2026-10-24 02:30 CEST' '2026-10-25 02:30 CEST' '2026-10-25 02:30 CET' '2026-10-26 02:30 CET' '2026-10-27 02:30 CET'; do change 7; at $(date -d "$day" +%s) 100; check "autumn-$day" $?; done
[ "$(fulls lxc 100 | wc -l)" = 5 ] && [ "$(packs lxc 100 | wc -l)" = 6 ] && all_good; ls $D >>$L/last.log; check autumn-one-full-a-day $?
for night in 1774735200 1792872000; do
	clean; N=7; for hour in 0 1 2 3 4 5 6; do change $((hour + 1)); at $((night + 3600 * hour + 600)) 100; check "hourly-$night-$hour" $?; done
	[ "$(fulls lxc 100 | wc -l)" = 1 ] && [ "$(differentials lxc 100 | wc -l)" = 6 ] && all_good; ls $D >>$L/last.log; check hourly-$night-all-there $?
	same_ct $(TZ= ls -t $D/*.vcdiff* | head -1); check hourly-$night-restores $?
	at $((night + 3600 * 8)) 100 $(keep 2); [ "$(packs lxc 100 | wc -l)" = 3 ] && all_good; ls $D >>$L/last.log; check hourly-$night-pruned $?
done
unset TZ
fi

# 4. Several backups a day with N=1: one full a day, not two.
if want 4; then
clean; N=1; day=1780272000
for n in 0 1 2; do for hour in 2 8 14 20; do at $((day + n * 86400 + hour * 3600 + RANDOM % 300)) 100 $(keep 6); done; done
[ "$(fulls lxc 100 | wc -l)" = 2 ] && [ "$(packs lxc 100 | wc -l)" -le 8 ] && all_good; ls $D >>$L/last.log; check several-a-day $?
N=7
fi

# 5. A full that is renamed, and gets its name back.
if want 5; then
for id in 100 200; do t=$([ $id = 100 ] && echo lxc || echo qemu)
	clean; backup $id; F=$(fulls $t $id); change 8; backup $id; V=$(differentials $t $id)
	X=$F.old; mv $F $X; backup $id $(keep 1); rc=$?; [ $rc = 0 ] && [ -e $V ]; check renamed-$id-differential-stays $?
	run pve-verify-backups $D; rc=$?; [ $rc = 1 ] && says "FAIL  ${V##*/}: its full backup"; check renamed-$id-is-not-called-good $?
	[ -e $X ] && mv $X $F && run pve-verify-backups $V; check renamed-$id-back $?
	all_good; check renamed-$id-all-good $?
done
fi

# 6. Jobs that are killed at any moment. vzdump's folder of such a job goes with the guest's next one; where the job was killed
# before it had told whose the folder is, that one names it.
restart() { # the VM, whose QEMU still writes the backup
	printf '{"execute":"qmp_capabilities"}\n{"execute":"backup-cancel"}\n' | timeout 2 socat - UNIX:/var/run/qemu-server/200.qmp >/dev/null 2>&1
	kill "$(cat /var/run/qemu-server/200.pid)" 2>/dev/null; sleep 1
	/usr/bin/kvm -id 200 -pidfile /var/run/qemu-server/200.pid -daemonize >/dev/null 2>&1; for _ in $(seq 100); do qm status 200 2>/dev/null | grep -q running && break; sleep 0.2; done; }
if want 6; then
clean; backup 200; rm -f /var/in; echo 'touch /var/in; sleep 100' >/var/during
sleep 1.1; vzdump 200 --storage local --mode snapshot --compress $C --fullbackup 7 >$L/last.log 2>&1 & p=$!
waits; rm -f /var/during; run pve-verify-backups --orphans $D; [ $? = 0 ] && [ "$(folders | wc -l)" = 1 ]; check written-folder-is-none-left $?
kill -9 $(desc $p) $p 2>/dev/null; wait $p 2>/dev/null; sleep 0.5; forget; restart
F=$(folders); run pve-verify-backups --orphans $D; rc=$?; [ $rc = 1 ] && says "^LEFTOVER +${F##*/} .*the guest's next job with differentials removes it"; check killed-folder-told $?
run pve-diff-backup chains $D; says "${F##*/}.* a killed backup left this folder"; check killed-folder-in-chains $?
backup 200; rc=$?; [ $rc = 0 ] && says "INFO: removed '${F##*/}', which a killed backup had left" && [ -z "$(left)$(folders)" ] && all_good; check killed-folder-goes $?
clean; backup 100; backup 200
for delay in 0.4 1 1.6 2.4 4; do for id in 100 200; do
	change 9; had=$(packs lxc 100; packs qemu 200); sleep 1.1
	vzdump $id --storage local --mode $(mode $id) --compress $C --fullbackup 7 >$L/last.log 2>&1 & p=$!
	sleep $delay; kill -9 $(desc $p) $p 2>/dev/null; wait $p 2>/dev/null; sleep 0.3; forget
	[ $id = 100 ] || printf '{"execute":"qmp_capabilities"}\n{"execute":"backup-cancel"}\n' | timeout 2 socat - UNIX:/var/run/qemu-server/200.qmp >/dev/null 2>&1
	for one in $had; do [ -e $one ] || { echo "$one is gone" >>$L/last.log; check killed-$delay-$id 1; }; done
	all_good; check killed-$delay-$id-all-good $?
done; done
restart; rm -f $L/next.log
for id in 100 200; do backup $id $(keep 2); check killed-then-$id $?; cat $L/last.log >>$L/next.log; done
[ -z "$(left)$(untold)" ] && all_good; ls $D >>$L/last.log; check killed-nothing-left $?
[ "$(packs lxc 100 | wc -l)" -le 3 ] && [ "$(packs qemu 200 | wc -l)" -le 3 ]; check killed-nothing-piles-up $?
fi

# 7. A disk that is full at the end.
if want 7; then
mkdir -p /var/small; mount -t tmpfs -o size=5M none /var/small; mkdir -p /var/small/dump
storages "dir: small\n\tpath /var/small\n\tcontent backup\n\t$keepall\n"; Q=small D=/var/small/dump
backup 100; check full-disk-full $?; F=$(fulls lxc 100)
head -c 3000000 /dev/urandom >$S/usr/share/big; backup 100; rc=$?
[ $rc != 0 ] && [ -z "$(differentials lxc 100)$(left)" ] && all_good; check full-disk-fails $?
backup 100; rc=$?; [ $rc != 0 ] && [ "$(packs lxc 100)" = "$F" ] && all_good; check full-disk-fails-again $?
zstd -dcq $F 2>/dev/null | tar -xO ./usr/share/big >$S/usr/share/big 2>/dev/null; change 1
backup 100; says 'INFO: differential backup:' && all_good; check full-disk-less-fits $?
V=$(differentials lxc 100); run pve-diff-backup consolidate $V; rc=$?; [ $rc = 1 ] && says 'and [0-9]+ are free: make room' && [ -e $V ] && [ "$(packs lxc 100 | wc -l)" = 2 ]; check full-disk-consolidate-refused $?
umount /var/small; storages ''; Q=local D=/var/lib/vz/dump
fi

# 8. A differential that is made a full: stock code lists and restores it.
if want 8; then
if [ $C = zstd ]; then
	for id in 100 200; do t=$([ $id = 100 ] && echo lxc || echo qemu)
		clean; backup $id; F=$(fulls $t $id); change 2; backup $id; V=$(differentials $t $id)
		echo 'before the upgrade' >$V.notes; touch $V.protected; day=${V##*--differential-}; X=$D/vzdump-$t-$id-${day%%.*}.$([ $id = 100 ] && echo tar || echo vma).zst
		change 3; backup $id
		run pve-diff-backup consolidate --all-of $id --remove-full local; check consolidate-$id $?
		[ -e $X ] && [ ! -e $F ] && [ -z "$(differentials $t $id)$(left)" ] && [ "$(fulls $t $id | wc -l)" = 2 ]; ls $D >>$L/last.log; check consolidate-$id-files $?
		run pvesm list local; says "${X##*/} "; check consolidate-$id-listed $?
		if grep -q protected /usr/share/perl5/PVE/Storage/Plugin.pm; then run pvesh get /nodes/$(hostname)/storage/local/content --output-format json-pretty; grep -A12 -B12 "${X##*/}" $L/last.log | grep -q 'before the upgrade' && grep -A12 -B12 "${X##*/}" $L/last.log | grep -q '"protected"'; check consolidate-$id-notes-protection $?
			run pvesm free $(vol $X); [ -e $X ]; check consolidate-$id-protected $?; fi
		G=$(fulls $t $id | tail -1); if [ $id = 100 ]; then same_ct $G; else same_vm $G; fi; check consolidate-$id-restores $?
		change 4; backup $id; says "INFO: differential backup: '${G##*/}'"; check consolidate-$id-serves $?
		all_good; check consolidate-$id-all-good $?
		backup $id; run pve-diff-backup doctor; says "^$t/$id +20[0-9-]+ [0-9:]+ differential .*'${G##*/}' is"; check doctor-$id-last-run $?
		says '^local +dir .*  [12] +'; check doctor-$id-storage $?
		# by stock code alone
		mv /usr/bin/pve-xdelta3 /usr/bin/away; if [ $id = 100 ]; then same=$(rm -rf /etc/pve/lxc/300.conf /var/lib/vz/images/300; pct restore 300 "$(vol $G)" --storage local --rootfs local:0 >$L/last.log 2>&1; echo $?); else same=$(rm -rf /etc/pve/qemu-server/301.conf /var/lib/vz/images/301; qmrestore "$(vol $G)" 301 --storage local --unique 1 >$L/last.log 2>&1; echo $?); fi; mv /usr/bin/away /usr/bin/pve-xdelta3; check consolidate-$id-stock $same
	done
fi
fi

kill "$(cat /var/run/qemu-server/200.pid)" 2>/dev/null
mv /usr/bin/pve-xdelta3.real /usr/bin/pve-xdelta3
echo "faults: $ok passed, $bad failed"
[ $bad = 0 ]
