#!/bin/bash
# Backups that are killed, and fulls that go away while they are needed: run as root inside a patched host (a laid-out
# tree in private namespaces), with pve-xdelta3 and pve-diff-backup in /usr/bin.  Prints 'check NAME: ok|FAIL' lines and
# a closing count; every step speaks to Proxmox VE's real programs.
set -u
ok=0; bad=0
D=/var/lib/vz/dump; L=/var/log/life; mkdir -p $L $D
check() { # NAME RC
	if [ "$2" = 0 ]; then ok=$((ok+1)); echo "check $1: ok"; else bad=$((bad+1)); echo "check $1: FAIL"; tail -15 $L/last.log 2>/dev/null | sed 's/^/    /'; fi; }
run() { "$@" >$L/last.log 2>&1; }                # the output is in last.log
says() { grep -qE -- "$1" $L/last.log; }
packs() { ls -1 $D/vzdump-$1-$2-* 2>/dev/null | grep -vE '\.(log|notes|protected|tmp)$' | sort; }
fulls() { packs "$@" | grep -v -- --differential-; }
differentials() { packs "$@" | grep -- '--differential-.*\.vcdiff\.[a-z]*$' | grep -v '\.dat$'; }
left() { ls $D/*.dat 2>/dev/null; }
vol() { echo "local:backup/${1##*/}"; }
type_of() { [ "$1" = 100 ] && echo lxc || echo qemu; }
mode() { [ "$1" = 100 ] && echo stop || echo snapshot; }
desc() { local p; for p in $(ps -o pid= --ppid $1); do echo $p; desc $p; done; }
vzdump help 2>&1 | grep -q zstd && C=zstd || C=lzo
vzdump help 2>&1 | grep -q prune-backups && prune=1 || prune=
keep1() { [ -n "$prune" ] && echo "--prune-backups keep-last=1" || echo "--maxfiles 1 --remove 1"; }
at() { # DATE ID [OPTIONS]: at a faked time
	local at=$1 id=$2; shift 2; run faketime "$at" vzdump $id --storage local --mode $(mode $id) --compress $C --fullbackup 4 "$@"; }
now() { # ID: a new second in its name
	sleep 1.1; run vzdump $1 --storage local --mode $(mode $1) --compress $C --fullbackup 4; }
forget() { rm -f /run/vzdump.lock; sed -i '/^lock/d' /etc/pve/lxc/100.conf /etc/pve/qemu-server/200.conf; }

printf 'dir: local\n\tpath /var/lib/vz\n\tcontent images,rootdir,backup\n\t%s\n' "$([ -n "$prune" ] && echo 'prune-backups keep-all=1' || echo 'maxfiles 0')" >/etc/pve/storage.cfg
S=/var/lib/vz/images/100/subvol-100-disk-0.subvol; mkdir -p $S/{etc,root,dev,proc,sys,tmp,usr/share,sbin,var/lib}; echo 9.13 >$S/etc/debian_version
head -c 6000000 /dev/urandom >$S/usr/share/big
printf 'arch: amd64\nhostname: ct100\nmemory: 512\nostype: debian\nrootfs: local:100/subvol-100-disk-0.subvol,size=0T\n' >/etc/pve/lxc/100.conf
I=/var/lib/vz/images/200; mkdir -p $I; truncate -s 16M $I/vm-200-disk-0.raw; head -c 6000000 /dev/urandom | dd of=$I/vm-200-disk-0.raw conv=notrunc 2>/dev/null
printf 'boot: order=scsi0\ncores: 1\nmemory: 512\nname: vm200\nostype: l26\nscsi0: local:200/vm-200-disk-0.raw,size=16M\nscsihw: virtio-scsi-pci\n' >/etc/pve/qemu-server/200.conf
guest() { /usr/bin/kvm -id 200 -pidfile /var/run/qemu-server/200.pid -daemonize >/dev/null 2>&1; for _ in $(seq 100); do qm status 200 2>/dev/null | grep -q running && return; sleep 0.2; done; }
change() { for f in $S/usr/share/big $I/vm-200-disk-0.raw; do head -c 300000 /dev/urandom | dd of=$f bs=1000 seek=$((200 * $1)) conv=notrunc 2>/dev/null; done; }

