#!/bin/bash
# A host on which systemd runs: which of Proxmox' services reload, and that none restarts. Run as a unit of the booted
# chroot by tests/packages.sh.
# shellcheck source=tests/packages/lib.sh
. "$(dirname "$0")/lib.sh"

services=(pvedaemon pveproxy pvescheduler pvestatd)
asked=/run/test/services
before_step() {
	: >$asked
	processes=$(main_processes)
}
main_processes() { systemctl show --property=MainPID "${services[@]}"; }
times() { # NUMBER SERVICE...: each of these reloaded so often, and nothing else happened
	local service number=$1
	shift
	cat $asked
	for service; do
		test "$(grep -c "^$service reloaded " $asked)" = "$number" || return 1
	done
	test "$(wc -l <$asked)" = $((number * $#))
}
last_reload_saw() { # NUMBER of files with our lines
	local service
	for service in "${services[@]}"; do
		test "$(sed -n "s/^$service reloaded //p" $asked | tail -1 | sed 's/[1-9][0-9]*/some/')" = "$1" || return 1
	done
}
reloaded() { # TIMES SAW
	check "each service reloads, $1 times" times "$1" "${services[@]}"
	check "with the files as they are now" last_reload_saw "$2"
	check "none restarts" test "$processes" = "$(main_processes)"
	check "all run" systemctl --quiet is-active "${services[@]}"
}

upgrades() { # CHECK: each kind of upgrade, with how often the services reload without us and with us
	step "pve-manager alone" $install pve-manager=8.4.21
	$1 1 2
	step "pve-manager and qemu-server" $install pve-manager=8.4.20 qemu-server=8.4.11
	$1 1 2
	step "a package of which nothing is patched" $install --reinstall libpve-common-perl=8.3.8
	$1 1 1
	# dpkg orders the pending triggers of pve-manager and ours as it likes: where ours is first, one reload does for both.
	step "a package whose files are patched" $install --reinstall libpve-storage-perl=8.3.8
	$1 1 "1 2"
	step "another" $install --reinstall pve-container=5.3.5
	$1 1 "1 2"
	step "a third" $install qemu-server=8.4.10
	$1 1 "1 2"
	step "all at once" $install --reinstall "${all_old[@]}"
	$1 1 2
}
stock() { # TIMES _: without us
	reloaded "$1" 0
}
ours() { # _ TIMES: one of these numbers, each service as often as the others
	local number
	patched
	number=$(grep -c "^pvedaemon reloaded " $asked)
	check "$number is one of $2" test "${2/$number/}" != "$2"
	reloaded "$number" some
}

check "systemd runs" test -d /run/systemd/system
step "local repository" apt-get update
step "Proxmox VE 8" $install "${all_old[@]}"
check "all services run" systemctl --quiet is-active "${services[@]}"
pristine
upgrades stock

step "installation" $install "${ours_now[@]}"
patched
reloaded 1 some
step "apply where nothing is to be done" pve-diff-backup apply
reloaded 0 ""
step "revert by hand" pve-diff-backup revert
pristine
reloaded 1 0
step "apply by hand" pve-diff-backup apply
patched
reloaded 1 some
check "it is told" grep -F "reloaded: pvedaemon" /run/test/output
step "revert without reload" pve-diff-backup revert --no-restart
reloaded 0 ""
step "apply without reload" pve-diff-backup apply --no-restart
reloaded 0 ""

# Verification on a schedule: a storage with a container's full backup and a differential.
timer=pve-diff-backup-verify.timer unit=pve-diff-backup-verify.service dump=/var/lib/test/dump
full=$dump/vzdump-lxc-100-2026_11_20-01_00_02.tar.zst
differential=$full--differential-2026_11_21-01_00_02.vcdiff.zst
mkdir -p /etc/pve $dump
printf 'dir: nas\n\tpath /var/lib/test\n\tcontent backup\n' >/etc/pve/storage.cfg
tar -c -C /usr bin | pve-xdelta3 full >$full
tar -c -C /usr bin -C /etc . | pve-xdelta3 diff --base=$full >$differential
[ -e /usr/sbin/sendmail ] || printf '#!/bin/sh\ncat >>/run/test/mails\n' >/usr/sbin/sendmail
chmod 755 /usr/sbin/sendmail
: >/run/test/mails
said() { journalctl --quiet --no-pager --boot --unit=$unit "$@"; }
check "installing enables nothing" test "$(systemctl is-enabled $timer)" = disabled
step "verification on a schedule" pve-diff-backup verify --enable --storage nas --max-age 7
check "its timer runs" systemctl --quiet is-active $timer
check "and will after the next boot" systemctl --quiet is-enabled $timer
step "a run" systemctl start $unit
check "the journal has it" grep -F "OK    ${differential##*/} (tar, " <(said)
check "and how many" grep -F "2 checked, all of them restorable" <(said)
check "no mail" test ! -s /run/test/mails
check "chains tells" test "$(pve-diff-backup chains nas | grep -c 'good today')" = 2
step "another run" systemctl start $unit
check "it passes over what was good" grep -F "2 found good before, and unchanged" <(said)
truncate -s -100 $differential
check "a run that fails" bash -c "! systemctl start $unit"
check "the journal has it as an error" grep -F "FAIL  ${differential##*/}: " <(said --priority=err)
check "a mail" grep -F "Subject: pve-diff-backup: 1 backup NOT restorable" /run/test/mails
systemctl reset-failed
step "an end of verification" pve-diff-backup verify --disable
check "its timer does not run" test "$(systemctl is-active $timer)" = inactive
check "nor will it" test "$(systemctl is-enabled $timer)" = disabled
step "a storage that is not there" bash -c "pve-diff-backup verify --enable --storage san; test \$? = 2"
step "verification on a schedule again" pve-diff-backup verify --enable

upgrades ours

systemctl stop pvescheduler
systemctl stop pvestatd
step "revert while two services are stopped" pve-diff-backup revert
pristine
check "the others reload once" times 1 pvedaemon pveproxy
check "these stay stopped" test "$(systemctl is-active pvescheduler pvestatd | sort -u)" = inactive
step "our package anew while two services are stopped" $install --reinstall "${ours_now[@]}"
pve-diff-backup apply >/run/test/output 2>&1
check "the others reload once" times 1 pvedaemon pveproxy
step "a trigger while two services are stopped" $install --reinstall libpve-guest-common-perl=5.2.2
patched
check "these stay stopped" test "$(systemctl is-active pvescheduler pvestatd | sort -u)" = inactive
systemctl start pvescheduler pvestatd

step "upgrade of ours, whose hunks have changed" $install "${ours_next[@]}"
patched
reloaded 1 some
step "Proxmox VE 9, all at once" $install "${others[@]}" pve-manager=9.2.2
patched
check "with the files as they are now" last_reload_saw some
step "a pve-manager that is not supported" $install pve-manager=9.9.1
check "status" status_is 8
check "the journal has it" grep -F exec_backup_task <(journalctl --quiet --no-pager --boot 2>&1)
step "removal" apt-get remove pve-diff-backup
pristine
reloaded 1 0
check "nothing is verified" test "$(systemctl is-active pve-diff-backup-verify.timer)" = inactive
step "its return, where it is not supported" $install "${ours_next[@]}"
check "status" status_is 8
reloaded 0 ""
step "on to a pve-manager that is" $install pve-manager=9.2.2
patched
step "purge" apt-get purge pve-diff-backup pve-xdelta3
pristine
reloaded 1 0
check "nothing is enabled any more" test -z "$(find /etc -name 'pve-diff-backup*' ! -name pve-diff-backup.json)"

finish
