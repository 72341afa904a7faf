#!/bin/bash
# Which full a backup is made against, on a patched host: run as root inside one (a laid-out tree in private namespaces),
# with pve-xdelta3 in /usr/bin and faketime(1). A full that was compressed anew, one that another guest left under the
# number, one without a map, one that is away, and how many of them several jobs a day make. Prints 'check NAME: ok|FAIL'
# lines and a closing count; every step speaks to Proxmox VE's real programs.
set -u -o pipefail
command -v faketime >/dev/null || { echo 'faketime is not installed'; exit 1; }
ok=0; bad=0
D=/var/lib/vz/dump; L=/var/log/choice; mkdir -p $L $D
check() { # NAME RC
	if [ "$2" = 0 ]; then ok=$((ok+1)); echo "check $1: ok"; else bad=$((bad+1)); echo "check $1: FAIL"; tail -15 $L/last.log 2>/dev/null | sed 's/^/    /'; fi; }
run() { "$@" >$L/last.log 2>&1; }                # the output is in last.log
said() { grep -qE -- "$1" $L/last.log; }
packs() { ls -1 $D/vzdump-$1-$2-* 2>/dev/null | grep -vE '\.(log|notes|protected)$' | sort; }
fulls() { packs "$@" | grep -v -- --differential-; }
vol() { echo "local:backup/${1##*/}"; }
type() { [ $1 = 100 ] && echo lxc || echo qemu; }
backup() { # ID [OPTIONS]: with a new second in its name
	sleep 1.1; local id=$1; shift
	run vzdump $id --storage local --mode $([ $id = 100 ] && echo stop || echo snapshot) --compress $C "$@"; }
at() { # DATE ID [OPTIONS]
	local at=$1 id=$2; shift 2
	run faketime "$at" vzdump $id --storage local --mode $([ $id = 100 ] && echo stop || echo snapshot) --compress $C "$@"; }
vzdump help 2>&1 | grep -q zstd && C=zstd || C=gzip
vzdump help 2>&1 | grep -q prune-backups && keep='prune-backups keep-all=1' || keep='maxfiles 0'
printf 'dir: local\n\tpath /var/lib/vz\n\tcontent images,rootdir,backup\n\t%s\n' "$keep" >/etc/pve/storage.cfg

