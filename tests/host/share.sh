#!/bin/bash
# What whoever can write to the share could do to a patched host: run as root inside one (a laid-out tree in private
# namespaces), with pve-xdelta3 in /usr/bin.  Links and pipes lie in the place of backups; names and headers hold what is
# no text.  Prints 'check NAME: ok|FAIL' lines and a closing count; every step speaks to Proxmox VE's real programs.
set -u
ok=0; bad=0
D=/var/lib/vz/dump; L=/var/log/share; mkdir -p $L $D
node=$(hostname)
check() { # NAME RC
	if [ "$2" = 0 ]; then ok=$((ok+1)); echo "check $1: ok"; else bad=$((bad+1)); echo "check $1: FAIL"; tail -15 $L/last.log | sed 's/^/    /'; fi; }
run() { timeout 60 "$@" >$L/last.log 2>&1; }     # the output is in last.log; nothing may wait
refused() { # NAME PATTERN CMD...: must fail, say what matches, and tell nothing of the host's file
	local name=$1 text=$2; shift 2
	run "$@"; local code=$?
	[ $code != 0 ] && [ $code != 124 ] && grep -qE -- "$text" $L/last.log && ! grep -qF "$secret" $L/last.log; check "$name" $?; }
packs() { ls -1 $D/vzdump-$1-$2-* 2>/dev/null | grep -vE '\.(log|notes|protected)$' | sort; }
vol() { echo "local:backup/${1##*/}"; }
backup() { sleep 1.1; local id=$1; shift
	run vzdump $id --storage local --mode $([ $id = 100 ] && echo stop || echo snapshot) --compress $compress "$@"; }
vzdump help 2>&1 | grep -q prune-backups && keep='prune-backups keep-all=1' || keep='maxfiles 0'
vzdump help 2>&1 | grep -q zstd && compress=zstd || compress=lzo
pvesm help 2>&1 | grep extractconfig >/dev/null && shows=1 || shows=
limit="--bwlimit 20000"; qmrestore help 2>&1 | grep -q bwlimit || limit=

secret='root:secret-of-the-host'; echo "$secret:20000:0:99999:7:::" >/var/shadow
printf "dir: local\n\tpath /var/lib/vz\n\tcontent images,rootdir,backup\n\t$keep\n" >/etc/pve/storage.cfg
S=/var/lib/vz/images/100/subvol-100-disk-0.subvol; mkdir -p $S/{etc,root,dev,proc,sys,tmp,usr/share,sbin}; echo 9.13 >$S/etc/debian_version
head -c 300000 /dev/urandom >$S/usr/share/big
printf 'arch: amd64\nhostname: ct100\nmemory: 512\nostype: debian\nrootfs: local:100/subvol-100-disk-0.subvol,size=0T\n' >/etc/pve/lxc/100.conf
I=/var/lib/vz/images/200; mkdir -p $I; truncate -s 4M $I/vm-200-disk-0.raw
head -c 400000 /dev/urandom | dd of=$I/vm-200-disk-0.raw conv=notrunc 2>/dev/null
printf 'boot: order=scsi0\ncores: 1\nmemory: 512\nname: vm200\nostype: l26\nscsi0: local:200/vm-200-disk-0.raw,size=4M\nscsihw: virtio-scsi-pci\n' >/etc/pve/qemu-server/200.conf
/usr/bin/kvm -id 200 -pidfile /var/run/qemu-server/200.pid -daemonize >/dev/null 2>&1
for _ in $(seq 100); do qm status 200 2>/dev/null | grep -q running && break; sleep 0.2; done
for id in 100 200; do for i in 1 2; do backup $id --fullbackup 7; check backup-$id-$i $?; done; done
CF=$(packs lxc 100 | head -1); CD=$(packs lxc 100 | tail -1); VF=$(packs qemu 200 | head -1); VD=$(packs qemu 200 | tail -1)
[[ $CD == "$CF"--differential-* && $VD == "$VF"--differential-* ]]; check chains $?

