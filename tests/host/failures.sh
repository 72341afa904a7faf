#!/bin/bash
# What must not happen on a patched host: run as root inside one (a laid-out tree in private namespaces),
# with pve-xdelta3 in /usr/bin.  Prints 'check NAME: ok|FAIL' lines and a closing count; every step speaks
# to Proxmox VE's real programs.
set -u
ok=0; bad=0
D=/var/lib/vz/dump; L=/var/log/failures; mkdir -p $L
node=$(hostname)
check() { # NAME RC
	if [ "$2" = 0 ]; then ok=$((ok+1)); echo "check $1: ok"; else bad=$((bad+1)); echo "check $1: FAIL"; tail -15 $L/last.log 2>/dev/null | sed 's/^/    /'; fi; }
run() { "$@" >$L/last.log 2>&1; }                # the output is in last.log
refused() { # NAME TEXT CMD...: must fail and say TEXT
	local name=$1 text=$2; shift 2
	if run "$@"; then check "$name" 1; else grep -qF -- "$text" $L/last.log; check "$name" $?; fi; }
undeleted() { # NAME TEXT FILE CMD...: FILE stays and TEXT is said (the exit code of a deletion's task is not passed on)
	local name=$1 text=$2 file=$3; shift 3
	run "$@"; grep -qF -- "$text" $L/last.log && [ -e "$file" ]; check "$name" $?; }
packs() { ls -1 $D/vzdump-$1-$2-* 2>/dev/null | grep -vE '\.(log|notes|protected)$' | sort; }
newest() { packs "$@" | tail -1; }
fulls() { packs "$@" | grep -v -- --differential-; }
vol() { echo "local:backup/${1##*/}"; }
disk() { ls /var/lib/vz/images/$1/vm-$1-disk-*.raw | head -1; }   # numbered from 1 before 5.1
nothing_half() { ! ls $D | grep -qE '\.(dat|tmp)$'; }
backup() { # ID [OPTIONS]: with a new second in its name
	sleep 1.1; local id=$1; shift
	run vzdump $id --storage local --mode $([ $id = 100 ] && echo stop || echo snapshot) --compress ${COMPRESS:-zstd} "$@"; }

# what came with the years
storage_can() { perl -MPVE::Storage -e 'exit !PVE::Storage->can($ARGV[0])' "$1" 2>/dev/null; }
storage_can protection_file_path && protect=1 || protect=
grep -q notes /usr/share/perl5/PVE/API2/Storage/Content.pm && notes=1 || notes=
vzdump help 2>&1 | grep -q prune-backups && prune=1 || prune=            # before: maxfiles
[ -e /usr/share/perl5/PVE/Jobs.pm ] && jobs=1 || jobs=                   # before: vzdump.cron
# before: a restore over a container that fails, for whatever reason, leaves its disks but no configuration
[ -n "$protect" ] && keeps_config=1 || keeps_config=
have_compression() { vzdump help 2>&1 | grep -q zstd || [ "$1" != zstd ]; }
have_compression "${COMPRESS:-zstd}" || COMPRESS=lzo
export COMPRESS=${COMPRESS:-zstd}

printf 'dir: local\n\tpath /var/lib/vz\n\tcontent images,rootdir,backup\n\t%s\n' "$([ -n "$prune" ] && echo 'prune-backups keep-all=1' || echo 'maxfiles 0')" >/etc/pve/storage.cfg
S=/var/lib/vz/images/100/subvol-100-disk-0.subvol
mkdir -p $S/{etc,root,dev,proc,sys,tmp,usr/share,sbin}; echo 9.13 >$S/etc/debian_version
head -c 3000000 /dev/urandom >$S/usr/share/big
printf 'arch: amd64\nhostname: ct100\nmemory: 512\nostype: debian\nrootfs: local:100/subvol-100-disk-0.subvol,size=0T\n' >/etc/pve/lxc/100.conf
I=/var/lib/vz/images/200; mkdir -p $I; truncate -s 16M $I/vm-200-disk-0.raw
head -c 4000000 /dev/urandom | dd of=$I/vm-200-disk-0.raw conv=notrunc 2>/dev/null
printf 'boot: order=scsi0\ncores: 1\nmemory: 512\nname: vm200\nostype: l26\nscsi0: local:200/vm-200-disk-0.raw,size=16M\nscsihw: virtio-scsi-pci\n' >/etc/pve/qemu-server/200.conf
# the same program serves the guest again after it was stopped
guest() {
	/usr/bin/kvm -id 200 -pidfile /var/run/qemu-server/200.pid -daemonize >/dev/null 2>&1
	for _ in $(seq 100); do qm status 200 2>/dev/null | grep -q running && return; sleep 0.2; done; }