# The helper, with something done before it makes a differential, and something while it reads the stream.
mv /usr/bin/pve-xdelta3 /usr/bin/pve-xdelta3.real
cat >/usr/bin/pve-xdelta3 <<'X'
#!/bin/bash
[ "$1" = diff ] || exec /usr/bin/pve-xdelta3.real "$@"
[ ! -e /var/before ] || . /var/before >/var/log/life/before 2>&1
[ -e /var/during ] || exec /usr/bin/pve-xdelta3.real "$@"
(head -c 2000000; . /var/during >/var/log/life/during 2>&1; cat) | /usr/bin/pve-xdelta3.real "$@"
exit ${PIPESTATUS[1]}
X
chmod 755 /usr/bin/pve-xdelta3
fresh() { rm -rf $D/* /var/before /var/during; }

# 1. A container's job that is killed, then nights with a retention rule.
fresh; at '2026-11-01 02:00:00' 100; check full $?
echo 'sleep 30' >/var/during
faketime '2026-11-02 02:00:00' vzdump 100 --storage local --mode stop --compress $C --fullbackup 4 >$L/killed 2>&1 & p=$!
for _ in $(seq 300); do [ -e $L/during ] && break; sleep 0.1; done
old=$(fulls lxc 100); run pvesm free $(vol $old); [ -e $old ] && says 'a backup is being made that needs it'; check full-in-use-is-refused $?
kill -9 $p $(desc $p) 2>/dev/null; wait $p 2>/dev/null; sleep 0.5; forget; rm -f /var/during $L/during
[ -n "$(left)" ]; check something-is-left $?
run pve-verify-backups $D; says '^LEFT .*\.dat: a killed backup left it'; check verify-names-it $?
run pve-diff-backup doctor; says 'Storage local: .*\.dat: a killed backup left it'; check doctor-names-it $?
if [ -n "$prune" ]; then
	cp $old $D/vzdump-lxc-100-2026_11_01-03_00_00.tar.$([ $C = zstd ] && echo zst || echo lzo)
	dry="pvesm prune-backups local --vmid 100 --type lxc --keep-last 1"
	run $dry --dry-run 1; says "${old##*/} .*remove|remove.*${old##*/}"; check dry-run-removes $?
	run $dry; rc=$?; [ $rc = 0 ] && [ ! -e $old ]; check prune-removes $?
	mv $D/vzdump-lxc-100-2026_11_01-03_00_00.tar.* $old; touch $D/keep
fi
for night in 03 06 07; do change 1; at "2026-11-$night 02:00:00" 100 $(keep1); check night-$night $?; [ $night != 03 ] || { says "INFO: removed '.*\.dat', which a killed backup had left"; check leftover-is-removed $?; }; done
[ -z "$(left)" ] && [ -z "$(ls $D | grep 2026_11_01)" ]; check old-chain-is-gone $?

# 2. A full that is away for a while.
for id in 100 200; do [ $id = 100 ] || guest; t=$(type_of $id)
	fresh; at '2026-11-01 02:00:00' $id; change 2; at '2026-11-02 02:00:00' $id; F=$(fulls $t $id); N=$(differentials $t $id)
	mv $F /var/away; change 3; at '2026-11-08 02:00:00' $id $(keep1); rc=$?; [ $rc = 0 ] && [ -e $N ]; check stranded-stays-$id $?
	says "WARN: 1 differential backup\(s\) cannot be restored.*${F##*/}"; check stranded-is-told-$id $?
	run pve-diff-backup doctor; says "Storage local: 1 differential backup\(s\) cannot be restored"; check stranded-doctor-$id $?
	if [ -n "$prune" ]; then
		run pvesm prune-backups local --vmid $id --keep-last 1 --dry-run 1; says "${N##*/} .*keep|keep.*${N##*/}"; check stranded-dry-run-$id $?
		run pvesm prune-backups local --vmid $id --keep-last 1; [ -e $N ]; check stranded-prune-$id $?
	fi
	run pvesm free $(vol $N); [ ! -e $N ]; check stranded-by-hand-$id $?

	# 3. The full goes between the plan and the data.
	for how in rm 'truncate -s 100000'; do
		fresh; now $id; change 4; F=$(fulls $t $id); echo "$how $F" >/var/before
		now $id; check "gone-before-data-$id-${how%% *}" $?
		says "WARN: '${F##*/}' could not serve as base any more.*ordinary full backup"; check "told-$id-${how%% *}" $?
		[ -z "$(differentials $t $id)$(left)" ] && G=$(fulls $t $id | grep -vxF $F) && [ -n "$G" ]; check "a-full-$id-${how%% *}" $?
		[ $C != zstd ] || zstd -qt $G; check "a-good-full-$id-${how%% *}" $?
		[ -e ${G%%.*}.log ]; check "its-log-$id-${how%% *}" $?
	done

	# 4. It goes while the data flows: what is called good can be restored.
	for how in rm truncate rename free none; do
		fresh; now $id; change 5; F=$(fulls $t $id)
		case $how in rm) echo "rm $F";; truncate) echo "truncate -s 100000 $F";; rename) echo "mv $F $D/x";; free) echo "pvesm free $(vol $F)";; none) echo true;; esac >/var/during
		now $id; rc=$?; N=$(differentials $t $id)
		case $how in
		free | none) [ $rc = 0 ] && [ -e $F ] && pve-xdelta3 restore $N >/var/o; check "restorable-$id-$how" $?;;
		*) [ $rc != 0 ] && says 'pve-xdelta3: the full backup .*(was removed or renamed|was cut short|was replaced|is damaged)' && [ -z "$N$(left)" ]; check "fails-$id-$how" $?;;
		esac
	done
done
kill "$(cat /var/run/qemu-server/200.pid)"
mv /usr/bin/pve-xdelta3.real /usr/bin/pve-xdelta3
echo "life: $ok passed, $bad failed"
[ $bad = 0 ]
