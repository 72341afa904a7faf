#!/bin/bash
# The option in the settings of backup jobs, and the messages about failures, through the life of the packages. Run in
# a chroot with the packages in /repository.
# shellcheck source=tests/packages/lib.sh
. "$(dirname "$0")/lib.sh"

line='0 2 * * *           root vzdump 100 --quiet 1 --storage nas'
settings() { # what an administrator has set, on a host alone
	mkdir -p /etc/pve/priv/lock /etc/cron.d
	echo '{"nodename": "one", "version": 0}' >/etc/pve/.members
	printf 'vzdump: nightly\n\tfullbackup 7\n\tschedule 02:00\n\tx-unknown 1\n\n' >/etc/pve/jobs.cfg
	printf '# mine\n%s --fullbackup 7\n' "$line" >/etc/pve/vzdump.cron
	[ -e /etc/cron.d/vzdump ] || ln -s /etc/pve/vzdump.cron /etc/cron.d/vzdump
}
memory=/etc/pve/pve-diff-backup.json
cron_has() { test "$(grep -c -- "--fullbackup 7" /etc/pve/vzdump.cron)" = "$1"; }
jobs_have() { test "$(grep -c "fullbackup 7" /etc/pve/jobs.cfg)" = "$1"; }
the_rest_is_there() {
	grep -qx "# mine" /etc/pve/vzdump.cron && grep -q "vzdump.* 100 --quiet 1 --storage nas" /etc/pve/vzdump.cron &&
		grep -q "x-unknown 1" /etc/pve/jobs.cfg && [ -L /etc/cron.d/vzdump ] &&
		test -z "$(ls -A /etc/pve/priv/lock)" && ! ls -A /etc/pve | grep tmp
}
option() { # IN JOBS, IN CRON: 0 or 1
	check "jobs.cfg" jobs_have "$1"
	check "vzdump.cron" cron_has "$2"
	check "nothing else of them changed" the_rest_is_there
}
mails() { # NUMBER so far
	check "mails" test "$(grep -c '^=== -i -- root' /run/test/mails)" = "$1"
}
: >/run/test/mails
cat >/usr/sbin/sendmail <<'FAKE'
#!/bin/sh
{ echo "=== $*"; cat; } >>/run/test/mails
while [ -e /run/test/silent ]; do sleep 1; done
FAKE
chmod 755 /usr/sbin/sendmail

settings
step "local repository" apt-get update
step "Proxmox VE 8" $install "${all_old[@]}"
option 1 1
step "ours" $install "${ours_now[@]}"
patched
option 1 1
step "a new pve-manager" $install pve-manager=8.4.21
option 1 1
step "jobs as Proxmox VE writes them in between" sed -i /fullbackup/d /etc/pve/jobs.cfg
step "status tells" status_is 21
check "which job" grep -F "dropped by a node without our lines" /run/test/output
step "a new pve-manager" $install pve-manager=8.4.20
option 1 1
check "it is told" grep -F "job nightly: its Full Backup Every 7 is back" /run/test/output
step "upgrade of ours" $install "${ours_next[@]}"
option 1 1
check "nothing is taken out meanwhile" test -z "$(grep -F "taken out" /run/test/output)"
mails 0

step "a pve-manager that is not supported" $install pve-manager=9.9.1
check "status" status_is 8
check "vzdump still knows the option" grep -F fullbackup /usr/share/perl5/PVE/VZDump/Common.pm
option 1 1
check "a mail says why" grep -F exec_backup_task /run/test/mails
mails 1
step "the same once more" $install --reinstall pve-manager=9.9.1
mails 1
step "the package whose file defines the option" $install libpve-guest-common-perl=6.0.2
option 1 0
check "it is told" grep -F -- "--fullbackup 7 taken out of" /run/test/output
mails 2
step "doctor" sh -c '! pve-diff-backup doctor'
check "it tells the reason" grep -F exec_backup_task /run/test/output
check "it tells of the line" grep -F "until all nodes that run it are patched" /run/test/output
step "on to one that is" $install "${all_old[@]}"
patched
option 1 1
mails 2
touch /run/test/silent
step "a mail server that never answers" $install pve-manager=9.9.1 libpve-guest-common-perl=6.0.2
option 1 0
rm /run/test/silent
step "back again" $install "${all_old[@]}"
option 1 1

step "removal" apt-get remove pve-diff-backup
pristine
option 0 0
check "it is told" grep -F "job nightly: Full Backup Every 7 taken out" /run/test/output
check "it is remembered" grep -F nightly $memory
step "return" $install "${ours_now[@]}"
patched
option 1 1
step "files that cannot be changed" mount --bind /usr/share/perl5 /usr/share/perl5
mount -o remount,bind,ro /usr/share/perl5
step "removal" apt-get remove pve-diff-backup
option 1 1
umount /usr/share/perl5
step "return" $install "${ours_now[@]}"
patched
step "no cluster file system" mv /etc/pve /etc/pve.away
mkdir /etc/pve
step "removal" apt-get remove pve-diff-backup
check "it is told" grep -F "/etc/pve is not mounted" /run/test/output
check "nothing is written" test -z "$(ls -A /etc/pve)"
rmdir /etc/pve
step "a cluster file system" mv /etc/pve.away /etc/pve
step "purge" apt-get purge pve-diff-backup pve-xdelta3
pristine
check "no state is left" test ! -e /var/lib/pve-diff-backup
option 1 1
step "return" $install "${ours_now[@]}"
step "purge" apt-get purge pve-diff-backup pve-xdelta3
pristine
option 0 0
check "what is shared is gone" test ! -e $memory
step "ours" $install "${ours_now[@]}"
step "another node is patched" sed -i 's/"nodes": {/"nodes": { "two": {"patched": true, "since": 1, "program": "1"},/' $memory
echo '{"nodename": "one", "nodelist": {"one": {}, "two": {}}}' >/etc/pve/.members
step "purge" apt-get purge pve-diff-backup pve-xdelta3
check "what other nodes share stays" test -e $memory
step "the end" apt-get purge "${pve[@]}"
finish