stop_guest() { local p; p=$(cat /var/run/qemu-server/200.pid); kill $p; while kill -0 $p 2>/dev/null; do sleep 0.1; done; }
guest

# 1. a chain of each guest
for id in 100 200; do backup $id --fullbackup 7; check "backup-$id-1" $?; done
head -c 200000 /dev/urandom | dd of=$S/usr/share/big bs=1000 seek=1000 conv=notrunc 2>/dev/null
head -c 200000 /dev/urandom | dd of=$I/vm-200-disk-0.raw bs=1000 seek=1000 conv=notrunc 2>/dev/null
for id in 100 200; do backup $id --fullbackup 7; check "backup-$id-2" $?; done
grep -q "INFO: differential backup: 'vzdump-qemu-200-" $L/last.log; check reason-in-task-log $?
CF=$(fulls lxc 100); CD=$(newest lxc 100); VF=$(fulls qemu 200); VD=$(newest qemu 200)
[ -n "$CF" ] && [ "$CD" != "$CF" ] && [ -n "$VF" ] && [ "$VD" != "$VF" ]; check chains $?
grep -q "differential backup: " "${VD%.vcdiff*}.log"; check reason-in-log-file $?

# 2. deleting by hand
undeleted free-needed-full "${CD##*/}" $CF pvesm free "$(vol $CF)"
undeleted api-delete-needed-full "${VD##*/}" $VF pvesh delete "/nodes/$node/storage/local/content/$(vol $VF)"

if [ -n "$notes$protect" ]; then
# 3. notes and protection of a differential
run pvesh set "/nodes/$node/storage/local/content/$(vol $CD)" --notes 'my note' ${protect:+--protected 1}; check notes-set $?
grep -q 'my note' "$CD.notes" && { [ -z "$protect" ] || [ -e "$CD.protected" ]; }; check notes-files $?
run pvesh get "/nodes/$node/storage/local/content" --content backup --vmid 100 --output-format json; grep -q '"notes":"my note"' $L/last.log; check notes-listed $?
if [ -n "$protect" ]; then
undeleted free-protected 'protected' $CD pvesm free "$(vol $CD)"
backup 100 --fullbackup 7; check backup-100-3 $?
backup 100 --fullbackup 7 --prune-backups keep-last=1; check backup-100-4-with-prune $?
[ -e $CF ] && [ -e $CD ] && [ $(packs lxc 100 | wc -l) = 3 ]; check protected-keeps-its-full $?
run pvesh set "/nodes/$node/storage/local/content/$(vol $CD)" --protected 0; check unprotect $?
else
backup 100 --fullbackup 7; check backup-100-3 $?; backup 100 --fullbackup 7; check backup-100-4 $?
fi
N=$(newest lxc 100); run pvesh set "/nodes/$node/storage/local/content/$(vol $N)" --notes 'gone soon'; [ -e "$N.notes" ] && [ -e "${N%.vcdiff*}.log" ]; check free-differential-before $?
run pvesm free "$(vol $N)"; [ ! -e "$N" ] && [ ! -e "$N.notes" ] && [ ! -e "${N%.vcdiff*}.log" ] && [ -e "${CF%.tar*}.log" ]; check free-differential-takes-its-own-log $?

