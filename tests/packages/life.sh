#!/bin/bash
# What dpkg and apt do to our packages and to those of Proxmox VE. Run in the chroot by tests/packages.sh.
# shellcheck source=tests/packages/lib.sh
. "$(dirname "$0")/lib.sh"
mkdir -p /usr/local/bin

# Services must never be touched from a maintainer script.
cat >/usr/local/bin/systemctl <<'FAKE'
#!/bin/sh
echo "$*" >>/run/test/systemctl
FAKE
# Between dpkg and our program: crashes, or kills dpkg in the middle of our maintainer script, where a test asks for it.
cat >/usr/local/bin/pve-diff-backup <<'FAKE'
#!/bin/bash
kill_dpkg() {
	[ -e "/run/test/kill-$1" ] || return 0
	rm "/run/test/kill-$1"
	local parent
	parent=$(awk '/^PPid:/ { print $2 }' "/proc/$PPID/status")
	[ "$(cat "/proc/$parent/comm")" != dpkg ] || kill -9 "$parent"
}
kill_dpkg before
[ ! -e /run/test/crash ] || { rm /run/test/crash && kill -SEGV $$; }
/usr/bin/pve-diff-backup "$@"
code=$?
kill_dpkg after
exit $code
FAKE
chmod 755 /usr/local/bin/*

# The journal.
perl -MIO::Socket::UNIX -e '
	my $log = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => "/dev/log") or die;
	open(my $out, ">>", "/run/test/journal") or die;
	$out->autoflush(1);
	while (defined($log->recv(my $message, 65536))) { print $out "$message\n" }
' &
journal=$!
trap 'kill $journal' EXIT

state=/var/lib/pve-diff-backup

before_step() {
	rm -f /run/test/reloads
	: >/run/test/journal
}
killed() { # NAME COMMAND...: a command in which dpkg is killed or fails
	name=$1
	echo "== $name: ${*:2}"
	"${@:2}" >/run/test/output 2>&1
	local code=$?
	check "dpkg did not get to its end (exit code $code)" test $code -ge 100
}

no_systemctl() { ! cat /run/test/systemctl; }
reloads() { # NUMBER
	touch /run/test/reloads
	cat /run/test/reloads
	test "$(grep -cw pve-api-updates /run/test/reloads)" = "$1"
}
well() {
	check "systemctl was not called" no_systemctl
	check "dpkg is content" dpkg_is_content
}
loud() { # EXIT CODE of status, TEXT
	check "status: $1" status_is "$1"
	check "terminal" grep -F "$2" /run/test/output
	check "journal" grep -F "$2" /run/test/journal
	check "status tells it" grep -F "did not succeed" <(pve-diff-backup status)
}
all_files() { find / -xdev \( -path /var/cache -o -path /var/log -o -path /var/lib/dpkg -o -path /tmp \) -prune -o -print | sort; }

new_hunks() { grep -rF "# of the next version" /usr/share/perl5/PVE; }
no_new_hunks() { ! new_hunks; }

check "no /etc/pve is mounted" test ! -e /etc/pve
step "local repository" apt-get update
step "the pve-xdelta3 of old" dpkg -i /repository/pve-xdelta3_old.deb
step "Proxmox VE 8" $install "${all_old[@]}"
pristine
dpkg --purge pve-xdelta3 >/run/test/output 2>&1
all_files >/run/test/before
dpkg -i /repository/pve-xdelta3_old.deb >/run/test/output 2>&1

step "ours" $install "${ours_now[@]}"
check "the terminal says what comes next" grep -F "Next: say how often a full backup is to be made" /run/test/output
patched
check "pve-manager was asked to reload once" reloads 1
check "the pve-xdelta3 of old is replaced" pve-xdelta3 --version
check "the other name" pve-verify-backups --help

step "pve-manager alone" $install pve-manager=8.4.21
patched
check "pve-manager was asked to reload once" reloads 1
check "it is the new one's file" grep -F "pve-manager 8.4.21" /usr/share/perl5/PVE/VZDump.pm

step "pve-manager once more" $install --reinstall pve-manager=8.4.21
patched
step "pve-manager back" $install pve-manager=8.4.20
patched
before=$(stat -c %i:%Y /usr/share/perl5/PVE/VZDump.pm)
step "qemu-server alone" $install qemu-server=8.4.11
patched
check "no other package's file was touched" test "$before" = "$(stat -c %i:%Y /usr/share/perl5/PVE/VZDump.pm)"
step "qemu-server once more" $install --reinstall qemu-server=8.4.11
patched
step "qemu-server back" $install qemu-server=8.4.10
patched

before=$(stat -c %i:%Y /usr/share/perl5/PVE/VZDump.pm)
step "ours once more" $install --reinstall "${ours_now[@]}"
check "that is said once" test ! "$(grep -F Next: /run/test/output)"
patched
check "no file was touched" test "$before" = "$(stat -c %i:%Y /usr/share/perl5/PVE/VZDump.pm)"
check "nobody was asked to reload" reloads 0

printf '%s\n' "Package: pve-manager" "Pin: version 9.2.2" "Pin-Priority: 990" >/etc/apt/preferences.d/test
step "dist-upgrade of all, ours too" apt-get dist-upgrade
rm /etc/apt/preferences.d/test
patched
check "our new lines are in" new_hunks
check "everything is the newest" test "$(dpkg-query -W -f '${Version} ' pve-manager qemu-server pve-diff-backup)" = \
	"$version+next 9.2.2 9.1.0 "
step "back to the older ones, ours too" $install "${all_old[@]}" "${ours_now[@]}"
patched
check "our old lines are in" no_new_hunks
step "upgrade of ours, whose hunks have changed" $install "${ours_next[@]}"
patched
check "our new lines are in" new_hunks
check "pve-manager was asked to reload once" reloads 1
step "ours back" $install "${ours_now[@]}"
patched
check "our old lines are in" no_new_hunks
step "upgrade of ours" $install "${ours_next[@]}"
patched

step "Proxmox VE 9, all at once" $install "${others[@]}" pve-manager=9.2.2
patched
check "no warning before" test -z "$(grep -F "is coming" /run/test/output)"
check "it is the new one's file" grep -F "libpve-storage-perl 9.1.0" /usr/share/perl5/PVE/Storage.pm

step "a pve-manager that is not supported" $install pve-manager=9.9.1
check "its files are its own" test -z "$(dpkg --verify pve-manager)"
loud 8 "exec_backup_task"
well
check "apt warned before" grep -F "pve-manager 9.9.1 is coming" /run/test/output
step "another upgrade meanwhile" $install --reinstall libpve-storage-perl=9.1.0
check "its files are its own" test -z "$(dpkg --verify pve-manager libpve-storage-perl)"
loud 8 "exec_backup_task"
well
step "on to one that is" $install pve-manager=9.9.2
patched
check "an unknown release is told" grep -F "unverified: pve-manager 9.9.2" /run/test/output
step "back to one that is known" $install pve-manager=9.2.2
patched

touch /run/test/fail
killed "pve-manager's trigger fails" $install --reinstall libpve-storage-perl=9.1.0
step "dpkg goes on" dpkg --configure -a
patched
touch /run/test/crash
# Not through apt, which gives dpkg a PATH of its own.
step "our program crashes in its trigger" dpkg -i /repository/libpve-storage-perl_9.1.0.deb
check "status" status_is 4
well
step "any package triggers us again" $install --reinstall libpve-guest-common-perl=6.0.2
patched

touch /run/test/kill
killed "dpkg killed in pve-manager's postinst" dpkg -i /repository/pve-manager_8.4.21.deb
step "dpkg goes on" dpkg --configure -a
patched
for moment in before after; do
	touch /run/test/kill-$moment
	killed "dpkg killed $moment our trigger's work" dpkg -i /repository/pve-manager_8.4.20.deb
	step "dpkg goes on" dpkg --configure -a
	patched
	touch /run/test/kill-$moment
	killed "dpkg killed $moment our postinst's work" dpkg -i /repository/next-pve-diff-backup_*.deb
	step "dpkg goes on" dpkg --configure -a
	patched
	touch /run/test/kill-$moment
	killed "dpkg killed $moment our prerm's work" dpkg --remove pve-diff-backup
	step "removal after all" dpkg --remove pve-diff-backup
	pristine
	step "ours again" $install "${ours_next[@]}"
	patched
done

step "revert by hand" pve-diff-backup revert
pristine
step "pve-manager after a revert" $install pve-manager=8.4.21
pristine
step "ours after a revert" $install --reinstall "${ours_next[@]}"
pristine
check "it says that it does nothing" grep -E "since a revert by hand: pve-diff-backup( --patches [^ ]+)? apply" /run/test/output
step "apply by hand" pve-diff-backup apply
patched

step "read-only files" mount --bind /usr/share/perl5 /usr/share/perl5
mount -o remount,bind,ro /usr/share/perl5
DPKG_MAINTSCRIPT_PACKAGE=pve-diff-backup /var/lib/dpkg/info/pve-diff-backup.prerm remove >/run/test/output 2>&1
check "prerm succeeds" test $? = 0
check "and says what is wrong" grep -F "/usr/share/perl5" /run/test/output
umount /usr/share/perl5
patched
touch /run/test/read-only
step "files that become read-only during an upgrade" $install --reinstall pve-manager=8.4.21
loud 4 "/usr/share/perl5"
check "dpkg --configure -a changes nothing" dpkg --configure -a
umount /usr/share/perl5
step "apply once they can be written" pve-diff-backup apply
patched

step "upgrade of ours while what is new cannot be patched" $install pve-manager=9.9.1
loud 8 "exec_backup_task"
step "its removal" apt-get remove pve-diff-backup
pristine
step "its return" $install "${ours_now[@]}"
loud 8 "exec_backup_task"
step "a pve-manager that is supported" $install pve-manager=8.4.20
patched

step "our programs' package alone goes" apt-get remove pve-xdelta3
pristine
check "ours went with it" test "$(dpkg-query -W -f '${db:Status-Status}' pve-diff-backup)" = config-files
step "ours again" $install "${ours_now[@]}"
patched
step "removal" apt-get remove pve-diff-backup
pristine
step "return" $install "${ours_now[@]}"
patched
step "purge" apt-get purge pve-diff-backup pve-xdelta3
pristine
step "Proxmox VE 8 as it was" $install "${all_old[@]}"
all_files >/run/test/after
check "nothing is left behind" diff /run/test/before /run/test/after
check "all packages of Proxmox VE are there" dpkg -s "${pve[@]}"

step "nothing of Proxmox VE" apt-get purge "${pve[@]}"
step "ours first" $install "${ours_now[@]}"
loud 6 "not installed"
step "then Proxmox VE" $install "${all_old[@]}"
patched
check "pve-manager was asked to reload once" reloads 1
step "Proxmox VE goes first" apt-get purge "${pve[@]}"
step "then ours" apt-get purge pve-diff-backup pve-xdelta3
check "nothing of ours is left" no_own_files
check "no state is left" test ! -e $state

finish
