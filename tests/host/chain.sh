#!/bin/bash
# A chain of backups of a container and a VM, on any release: a full and two differentials, each listed, its configuration
# shown, restored and compared with what was there when it was made; then the limit of maxfiles. Run as root inside a
# patched host (a laid-out tree in private namespaces), with pve-xdelta3 in /usr/bin. COMPRESS: lzo, gzip or 0. Prints
# 'check NAME: ok|FAIL' lines and a closing count; every step speaks to Proxmox VE's real programs.
set -u -o pipefail
ok=0; bad=0
D=/var/lib/vz/dump; L=/var/log/chain; mkdir -p $L $D; compress=${COMPRESS:-lzo}
check() { # NAME COMMAND...: the output is in last.log
	local name=$1; shift
	if "$@" >$L/last.log 2>&1; then ok=$((ok+1)); echo "check $name: ok"; else bad=$((bad+1)); echo "check $name: FAIL"; tail -15 $L/last.log | sed 's/^/    /'; fi; }
packs() { ls -1 $D/vzdump-$1-$2-* 2>/dev/null | grep -vE '\.log$' | sort; }
backup() { sleep 1.1; vzdump $1 --storage local --mode $2 --compress $compress --fullbackup 7 "${@:3}" 2>&1 | tee $L/task; }
is() { test "$1" = "$2" || { echo "'$1' is not '$2'"; return 1; }; }
# The file or folder behind a guest's volume; its name is the release's business.
volume() { sed -n "s!^$2: local:\([^,]*\).*!/var/lib/vz/images/\1!p" $1; }
# Contents, owners, modes, times and hard links; 5.0's restore makes the storage's folders within the container.
same_tree() { local part; for part in usr var root; do is "$(rsync -nacHiO --delete --exclude=/lib/vz $1/$part/ $2/$part/)" "" || return 1; done; }

printf 'dir: local\n\tpath /var/lib/vz\n\tcontent images,rootdir,backup\n\tmaxfiles 0\n' >/etc/pve/storage.cfg

chain() { # TYPE ID MODE CHANGE COMPARE RESTORE: a chain of three and its restores
	local type=$1 id=$2 mode=$3 change=$4 compare=$5 restore=$6 i archives archive now
	for i in 0 1 2; do
		$change $i
		check $type-backup-$i backup $id $mode
		if [ $i = 0 ]; then now='INFO: full backup: '; else now='INFO: differential backup: '; fi
		check $type-reason-$i grep -F "$now" $L/task
	done
	mapfile -t archives < <(packs $type $id)
	check $type-three-archives is ${#archives[@]} 3
	check $type-two-differentials is "$(printf '%s\n' "${archives[@]}" | grep -c -- "^${archives[0]}--differential-")" 2
	check $type-differentials-are-small test $((10 * $(stat -c %s "${archives[1]}"))) -lt "$(stat -c %s "${archives[0]}")"
	pvesm list local >$L/list 2>&1
	for i in 0 1 2; do
		archive=local:backup/${archives[$i]##*/}
		check $type-listed-$i grep -F "$archive " $L/list
		if [ -n "$shows" ]; then
			pvesm extractconfig "$archive" >$L/config 2>&1
			check $type-config-$i grep -x "memory: $((512 + i))" $L/config
		fi
		check $type-restore-$i $restore "$archive" $((id + 1 + i))
		check $type-restored-$i $compare $((id + 1 + i)) $i
	done
	check $type-within-the-limit backup $id $mode --maxfiles 2 --remove 1
	check $type-full-is-kept test -e "${archives[0]}"
	check $type-old-differentials-go test ! -e "${archives[1]}" -a "$(packs $type $id | wc -l)" = 3
	check $type-full-is-refused is "$(pvesm free "local:backup/${archives[0]##*/}" 2>&1 | grep -c 'need it, remove them first')" 1
}
pvesm help 2>&1 | grep extractconfig >/dev/null && shows=1 || shows=

if [ -e /usr/share/perl5/PVE/LXC/Create.pm ]; then
	S=/var/lib/vz/images/100/subvol-100-disk-1.subvol; mkdir -p $S/{etc,root,dev,proc,sys,tmp,sbin,usr/share,var/lib}
	echo 8.1 >$S/etc/debian_version; head -c 3000000 /dev/urandom >$S/usr/share/big; seq 1 300000 >$S/usr/share/text
	echo x >"$S/root/name with blank"; ln -s "name with blank" $S/root/link; ln $S/usr/share/text $S/root/hard; mkfifo $S/root/fifo
	printf 'arch: amd64\nhostname: ct100\nmemory: 512\nostype: debian\nrootfs: local:100/subvol-100-disk-1.subvol,size=0T\n' >/etc/pve/lxc/100.conf
	change_ct() {
		head -c 20000 /dev/urandom | dd of=$S/usr/share/big bs=1000 seek=$((1000 + 500 * $1)) conv=notrunc 2>/dev/null
		echo $1 >$S/root/new$1; sed -i "s/^memory: .*/memory: $((512 + $1))/" /etc/pve/lxc/100.conf; cp -a $S /var/lib/ct-$1; }
	restored_ct() { same_tree /var/lib/ct-$2 "$(volume /etc/pve/lxc/$1.conf rootfs)" && grep -x "memory: $((512 + $2))" /etc/pve/lxc/$1.conf; }
	restore_ct() { pct restore $2 "$1" --storage local --rootfs local:0; }
	chain lxc 100 stop change_ct restored_ct restore_ct
fi

I=/var/lib/vz/images/200; mkdir -p $I; truncate -s 16M $I/vm-200-disk-1.raw
head -c 4000000 /dev/urandom | dd of=$I/vm-200-disk-1.raw conv=notrunc 2>/dev/null
printf 'bootdisk: scsi0\ncores: 1\nmemory: 512\nname: vm200\nostype: l26\nscsi0: local:200/vm-200-disk-1.raw,size=16M\nscsihw: virtio-scsi-pci\n' >/etc/pve/qemu-server/200.conf
/usr/bin/kvm -id 200 -pidfile /var/run/qemu-server/200.pid -daemonize >/dev/null 2>&1
for _ in $(seq 50); do qm status 200 2>/dev/null | grep running >/dev/null && break; sleep 0.2; done
change_vm() {
	head -c 20000 /dev/urandom | dd of=$I/vm-200-disk-1.raw bs=1000 seek=$((1000 + 500 * $1)) conv=notrunc 2>/dev/null
	sed -i "s/^memory: .*/memory: $((512 + $1))/" /etc/pve/qemu-server/200.conf; cp $I/vm-200-disk-1.raw /var/lib/vm-$1; }
restored_vm() { cmp /var/lib/vm-$2 "$(volume /etc/pve/qemu-server/$1.conf scsi0)" && grep -x "memory: $((512 + $2))" /etc/pve/qemu-server/$1.conf; }
restore_vm() { qmrestore "$1" $2 --storage local --unique 1; }
chain qemu 200 snapshot change_vm restored_vm restore_vm
kill "$(cat /var/run/qemu-server/200.pid)"
echo "chain: $ok passed, $bad failed"
[ $bad = 0 ]