S=/var/lib/vz/images/100/subvol-100-disk-0.subvol
mkdir -p $S/{etc,root,dev,proc,sys,tmp,usr/share,sbin}; echo 9.13 >$S/etc/debian_version
head -c 3000000 /dev/urandom >$S/usr/share/big
I=/var/lib/vz/images/200/vm-200-disk-0.raw; mkdir -p ${I%/*}; truncate -s 16M $I
head -c 4000000 /dev/urandom | dd of=$I conv=notrunc 2>/dev/null
identities() { # N: whose the configurations are; a restore may have given the volumes other numbers
	local rootfs disk; rootfs=$(ls ${S%/*} | grep subvol | tail -1); disk=$(ls ${I%/*} | tail -1)
	printf 'arch: amd64\nhostname: ct%s\nmemory: 512\nnet0: name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:0%s,type=veth\nostype: debian\nrootfs: local:100/%s,size=0T\n' $1 $1 $rootfs >/etc/pve/lxc/100.conf
	printf 'boot: order=scsi0\ncores: 1\nmemory: 512\nname: vm200\nostype: l26\nscsi0: local:200/%s,size=16M\nscsihw: virtio-scsi-pci\nsmbios1: uuid=0000000%s-1111-2222-3333-444444444444\nvmgenid: 1000000%s-1111-2222-3333-444444444444\n' $disk $1 $1 >/etc/pve/qemu-server/200.conf; }
identities 1
guest() {
	/usr/bin/kvm -id 200 -pidfile /var/run/qemu-server/200.pid -daemonize >/dev/null 2>&1
	for _ in $(seq 100); do qm status 200 2>/dev/null | grep -q running && return; sleep 0.2; done; }
stop_guest() { local p; p=$(cat /var/run/qemu-server/200.pid); kill $p; while kill -0 $p 2>/dev/null; do sleep 0.1; done; }
guest

# 1. a full that was compressed anew
for id in 100 200; do t=$(type $id)
	backup $id --fullbackup 7; check $t-full $?
	sed -i 's/^memory: .*/memory: 600/' /etc/pve/lxc/100.conf /etc/pve/qemu-server/200.conf
	head -c 200000 /dev/urandom | dd of=$([ $id = 100 ] && echo $S/usr/share/big || echo $I) bs=1000 seek=1000 conv=notrunc 2>/dev/null
	backup $id --fullbackup 7; check $t-differential $?
	identities 1
	F=$(fulls $t $id); V=$(packs $t $id | tail -1); X=${F%.zst}; X=${X%.gz}
	[[ "$V" = "$F--differential-"* ]]; check $t-pair $?
	if [ $C = zstd ]; then zstd -qd $F -o /var/content; else gzip -dc $F >/var/content; fi
	[ $id = 100 ] && cp $S/usr/share/big /var/then || cp $I /var/then
	for form in '' .lzo .gz .xz .zst; do
		rm -f $F $X
		case $form in '') cp /var/content $X;; .lzo) lzop -c </var/content >$X$form;; .gz) gzip -c </var/content >$X$form;; .xz) xz -0c </var/content >$X$form;; .zst) zstd -qc </var/content >$X$form;; esac
		[ "$form.$C" != .zst.gzip ] || { rm -f $X$form; continue; } # unknown to this release
		if [ "$form" != .xz ]; then
			run pvesm list local; said "${X##*/}$form "; check $t-$form-listed $?
			run pvesm free "$(vol $X$form)"; said 'need it, remove them first' && [ -e $X$form ]; check $t-$form-not-deleted $?
			if [ "$keep" != 'maxfiles 0' ]; then
				run pvesm prune-backups local --keep-last 1; check $t-$form-prune $?
				[ -e $X$form ] && [ -e $V ]; check $t-$form-not-pruned $?; fi; fi
		if pvesm help 2>&1 | grep extractconfig >/dev/null; then run pvesm extractconfig "$(vol $V)"; said '^memory: 600'; check $t-$form-config $?; fi
		new=$((id + 10)); rm -f /etc/pve/{lxc,qemu-server}/$new.conf; rm -rf /var/lib/vz/images/$new
		if [ $id = 100 ]; then
			run pct restore $new "$(vol $V)" --storage local --rootfs local:0; check $t-$form-restore $?
			cmp -s /var/lib/vz/images/$new/*/usr/share/big /var/then; check $t-$form-restored $?
		else
			run qmrestore "$(vol $V)" $new --storage local --unique 1; check $t-$form-restore $?
			cmp -s /var/lib/vz/images/$new/vm-$new-disk-*.raw /var/then; check $t-$form-restored $?; fi
		rm -f $X$form
	done
	# both are there: the old one may go where the other is known to do
	if [ $C = zstd ]; then zstd -qc </var/content >$F; else gzip -c </var/content >$F; fi
	cp /var/content $X; printf x | dd of=$X bs=1 seek=100 conv=notrunc 2>/dev/null
	run pvesm free "$(vol $F)"; said 'need it' && [ -e $F ]; check $t-beside-something-else $?
	rm -rf $D/* /var/content
done

# 2. another guest under the number; the same one restored over itself is the same
for id in 100 200; do t=$(type $id)
	backup $id --fullbackup 7; check $t-first-guest $?
	F=$(fulls $t $id)
	identities 2
	backup $id --fullbackup 7; check $t-second-guest $?
	said "INFO: full backup: '${F##*/}' is another guest's: they differ in"; check $t-second-guest-full $?
	backup $id --fullbackup 7; said 'INFO: differential backup'; check $t-then-differentials $?
	identities 1; rm -rf $D/*
	backup $id --fullbackup 7; F=$(fulls $t $id)
	[ $id = 100 ] && run pct restore 100 "$(vol $F)" --storage local --rootfs local:0 --force 1 || { stop_guest; run qmrestore "$(vol $F)" 200 --storage local --force 1; guest; }
	check $t-restored-over-itself $?
	backup $id --fullbackup 7; said 'INFO: differential backup'; check $t-is-still-itself $?
	rm -rf $D/*
done

# 3. a full without a map
if [ $C = zstd ]; then
	backup 100 --fullbackup 0; F=$(fulls lxc 100)
	echo 'base-without-map: use' >/etc/pve-diff-backup.conf
	backup 100 --fullbackup 7; said 'INFO: differential backup'; check without-map-it-may-serve $?
	V=$(packs lxc 100 | tail -1); rm /etc/pve-diff-backup.conf
	backup 100 --fullbackup 7; said "INFO: full backup: '${F##*/}' has no map"; check without-map-full $?
	backup 100 --fullbackup 0; M=$(fulls lxc 100 | tail -2 | head -1)
	backup 100 --fullbackup 7; said "INFO: differential backup: '${M##*/}' .* has a map, which"; check the-one-with-map $?
	run pct restore 120 "$(vol $V)" --storage local --rootfs local:0; check without-map-restore $?
	rm -rf $D/*
fi
for once in lzo gzip; do
	C=$once; backup 100 --fullbackup 0; backup 100 --fullbackup 7; said 'INFO: differential backup'; check $once-serves $?; rm -rf $D/*
done
vzdump help 2>&1 | grep -q zstd && C=zstd || C=gzip

# 4. a full that is away
backup 100 --fullbackup 7; said 'INFO: full backup: there is no full backup of this guest yet'; check first-backup $?
F=$(fulls lxc 100); backup 100 --fullbackup 7; mv $F /var/
backup 100 --fullbackup 7; said "WARN: full backup: the full backup of 1 differential .*'${F##*/}' back"; check full-is-away $?
rm -rf $D/*

# 5. several jobs a day, and a daily one that is late or early
for day in 01 02 03; do for hour in 02 14; do at "2026-06-$day $hour:00:0$((RANDOM % 10))" 100 --fullbackup 1; done; done
[ "$(fulls lxc 100 | wc -l)" = 3 ]; ls $D >$L/last.log; check one-full-a-day $?
rm -rf $D/*
for day in 01 02 03 04; do at "2026-06-$day 02:0$((RANDOM % 10)):00" 100 --fullbackup 2; done
[ "$(fulls lxc 100 | wc -l)" = 2 ]; ls $D >$L/last.log; check every-second-day $?
stop_guest
echo "choice: $ok passed, $bad failed"
[ $bad = 0 ]