fi

# 4. a prune that removes a whole chain: the full goes with all that need it
if [ -n "$prune" ]; then
backup 100; check backup-100-5-full $?
run pvesm prune-backups local --vmid 100 --type lxc --keep-last 1; check prune-chain $?
[ $(packs lxc 100 | wc -l) = 1 ] && [ ! -e "$CD.notes" ] && [ $(ls $D | grep -c 'lxc-100.*\.log') = 1 ]; check prune-chain-leaves-nothing $?
else
# the same by maxfiles
backup 100 --fullbackup 7 --maxfiles 2 --remove 1; check maxfiles-2 $?
[ -e $CF ] && [ $(packs lxc 100 | wc -l) = 3 ]; check maxfiles-keeps-the-full $?
backup 100 --fullbackup 7 --maxfiles 1 --remove 1; check maxfiles-1 $?
[ -e $CF ] && [ $(packs lxc 100 | wc -l) = 2 ] && [ $(ls $D | grep -c 'lxc-100.*\.log') = 2 ]; check maxfiles-removes-differentials $?
refused maxfiles-counts-differentials 'old backup' vzdump 100 --storage local --mode stop --compress lzo --maxfiles 2 --remove 0
backup 100 --maxfiles 1 --remove 1; check maxfiles-chain $?
[ ! -e $CF ] && [ $(packs lxc 100 | wc -l) = 1 ] && [ $(ls $D | grep -c 'lxc-100.*\.log') = 1 ]; check maxfiles-removes-the-chain $?
fi
run pvesm free "$(vol $(fulls lxc 100))"; backup 100 --fullbackup 7; backup 100 --fullbackup 7; CF=$(fulls lxc 100); CD=$(newest lxc 100)

# 5. restore without the full: refused before anything is destroyed
run pct restore 300 "$(vol $CD)" --storage local --rootfs local:0; check restore-300 $?
run qmrestore "$(vol $VD)" 301 --storage local --unique 1; check restore-301 $?
R=$(ls -d /var/lib/vz/images/300/*.subvol); echo mine >$R/root/mine; c301=$(sha256sum <$(disk 301))
cmp $R/usr/share/big $S/usr/share/big && cmp $(disk 301) $I/vm-200-disk-0.raw; check restored-the-same $?
mkdir /var/away; mv $CF $VF /var/away/
refused missing-base-ct "${CF##*/}" pct restore 300 "$(vol $CD)" --storage local --rootfs local:0 --force 1
[ "$(cat $R/root/mine)" = mine ]; check missing-base-ct-untouched $?
if [ -n "$keeps_config" ]; then [ -e /etc/pve/lxc/300.conf ]; check missing-base-ct-config $?; fi
refused missing-base-vm "${VF##*/}" qmrestore "$(vol $VD)" 301 --storage local --force 1
[ "$(sha256sum <$(disk 301))" = "$c301" ]; check missing-base-vm-untouched $?
refused missing-base-config "${VF##*/}" pvesm extractconfig "$(vol $VD)"
refused missing-base-config-ct "${CF##*/}" pvesm extractconfig "$(vol $CD)"
backup 200 --fullbackup 7; check backup-without-base $?; grep -q "WARN: full backup: .*${VF##*/}" $L/last.log; check backup-without-base-is-full $?
pvesm free "$(vol $(newest qemu 200))" >/dev/null 2>&1