ways() { # NAME TEXT: every way to a restore
	[ -z "$shows" ] || {
		refused $1-config-vm "$2" pvesm extractconfig "$(vol $VD)"
		refused $1-config-ct "$2" pvesm extractconfig "$(vol $CD)"
		refused $1-api-vm "$2" pvesh get /nodes/$node/vzdump/extractconfig --volume "$(vol $VD)"
	}
	refused_vm $1-restore-vm "$2"
	[ -z "$limit" ] || refused_vm $1-limited-vm "$2" $limit
	refused $1-restore-ct "$2" pct restore 300 "$(vol $CD)" --storage local --rootfs local:0
	rm -rf /etc/pve/lxc/300.conf /var/lib/vz/images/300
}
refused_vm() { # NAME PATTERN [OPTIONS]
	local name=$1 text=$2; shift 2
	refused $name "$text" qmrestore "$(vol $VD)" 301 --storage local "$@"
	rm -rf /etc/pve/qemu-server/301.conf /var/lib/vz/images/301 # what Proxmox leaves of a VM it could not restore
}
mkdir /var/away
place() { # NAME TEXT FILE FILE COMMAND...: something else lies in the place of both
	local name=$1 text=$2 a=$3 b=$4; shift 4
	mv $a $b /var/away/; "$@" $a; "$@" $b
	ways $name "$text"
	rm $a $b; mv /var/away/* $D/
}
place link-full 'a symbolic link' $CF $VF ln -s /var/shadow
place link-differential 'a symbolic link' $CD $VD ln -s /var/shadow
place pipe-full 'no regular file' $CF $VF mkfifo
place pipe-differential 'no regular file|find file|does not exist' $CD $VD mkfifo

# the file of the host, wrapped: a differential whose header proves nothing copies from what the full's name leads to
mv $VF $VD /var/away/
pve-xdelta3 -e -c -q -A= -s /var/shadow <(printf 'VMA\0'; cat /var/shadow) >$VD 2>/dev/null
ln -s /var/shadow $VF; [ -z "$shows" ] || refused wrapped-config 'a symbolic link' pvesm extractconfig "$(vol $VD)"
refused_vm wrapped-restore 'a symbolic link'; rm $VF
cp /var/away/${VF##*/} $VF; refused_vm unproved-restore 'does not tell'
rm $VF $VD; mv /var/away/* $D/

# a link as the newest full is no base: a full, with the reason
mv $VF /var/away/; ln -s /var/away/${VF##*/} $VF; backup 200 --fullbackup 7; check backup-beside-link $?
grep -q 'WARN: full backup: .*is a symbolic link' $L/last.log; check link-is-no-base $?
rm -f $VF $(packs qemu 200 | grep -v -- --differential-); mv /var/away/* $D/

# what the originals wrote: restored, with a word in the task's log
mv $VD /var/away/; pve-xdelta3 restore /var/away/${VD##*/} --base $VF >/var/day.vma 2>/dev/null
pve-xdelta3 -e -c -q -S none "-A=-//${VF##*/}/" -s $VF /var/day.vma >$VD; case $compress in zstd) zstd -q --rm -f $VD -o $VD.x; mv $VD.x $VD ;; lzo) lzop -q $VD -o $VD.x; mv $VD.x $VD ;; esac
run qmrestore "$(vol $VD)" 302 --storage local --unique 1; check originals-restore $?
grep -q 'not checked beforehand' $L/last.log; check originals-say-so $?
cmp -s $I/vm-200-disk-0.raw $(ls /var/lib/vz/images/302/*.raw); check originals-same $?
[ -z "$shows" ] || { run pvesm extractconfig "$(vol $VD)"; grep -qx 'memory: 512' $L/last.log; check originals-config $?; }

# HTML, direction marks and a long name in the header, and in a name beside a full
evil="<img src=x>$(printf '\xe2\x80\xae\x1b[31m%0100d' 7)"
harmless() { ! grep -qP '<img|\x1b|\xe2\x80\xae' $L/last.log; }
cp $VF "/var/$evil"; pve-xdelta3 diff --compress none "--base=/var/$evil" </var/day.vma >$VD; printf 'other' | pve-xdelta3 full --compress $compress >/var/other; mv $VF /var/away/; cp /var/other $VF
[ -z "$shows" ] || { refused header-config 'is not the one' pvesm extractconfig "$(vol $VD)"; harmless; check header-config-harmless $?
	refused header-api 'is not the one' pvesh get /nodes/$node/vzdump/extractconfig --volume "$(vol $VD)"; harmless; check header-api-harmless $?; }
refused_vm header-restore 'is not the one'; harmless; check header-restore-harmless $?
mv /var/away/${VF##*/} $VF; touch "$VF--differential-2030_01_01-00_00_00.vcdiff$evil"
run pvesm free "$(vol $VF)"; grep -q 'img src=x' $L/last.log && harmless && [ -e $VF ]; check name-beside-harmless $?
kill "$(cat /var/run/qemu-server/200.pid)"
echo "share: $ok passed, $bad failed"
[ $bad = 0 ]
