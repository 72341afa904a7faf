#!/bin/bash
# What becomes of the option in backup jobs on a host: run as root inside an unpatched one (a laid-out tree in private
# namespaces), with our programs and the pristine files in /usr.  Every step asks Proxmox VE's real programs what they
# make of jobs.cfg and vzdump.cron.  Prints 'check NAME: ok|FAIL' lines and a closing count.
set -u
ok=0; bad=0
L=/var/log/jobs; mkdir -p $L /var/lib/pve-manager/jobs /var/lock/pve-manager; pve=/etc/pve; perl5=/usr/share/perl5/PVE
check() { # NAME RC
	if [ "$2" = 0 ]; then ok=$((ok+1)); echo "check $1: ok"; else bad=$((bad+1)); echo "check $1: FAIL"; sed 's/^/    /' $L/last.log | tail -15; fi; }
run() { "$@" >$L/last.log 2>&1; }                # the output is in last.log
says() { grep -qF -- "$1" $L/last.log; }
# What Proxmox VE makes of the jobs: JOB VALUE, the value '-' where there is none.
jobs() { pvesh get /cluster/backup --output-format json 2>/dev/null | perl -MJSON::PP -e '
	print join " ", map { ($_->{id} =~ s/^[0-9a-f]{40}:/cron:/r) . "=" . ($_->{fullbackup} // "-") } @{ decode_json(join "", <STDIN>) }'; }
is() { # NAME EXPECTED: the jobs, in their order
	jobs >$L/last.log; [ "$(cat $L/last.log)" = "$2" ]; check "$1" $?; }
# The line's command, as cron would run it.
cron() { run bash -c "$(sed -n 's/^.* root //p' $pve/vzdump.cron | sed -n "$1p")"; }
archives() { ls /var/lib/vz/dump | grep -cE '^vzdump-qemu-210-.*\.(zst|lzo|gz|vma)$'; }

mkdir -p /var/lib/vz/dump
printf 'dir: local\n\tpath /var/lib/vz\n\tcontent images,rootdir,backup\n\tprune-backups keep-all=1\n' >$pve/storage.cfg
printf 'cores: 1\nmemory: 512\nname: diskless\nostype: l26\n' >$pve/qemu-server/210.conf
line="vzdump 210 --mode stop --storage local --compress zstd --quiet 1"
head="PATH=\"/usr/sbin:/usr/bin:/sbin:/bin\"

"

# 1. Code without our lines refuses the line of a crontab; what a revert leaves runs
printf '%s0 2 * * *           root %s --fullbackup 7\n' "$head" "$line" >$pve/vzdump.cron
if cron 1; then check stock-refuses 1; else says fullbackup; check stock-refuses $?; fi
is stock-hides-the-job ""
run pve-diff-backup revert; check revert-where-nothing-is $?
says "--fullbackup 7 taken out of"; check revert-tells $?
[ "$(tail -1 $pve/vzdump.cron)" = "0 2 * * *           root $line" ]; check nothing-but-the-option $?
n=$(archives); cron 1; check stripped-line-runs $?; [ "$(archives)" = $((n + 1)) ]; check stripped-line-backs-up $?
jobs >$L/last.log; grep -qE '^cron:1=-$' $L/last.log; check stock-shows-the-job $?
[ ! -e $pve/priv/lock/file-jobs_cfg ] && [ ! -e $pve/priv/lock/file-vzdump_cron ] && ! ls $pve | grep -q tmp; check nothing-left $?

if run pve-diff-backup test; then
	# 2. The line gets its option back, and runs with it
	cp -a $perl5 /var/pristine
	stock() { cp -a /var/pristine/. $perl5/; } # what dpkg unpacks
	run pve-diff-backup apply; check apply $?; says "--fullbackup 7 is back"; check apply-tells $?
	is option-is-back "cron:1=7"
	for i in 1 2; do sleep 1.1; sed -i "s/memory: .*/memory: $((600 + i))/" $pve/qemu-server/210.conf; cron 1; check restored-line-runs-$i $?; done
	ls /var/lib/vz/dump | grep -q -- --differential-; check restored-line-makes-differentials $?
	run pve-diff-backup revert; check revert $?; cron 1; check reverted-line-runs $?
	run pve-diff-backup apply; check apply-again $?
	printf '%s' "$head" >$pve/vzdump.cron

	if [ -e $perl5/Jobs.pm ]; then
		# 3. jobs.cfg: what Proxmox VE itself drops comes back
		new() { run pvesh create /cluster/backup --id "$1" --schedule '03:00' --vmid 210 --storage local "${@:2}"; check "create-$1" $?; }
		new job-1 --fullbackup 7; new job_2; new Job-3 --fullbackup 14
		is created "job-1=7 job_2=- Job-3=14"
		stock; run pvesh set /cluster/backup/job_2 --schedule 03:00 --mode suspend; check stock-edits $?
		! grep -q fullbackup $pve/jobs.cfg; check stock-drops-all $?
		run pve-diff-backup doctor; [ $? = 1 ]; check doctor-sees-it $?
		run pve-diff-backup apply; says "job Job-3: its Full Backup Every 14 is back"; check window-ends $?
		is given-back "job-1=7 job_2=- Job-3=14"
		run pvesh get /cluster/backup/job_2; says suspend; check edit-stays $?
		run pve-diff-backup doctor; check doctor-is-content $?

		# 4. what an administrator removes stays away
		run pvesh set /cluster/backup/job-1 --schedule 03:00 --enabled 1 --delete fullbackup; check removed $?
		stock; run pvesh set /cluster/backup/job_2 --schedule 03:00 --mode stop; run pve-diff-backup apply
		is removed-stays-removed "job-1=- job_2=- Job-3=14"
		run pvesh set /cluster/backup/job-1 --schedule 03:00 --fullbackup 0; stock; run pvesh set /cluster/backup/job_2 --schedule 03:00 --mode snapshot; run pve-diff-backup apply
		is zero-stays-zero "job-1=0 job_2=- Job-3=14"
		run pvesh delete /cluster/backup/Job-3; check deleted $?
		new Job-3; is made-anew "job-1=0 job_2=- Job-3=-"

		# 5. a backup's start brings back what another node dropped
		run pvesh set /cluster/backup/job_2 --schedule 03:00 --fullbackup 30; sed -i '/fullbackup/d' $pve/jobs.cfg
		sleep 1.1; run vzdump 210 --mode stop --storage local; check backup $?
		is backup-start-gives-back "job-1=0 job_2=30 Job-3=-"
		sed -i '/fullbackup/d' $pve/jobs.cfg; sleep 1.1
		vzdump 210 --mode stop --stdout 1 >/var/stdout.vma 2>$L/last.log; [ "$(head -c 3 /var/stdout.vma)" = VMA ]; check stdout-is-the-archive $?
		is backup-to-stdout-gives-back "job-1=0 job_2=30 Job-3=-"

		# 6. after a revert stock code has nothing to warn of, and a return brings all back
		run pve-diff-backup revert; check revert-last $?
		is reverted "job-1=- job_2=- Job-3=-"
		run pvesh get /cluster/backup; ! says "fullbackup"; check no-warning $?
		run pve-diff-backup apply; is returned "job-1=0 job_2=30 Job-3=-"
	fi

	# 7. a release that cannot be patched: jobs go on, and people are told once
	export PVE_STUB_NOTIFY=/var/log/notify; : >$PVE_STUB_NOTIFY; : >/var/log/fake-sendmail.log
	told() { cat $PVE_STUB_NOTIFY /var/log/fake-sendmail.log | grep -cE '"error"|^=== sendmail'; }
	sends() { # NAME COUNT
		cat $PVE_STUB_NOTIFY /var/log/fake-sendmail.log >$L/last.log; [ "$(told)" = "$2" ]; check "$1" $?; }
	printf '%s0 2 * * *           root %s --fullbackup 7\n' "$head" "$line" >$pve/vzdump.cron
	stock; sed -i 's/^sub exec_backup_task {/sub run_backup_task {/' $perl5/VZDump.pm
	trigger() { run pve-diff-backup hook triggered; check "$1" $?; }
	trigger failing-trigger; says exec_backup_task; check trigger-says-why $?
	grep -q -- "root $line\$" $pve/vzdump.cron; check cron-line-is-safe $?
	sends told-once 1
	trigger failing-again; sends not-told-again 1
	sed -i 's/^use PVE::Storage::Plugin;/use PVE::Storage::Plugin ();/' $perl5/Storage.pm
	trigger failing-otherwise; sends told-of-what-is-new 2
	stock; trigger trigger-succeeds; sends success-is-silent 2
	is cron-line-is-back-too "cron:1=7$([ ! -e $perl5/Jobs.pm ] || echo " job-1=0 job_2=30 Job-3=-")"
	run pve-diff-backup revert; check revert-at-last $?
	diff -r /var/pristine $perl5 >$L/last.log; check pristine $?

	# 8. a verification that systemd starts tells of failures as this release can: by the name of our template, by the
	# template itself, or by mail; that all is well goes to notifications only
	templates=/usr/share/pve-manager/templates/default
	quiet() { : >$PVE_STUB_NOTIFY; : >/var/log/fake-sendmail.log; }
	mails() { [ "$(grep -c '^=== sendmail' /var/log/fake-sendmail.log)" = "$1" ]; }
	quiet; run pve-diff-backup verify --scheduled --all local; check verify $?
	mails 0; check verify-mails-no-success $?
	[ ! -e $perl5/Notify.pm ] || grep -qE '^\["info",.*all of them restorable' $PVE_STUB_NOTIFY; check verify-tells-success $?
	echo x >/var/lib/vz/dump/vzdump-lxc-999-2026_11_20-01_00_02.tar
	quiet; run pve-diff-backup verify --scheduled --all local; [ $? = 1 ]; check verify-fails $?
	grep -q '^<3>FAIL  vzdump-lxc-999-' $L/last.log; check verify-says-it $?
	if [ -e $perl5/Notify.pm ]; then
		if [ -e $templates/vzdump-subject.txt.hbs ]; then first='"pve-diff-backup"'; else first='"{{subject}} ({{hostname}})","{{text}}"'; fi
		cat $PVE_STUB_NOTIFY >$L/last.log; grep -qF "[\"error\",$first,{\"hostname\":\"" $L/last.log; check verify-notifies $?
		says '"subject":"pve-diff-backup: 1 backup NOT restorable"'; check verify-notifies-what $?
		mails 0; check verify-notifies-once $?
	else
		cat /var/log/fake-sendmail.log >$L/last.log; mails 1; check verify-mails $?
		says "Subject: pve-diff-backup: 1 backup NOT restorable"; check verify-mails-what $?
	fi
	rm /var/lib/vz/dump/vzdump-lxc-999-2026_11_20-01_00_02.tar
else
	echo "no patch set for this release yet: what is left needs one"
fi
echo "jobs: $ok passed, $bad failed"
[ $bad = 0 ]
