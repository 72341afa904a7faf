#!/bin/bash
# The steps of tests/host/packages on one laid-out host (TREE), in private namespaces. PACKAGES holds our packages.
set -u
passed=0 failed=0
log=/var/log/packages.log
check() { # NAME COMMAND...
	if "${@:2}" >$log 2>&1; then
		passed=$((passed + 1))
		echo "ok   $1  $(tail -1 $log | grep -E '[0-9]+ passed' || true)"
	else
		failed=$((failed + 1))
		echo "FAIL $1"
		tail -30 $log | sed 's/^/     /'
	fi
}
pve=(pve-manager libpve-storage-perl libpve-guest-common-perl pve-container qemu-server)
edited() { dpkg --verify "${pve[@]}" | awk '{ print $NF }' | grep -v '^/etc/' | sort; }
recorded() {
	perl -MJSON::PP -0777 -e 'for my $f (@{ JSON::PP->new->decode(<>)->{files} }) { print "/$f->{path}\n" if $f->{before} }' \
		/var/lib/pve-diff-backup/applied.json | sort
}
exactly_the_recorded() {
	diff <(comm -13 /run/edited.before <(edited)) <(recorded) && test -n "$(recorded)"
}
patched() {
	check "$1: status" pve-diff-backup status
	check "$1: exactly the recorded files are edited" exactly_the_recorded
	check "$1: dpkg is content" test -z "$(dpkg --audit "${pve[@]}" pve-diff-backup pve-xdelta3)"
}
pristine() {
	check "$1: dpkg --verify" diff /run/edited.before <(edited)
	check "$1: every byte of the modules" diff -r --no-dereference "$TREE/usr/share/perl5/PVE" /usr/share/perl5/PVE
	check "$1: every byte of the web interface" diff -r --no-dereference "$TREE/usr/share/pve-manager" /usr/share/pve-manager
}

edited >/run/edited.before
check "dpkg -i" dpkg -i "$PACKAGES"/pve-xdelta3_*.deb "$PACKAGES"/pve-diff-backup_*.deb
patched "installed"

# As an upgrade of pve-manager leaves it: its own file, and dpkg's trigger for it.
cp "$TREE/usr/share/perl5/PVE/VZDump.pm" /usr/share/perl5/PVE/VZDump.pm
check "an upgraded file is noticed" bash -c 'pve-diff-backup status; test $? = 4'
check "dpkg-trigger" dpkg-trigger --by-package=pve-manager /usr/share/perl5/PVE/VZDump.pm
check "pending triggers run" dpkg --triggers-only --pending
patched "triggered"

check "backups and restores" env COMPRESS=zstd N=2 KIND=both PRE= VERBOSE= \
	bash "$PVE_HOST/vzdump-e2e-inner.sh" --fullbackup 7

check "dpkg --remove" dpkg --remove pve-diff-backup
pristine "removed"
check "dpkg -i again" dpkg -i "$PACKAGES"/pve-diff-backup_*.deb
patched "installed again"
check "dpkg --purge" dpkg --purge pve-diff-backup pve-xdelta3
pristine "purged"
check "no state is left" test ! -e /var/lib/pve-diff-backup
check "nothing in /etc is left" bash -c '! find /etc /usr/bin /usr/share/man /usr/share/doc -path "*pve-diff-backup*" -o -path "*pve-xdelta3*" | grep .'
echo "inside: $passed passed, $failed failed"
[ $failed = 0 ]