# 6. a truncated full, another guest's archive in its place
for kind in truncated replaced; do
	if [ $kind = truncated ]; then
		head -c $(($(stat -c %s /var/away/${VF##*/}) / 2)) /var/away/${VF##*/} >$VF; head -c $(($(stat -c %s /var/away/${CF##*/}) / 2)) /var/away/${CF##*/} >$CF
	else
		cp /var/away/${CF##*/} $VF; cp /var/away/${VF##*/} $CF
	fi
	if run qmrestore "$(vol $VD)" 301 --storage local --force 1; then check $kind-base-vm 1; else check $kind-base-vm 0; fi
	[ "$(sha256sum <$(disk 301))" = "$c301" ]; check $kind-base-vm-untouched $?
	if run pct restore 300 "$(vol $CD)" --storage local --rootfs local:0 --force 1; then check $kind-base-ct 1; else check $kind-base-ct 0; fi
	[ "$(cat $R/root/mine)" = mine ]; check $kind-base-ct-untouched $?
done
head -c 20000 /var/away/${VF##*/} >$VF
backup 200 --fullbackup 7; check backup-on-truncated-base $?; grep -q "WARN: full backup: .*cannot serve as base" $L/last.log; check truncated-base-gives-full $?
pvesm free "$(vol $(newest qemu 200))" >/dev/null 2>&1
: >$VF; backup 200 --fullbackup 7; check backup-on-empty-base $?; grep -q "WARN: full backup: .*is empty" $L/last.log; check empty-base-gives-full $?
pvesm free "$(vol $(newest qemu 200))" >/dev/null 2>&1
mv /var/away/* $D/
run pct restore 300 "$(vol $CD)" --storage local --rootfs local:0 --force 1; check restore-300-again $?
run qmrestore "$(vol $VD)" 301 --storage local --force 1; check restore-301-again $?

# 7. the program is missing or broken: an ordinary full backup, loudly
mv /usr/bin/pve-xdelta3 /var/lib/.pve-xdelta3.away
backup 200 --fullbackup 7; check backup-without-program $?
grep -q 'WARN: .*pve-xdelta3 is missing' $L/last.log && [ "$(newest qemu 200)" != "$VD" ]; check without-program-full $?
zstd -qt "$(newest qemu 200)" 2>/dev/null || [ ${COMPRESS:-zstd} != zstd ]; check without-program-stock $?
refused restore-without-program 'pve-xdelta3' qmrestore "$(vol $VD)" 302 --storage local
rm -f "$(newest qemu 200)"
printf '#!/bin/sh\nexit 3\n' >/usr/bin/pve-xdelta3; chmod 755 /usr/bin/pve-xdelta3
backup 100 --fullbackup 7; check backup-with-broken-program $?; grep -q 'WARN: no differential backup is possible' $L/last.log; check broken-program-full $?
rm -f "$(newest lxc 100)"
mv /var/lib/.pve-xdelta3.away /usr/bin/pve-xdelta3

# 8. a guest or a compressor that fails half-way leaves nothing behind
stop_guest; export FAKE_KVM_BACKUP_FAIL=1; guest; unset FAKE_KVM_BACKUP_FAIL
n=$(packs qemu 200 | wc -l)
if backup 200 --fullbackup 7; then check failing-guest 1; else check failing-guest 0; fi
[ $(packs qemu 200 | wc -l) = $n ] && nothing_half; check failing-guest-leaves-nothing $?
stop_guest; guest
n=$(packs lxc 100 | wc -l)
descendants() { local p; for p in $(ps -o pid= --ppid $1); do echo $p; descendants $p; done; }
sleep 1.1; vzdump 100 --storage local --mode stop --compress $COMPRESS --fullbackup 7 --bwlimit 500 >$L/last.log 2>&1 & v=$!
killed=
for i in $(seq 60); do sleep 0.2; for p in $(descendants $v); do case "$(cat /proc/$p/cmdline 2>/dev/null | tr '\0' ' ')" in */pve-xdelta3\ diff*) sleep 0.5; kill -9 $p && killed=1;; esac; done; [ -n "$killed" ] && break; done
wait $v; [ $? != 0 ] && [ -n "$killed" ]; check killed-compressor $?
[ $(packs lxc 100 | wc -l) = $n ] && nothing_half; check killed-compressor-leaves-nothing $?

# 9. restore with a read limit
limit="--bwlimit 20000"; qmrestore help 2>&1 | grep -q bwlimit || limit=
run qmrestore "$(vol $VD)" 303 --storage local --unique 1 $limit; check restore-limited-vm $?
cmp -s $(disk 301) $(disk 303); check restore-limited-vm-same $?
run pct restore 304 "$(vol $CD)" --storage local --rootfs local:0 $limit; check restore-limited-ct $?
cmp -s /var/lib/vz/images/304/*.subvol/usr/share/big $S/usr/share/big; check restore-limited-ct-same $?

# 10. the option in vzdump.conf, in jobs, and off
echo 'fullbackup: 7' >/etc/vzdump.conf
backup 200; check conf $?; grep -q 'INFO: differential backup' $L/last.log; check conf-is-differential $?
backup 200 --fullbackup 0; check conf-overridden $?; [[ "$(newest qemu 200)" != *--differential-* ]]; check option-0-is-stock $?; ! grep -q 'full backup\|differential' $L/last.log; check option-0-is-silent $?
rm -f /etc/vzdump.conf
refused out-of-range '365' vzdump 200 --storage local --fullbackup 366
vzdump 200 --stdout 1 --fullbackup 7 --mode snapshot >/var/stdout.vma 2>$L/last.log; check stdout $?; [ "$(head -c 3 /var/stdout.vma)" = VMA ]; check stdout-is-plain $?
if [ -n "$jobs" ]; then
mkdir -p /var/lib/pve-manager/jobs
run pvesh create /cluster/backup --id job1 --schedule '03:00' --vmid 200 --storage local --fullbackup 7; check job-create $?
run grep -A12 'job1' /etc/pve/jobs.cfg; grep -q 'fullbackup 7' $L/last.log; check job-stored $?
run pvesh set /cluster/backup/job1 --schedule 03:00 --fullbackup 14; check job-set $?; run pvesh get /cluster/backup/job1 --output-format json; grep -qE '"fullbackup":"?14' $L/last.log; check job-get $?
run pvesh set /cluster/backup/job1 --schedule 03:00 --mode snapshot --delete fullbackup; check job-delete-option $?; ! grep -q fullbackup /etc/pve/jobs.cfg; check job-option-gone $?
else
run pvesh create /cluster/backup --dow mon --starttime 03:00 --vmid 200 --storage local --fullbackup 7; check job-create $?
grep -q 'vzdump .*--fullbackup 7' /etc/pve/vzdump.cron; check job-stored $?
json() { pvesh get "$1" --output-format json 2>/dev/null || pvesh get "$1" 2>/dev/null; } # pvesh knew nothing else before 5.2
job() { json /cluster/backup | grep -oE '"id" ?: ?"[^"]+' | cut -d'"' -f4; } # a digest of the file
same="--dow mon --starttime 03:00 --vmid 200 --storage local"
run pvesh set /cluster/backup/$(job) $same --fullbackup 14; check job-set $?; run json /cluster/backup/$(job); grep -qE '"fullbackup" ?: ?"?14' $L/last.log; check job-get $?
run pvesh set /cluster/backup/$(job) $same --delete fullbackup; check job-delete-option $?; ! grep -q fullbackup /etc/pve/vzdump.cron; check job-option-gone $?
fi
stop_guest

# 11. a VM without disks: the compressor runs within a shell that vma starts
printf 'cores: 1\nmemory: 512\nname: diskless\nostype: l26\n' >/etc/pve/qemu-server/210.conf
for i in 1 2; do sed -i "s/memory: .*/memory: $((600 + i))/" /etc/pve/qemu-server/210.conf; backup 210 --fullbackup 7; check diskless-backup-$i $?; done
[[ "$(newest qemu 210)" == *--differential-* ]]; check diskless-differential $?
run pvesm extractconfig "$(vol $(newest qemu 210))"; grep -q '^memory: 602' $L/last.log; check diskless-config $?
run qmrestore "$(vol $(newest qemu 210))" 211 --storage local; check diskless-restore $?; grep -q '^memory: 602' /etc/pve/qemu-server/211.conf; check diskless-restored $?
echo "failures: $ok passed, $bad failed"
[ $bad = 0 ]
