// journey.js LANGUAGE: what a user of a patched host sees of differential backups in the browser, from a job's field to
// the removal of a chain.  Run by `run` beside it, through the program web-e2e.sh, which makes `web`.
'use strict';

const DUMP = '/var/lib/vz/dump';
const DISK = '/var/lib/vz/images/200/vm-200-disk-0.raw';
const STORAGE_CFG = '/etc/pve/storage.cfg';
const GUEST_LIST = 'pveBackupView';
const JOBS = 'pveDcBackupView';
const FIELD = 'window field[name=fullbackup]';

module.exports = async (web) => {
	const check = web.check.bind(web);
	const language = web.args[0] || 'en';
	const archives = () => web.sh(`ls -1 ${DUMP}`).split('\n')
		.filter((f) => /\.(vma|vcdiff)(\.(zst|lzo|gz))?$/.test(f)).sort();
	const isDifferential = (name) => name.includes('--differential-');
	// the date that belongs to a name: its last one
	const ownDate = (name) => name.match(/.*(\d{4})_(\d\d)_(\d\d)-(\d\d)_(\d\d)_(\d\d)/).slice(1).join(' ')
		.replace(/(\S+) (\S+) (\S+) (\S+) (\S+) (\S+)/, '$1-$2-$3 $4:$5:$6');
	const change = (at) => web.sh(`dd if=/dev/urandom of=${DISK} bs=64k seek=${at} count=4 conv=notrunc`);
	// texts of Proxmox, in its language; its catalogues are not in the tree, so most are English
	const told = (text) => web.page.evaluate((t) => PveDiffBackup.text(t), text);
	const press = async (text) => web.press(await told(text));
	const sayYes = async () => web.press(await web.page.evaluate(() => Ext.Msg.buttonText.yes));
	const classes = (name) => web.page.evaluate((n) => !!Ext.ClassManager.get(n), name);
	const html = (query) => web.component(query, (c) => c.el.dom.innerHTML);
	const offers = async (list, text) => web.component(list, (c, text) =>
		c.query('button').some((b) => b.text === text), await told(text));
	// a click into a box, as a person ticks it
	const tick = async (query) => {
		const at = await web.component(query, (c) => {
			const r = c.inputEl.dom.getBoundingClientRect();
			return [r.left + r.width / 2, r.top + r.height / 2];
		});
		await web.page.mouse.click(...at);
		await web.until('the tick', () => web.component(query, (c) => c.getValue() === true));
	};
	// what the page's scripts tell the console: errors, and whatever ours warns of
	const said = [];
	web.page.on('console', (message) => {
		const text = message.text();
		if (/pve-diff-backup/.test(text) || (message.type() === 'error' && !/^Failed to load resource/.test(text))) said.push(text);
	});
	const release = Number((await web.sh('dpkg-query -W -f \'${Version}\' pve-manager')).match(/^\d+\.\d+/)[0]);

	const backUp = (days) => web.task('vzdump', () => web.api('POST', `/nodes/${web.node}/vzdump`, {
		vmid: 200, storage: 'local', mode: 'snapshot', compress: release < 6.2 ? 'lzo' : 'zstd',
		...(days === undefined ? {} : { fullbackup: days }) }));
	const choose = async (list, name) => {
		// a long list only has the rows that are in view
		await web.component(list, (c, name) => {
			const record = c.getStore().getRange().find((r) => r.data.volid.endsWith(name));
			if (record) c.ensureVisible(record);
		}, name);
		return web.select(list, new RegExp(name.replace(/[.]/g, '\\.') + '"'));
	};

	web.sh('mkdir -p /var/lib/pve-diff-backup'); // the package's, where results of verifications are kept
	if (release < 6.2) web.sh(`sed -i 's/prune-backups .*/maxfiles 0/' ${STORAGE_CFG}`);
	if (language !== 'en') {
		await web.context.addCookies([{ name: 'PVELangCookie', value: language, url: 'https://127.0.0.1:8006' }]);
	}
	web.page.setDefaultTimeout(300000); // on a busy machine some 300 scripts take their time
	await web.login();

	// --- the field of a job

	const label = () => web.component(FIELD, (c) => {
		const mode = c.up('window').down('field[name=mode]');
		const el = c.ownerCt.labelEl;
		return { text: c.ownerCt.getFieldLabel(), fits: el.dom.scrollWidth <= el.getWidth(),
			lines: el.dom.scrollHeight / mode.labelEl.dom.scrollHeight, height: c.ownerCt.getHeight() - mode.getHeight() };
	});
	web.sh(`printf '\\npbs: server\\n\\tdatastore d\\n\\tserver 127.0.0.1\\n\\tusername u@pbs\\n\\tcontent backup\\n' >>${STORAGE_CFG}`);
	web.sh(`printf '\\nwebtest: provider\\n\\tcontent backup\\n' >>${STORAGE_CFG}`);
	await web.open('root', 'backup');
	await web.page.setViewportSize({ width: 1000, height: 720 });
	await press('Add');
	await web.idle();
	const empty = await label();
	await check('the label is one line and pushes nothing', empty.lines <= 1 && empty.height === 0, JSON.stringify(empty));
	await check('the label fits', empty.fits, JSON.stringify(empty));
	await web.screenshot('1-job-empty');
	await web.type(FIELD, '1.5');
	await check('a point cannot be typed', await web.value(FIELD) === 15);
	await web.component(FIELD, (c) => { c.setRawValue('2.5'); c.checkChange(); c.beforeBlur && c.beforeBlur(); });
	await check('pasted decimals are refused and not rounded', await web.component(FIELD, (c) =>
		!c.isValid() && c.getRawValue() === '2.5'));
	await web.page.mouse.move(5, 5); // a tooltip may cover the field
	await web.until('7 is typed', async () => {
		await web.type(FIELD, '7');
		return await web.value(FIELD) === 7;
	});
	await web.set('window field[name=storage]', 'local');
	const filled = await label();
	await check('with a value its unit is shown, and nothing moves', filled.lines <= 1 && filled.height === 0 &&
		await web.component(FIELD, (c) => c.nextSibling().isVisible(true) && c.nextSibling().el.dom.innerText.length > 0));
	await web.screenshot('1-job-filled');
	if (release >= 6.2) {
		await web.set('window field[name=storage]', 'server');
		await web.until('the field is greyed out', () => web.component(FIELD, (c) => c.isDisabled()));
		const hint = await web.component(FIELD, (c) => c.emptyText + (c.getSubmitData() ? ' sent' : ''));
		await check('for Proxmox Backup Server it is greyed out with a hint, and not sent',
			hint === await told('not for PBS'), hint);
		await web.screenshot('1-job-pbs');
		await web.set('window field[name=storage]', 'local');
		await check('... and as it was for another storage', await web.value(FIELD) === 7);
	}
	if (release >= 7.4) { // a plugin of somebody else's, which makes backups in its own way
		await web.until('the plugin\'s storage', () => web.component('window field[name=storage]', (c) =>
			c.getStore().findExact('storage', 'provider') >= 0));
		await web.set('window field[name=storage]', 'provider');
		await web.until('the field is greyed out', () => web.component(FIELD, (c) => c.isDisabled()));
		const hint = await web.component(FIELD, (c) => c.emptyText + (c.getSubmitData() ? ' sent' : ''));
		await check('... and for a provider\'s storage', hint === await told('not for this kind of storage'), hint);
		await web.screenshot('1-job-provider');
		await web.set('window field[name=storage]', 'local');
		await web.until('the field is as it was', async () => await web.value(FIELD) === 7);
	}
	if (await web.exists('window field[name=schedule]')) await web.set('window field[name=schedule]', 'daily');
	if (await web.exists('window vmselector')) await web.set('window vmselector', '200');
	else await web.select('window grid', /"vmid":"?200/);
	await press('Create');
	const job = (await web.api('GET', '/cluster/backup'))[0];
	await check('the job has the value', job && Number(job.fullbackup) === 7, JSON.stringify(job));
	await web.page.setViewportSize({ width: 1280, height: 800 });
	const column = await web.component(JOBS, (c) => {
		const found = c.headerCt.getGridColumns().find((one) => one.dataIndex === 'fullbackup');
		found.show();
		return { text: found.text, hides: c.headerCt.getGridColumns().some((one) => one.hidden) };
	});
	const jobs = await web.grid(JOBS);
	await check('the job list has a column for it', /^7 \S/.test(jobs[0][column.text]), JSON.stringify(jobs));
	await web.screenshot('2-jobs');
	if (await classes('PVE.dc.BackupInfo')) {
		await web.select(JOBS, /200/);
		await press('Job Detail');
		await web.until('the detail', () => web.exists('pveBackupInfo displayfield[name=fullbackup]'));
		const shown = await web.component('pveBackupInfo displayfield[name=fullbackup]', (c) => c.el.dom.innerText);
		await check('the detail shows it', /7 \S/.test(shown), shown);
		await web.screenshot('2-detail');
		await web.closeWindows();
	}
	for (const [typed, wanted] of [['14', 14], ['', undefined], ['7', 7]]) {
		await web.select(JOBS, /200/);
		const before = (await web.api('GET', '/cluster/backup'))[0];
		await press('Edit');
		await web.until('the job\'s value', async () =>
			Number(await web.value(FIELD)) === Number(before.fullbackup || 0) && await web.value('window field[name=storage]') === 'local');
		await web.page.mouse.move(5, 5);
		await web.type(FIELD, typed);
		await web.screenshot(`2-edit-${typed}`);
		await press('OK');
		await web.until('the window has closed', async () => (await web.windows()).length === 0);
		const after = (await web.api('GET', '/cluster/backup'))[0];
		// up to 6.4 a job has no id of its own
		const others = /^(fullbackup|next-run|repeat-missed|id)$/;
		const rest = (one) => JSON.stringify(Object.entries(one).filter(([key]) => !others.test(key)).sort());
		await check(wanted ? `the job is edited to ${wanted} days` : 'the job\'s field is cleared', Number(after.fullbackup || 0) === (wanted || 0) &&
			'fullbackup' in after === !!wanted && rest(after) === rest(before), JSON.stringify([before, after]));
	}

	// --- a chain of three, and another full

	const byJob = async () => {
		await web.select(JOBS, /200/);
		return web.task('vzdump', async () => {
			await press('Run now');
			await sayYes();
		});
	};
	const canRun = await offers(JOBS, 'Run now');
	for (const [days, wanted, ...isJob] of [[7, false, canRun], [7, true], [7, true]]) {
		web.sh(`cp ${DISK} ${DISK}.then`);
		const before = archives();
		const run = await (isJob[0] ? byJob() : backUp(days));
		await web.closeWindows();
		const made = archives().filter((f) => !before.includes(f));
		await check(`a ${wanted ? 'differential' : 'full'} backup`,
			run.status === 'OK' && made.length === 1 && isDifferential(made[0]) === wanted, run.log.slice(-300));
		change(100 * archives().length);
	}
	const [full, first, second] = archives();
	await check('the job was run from its list', canRun);

	// by hand, in the window
	await web.open('qemu/200', 'backup');
	for (const [kind, wanted] of [['full', false], ['differential', true], ['', false]]) {
		const before = archives();
		await press('Backup now');
		await web.idle();
		await web.set('window field[name=fullbackupKind]', kind);
		await web.screenshot(`3-now-${kind}`);
		const run = await web.task('vzdump', () => web.page.evaluate(() => {
			const buttons = Ext.ComponentQuery.query('window button').filter((b) => b.text === gettext('Backup') && b.isVisible(true));
			buttons[0].el.dom.click();
		}));
		await web.closeWindows();
		const made = archives().filter((f) => !before.includes(f));
		await check(`backup now, ${kind || 'as the default'}`,
			run.status === 'OK' && made.length === 1 && isDifferential(made[0]) === wanted, run.log.slice(-300));
	}
	const all = archives();
	const needing = all.filter((f) => f.startsWith(`${full}--`)).length;

	// --- lists

	const lists = [['qemu/200', 'backup', GUEST_LIST]];
	if (await classes('PVE.storage.BackupView')) lists.push(['storage/pve1/local', 'contentBackup', 'pveStorageBackupView']);
	for (const [id, tab, list] of lists) {
		await web.open(id, tab);
		await web.until('all rows', async () => (await web.grid(list)).length === all.length);
		const records = await web.component(list, (c) => c.getStore().getRange().map((r) => ({ volid: r.data.volid, date: r.data.vdate })));
		await check(`${list}: each backup under its own date`, records.every((r) => r.date === ownDate(r.volid)), JSON.stringify(records));
		const order = records.map((r) => r.date);
		const sorted = order.slice().sort();
		await check(`${list}: sorted by it`, [sorted, sorted.slice().reverse()].some((s) => s.join() === order.join()), order.join());
		const rows = await web.grid(list);
		const cell = (row, name) => row[name] || Object.values(row).join(' ');
		await check(`${list}: the dates are shown`, records.every((r, i) => JSON.stringify(rows[i]).includes(r.date)), JSON.stringify(rows));
		const format = rows.filter((r) => /^\S+, vma, (zst|lzo)$/.test(cell(r, 'Format')));
		await check(`${list}: a differential's format in words`, format.length === all.filter(isDifferential).length, JSON.stringify(rows.map((r) => r.Format)));
		const shown = await html(list);
		await check(`${list}: a full backup tells how many need it`, new RegExp(`fa-files-o[^>]*></i> ${needing}<`).test(shown), '');
		await check(`${list}: a differential tells of which full`, shown.includes(`${full}`) && /fa-level-up/.test(shown), '');
		if (await offers(list, 'Edit Notes')) {
			await choose(list, first);
			await press('Edit Notes');
			await web.set('window field[name=notes]', `noted in ${list}`);
			await press('OK');
			await web.until('the notes are shown', async () => (await html(list)).includes(`noted in ${list}`));
			const noted = await web.component(list, (c, name) => c.getStore().getRange().filter((r) =>
				/^noted/.test(r.data.notes || r.data.comment)).map((r) => r.data.volid), '');
			await check(`${list}: a differential's notes are its own`, noted.length === 1 && noted[0].endsWith(first), JSON.stringify(noted));
		}
		await choose(list, second);
		await press('Show Configuration');
		const configuration = await web.window(/vm200/);
		await check(`${list}: a differential's configuration`, /scsi0/.test(configuration), configuration);
		await web.closeWindows();
		await web.screenshot(`4-${tab}`);
		await web.page.setViewportSize({ width: 900, height: 700 });
		await web.screenshot(`4-${tab}-narrow`);
		await web.page.setViewportSize({ width: 1280, height: 800 });
	}

	// --- the page of nodes, jobs and chains

	const [NODES, CHAINS, BACKUPS] = ['pveDiffBackupNodes', 'pveDiffBackupChains', 'pveDiffBackupBackups'];
	const first_row = (list) => web.component(list, (c) => {
		const record = c.getStore().getAt(0);
		return record ? { ...record.data, backups: undefined } : {};
	});
	const reload = async () => {
		await press('Reload');
		await web.until('the node\'s answer', async () => (await first_row(NODES)).state !== '');
		await web.idle();
	};
	// a button of the page that asks and starts a task
	const start = async (button, type) => {
		const run = await web.task(type, async () => {
			await press(button);
			await web.screenshot(`8-ask-${button}`);
			await sayYes();
		});
		await web.screenshot(`8-task-${button}`);
		await web.closeWindows();
		return run;
	};
	await web.open('root', 'differential');
	await web.until('a guest', async () => (await web.grid(CHAINS)).length === 1);
	await web.until('the node\'s answer', async () => (await first_row(NODES)).state !== '');
	const total = await first_row(CHAINS);
	await web.screenshot('8-page');
	await check('the datacenter\'s page sums up each guest\'s chains', total.guest === 'qemu/200' && total.fulls === 3 &&
		total.differentials === 3 && total.stranded === 0 && total.saved > 2 * total.differentialSize &&
		total.newest === ownDate(all[all.length - 1]), JSON.stringify(total));
	const node = await first_row(NODES);
	await check('... tells how each node stands', node.node === web.node && node.state === 'patched' && node.attention.length === 0,
		JSON.stringify(node));
	const shownJobs = await web.grid('pveDiffBackupJobs');
	await check('... which jobs have the option', shownJobs.length === 1 && /^7 \S/.test(shownJobs[0][column.text]), JSON.stringify(shownJobs));
	const listed = await web.component(BACKUPS, (c) => c.getStore().getRange().map((r) => r.data.volid.replace(/.*\//, '')));
	await check('... and the only guest\'s backups', listed.slice().sort().join() === all.join(), listed.join());
	await web.page.setViewportSize({ width: 900, height: 700 });
	await web.screenshot('8-page-narrow');
	await web.page.setViewportSize({ width: 1280, height: 800 });

	const verified = await (async () => {
		await web.select(CHAINS, /qemu/);
		return start('Verify', 'diffverify');
	})();
	await check('a guest\'s backups can be verified there', verified.status === 'OK' && all.every((f) => verified.log.includes(f)),
		verified.status + verified.log);
	await web.until('the results', async () => (await first_row(CHAINS)).checked === all.length);
	const good_row = await first_row(CHAINS);
	await check('... which the page then shows', good_row.bad === 0 && good_row.checkedAt > 1e9 &&
		/fa-check good/.test(await html(CHAINS)), JSON.stringify(good_row));
	await web.screenshot('8-page-verified');

	// one verification at a time of a storage on a node
	web.sh('flock /run/pve-diff-backup-verify-local.lock sleep 600 </dev/null >/dev/null 2>&1 & echo $! >/run/held');
	await web.select(CHAINS, /qemu/);
	await press('Verify');
	await sayYes();
	const busy = await web.window(/being verified already/);
	await web.screenshot('8-verify-busy');
	await check('while one runs another is refused with the reason', /wait for that task, or stop it/.test(busy), busy);
	web.sh('pkill -P $(cat /run/held); kill $(cat /run/held)');
	await web.closeWindows();

	// a damaged differential: the file itself comes back later
	web.sh(`cp -p ${DUMP}/${second} ${DUMP}/../whole; printf XXXXXXXX | dd of=${DUMP}/${second} bs=1 seek=$(( $(stat -c %s ${DUMP}/${second}) / 2 )) conv=notrunc`);
	await reload();
	await web.select(CHAINS, /qemu/);
	const broken = await start('Verify', 'diffverify');
	await check('a damaged one is told of', broken.status !== 'OK' && /FAIL/.test(broken.log), broken.status + broken.log);
	await web.until('the results', async () => (await first_row(CHAINS)).bad === 1);
	await check('... by the page too', /fa-times critical/.test(await html(CHAINS)) && /fa-times critical/.test(await html(BACKUPS)));
	await web.screenshot('8-page-damaged');

	// what doctor says
	web.sh('echo nonsense >/etc/pve-diff-backup.conf');
	await reload();
	await web.select(NODES, /pve1/);
	await press('Show');
	const advice = await web.window(/pve-diff-backup\.conf/);
	await web.screenshot('8-doctor');
	await check('what doctor says is shown', /line 1/.test(advice), advice);
	await web.closeWindows();
	web.sh('rm /etc/pve-diff-backup.conf');

	// a node with an older version of a file of ours
	web.sh('echo "# older" >>/usr/share/perl5/PVE/VZDump/Differential/Jobs.pm');
	await reload();
	const older = await first_row(NODES);
	await check('a node that is not up to date is told of', older.state === 'mixed' && older.attention.length > 0, JSON.stringify(older));
	await web.select(NODES, /pve1/);
	await web.screenshot('8-page-older');
	const applied = await start('Apply', 'diffapply');
	await reload();
	const current = await first_row(NODES);
	await check('... and brought up to date', applied.status === 'OK' && current.state === 'patched' && current.attention.length === 0,
		JSON.stringify(current) + applied.log);

	// who may see nothing of that guest
	const told_to = web.sh(`
		pvesh create /access/users --userid blind@pve --password secret99 >/dev/null 2>&1
		pvesh set /access/acl --path /storage/local --roles PVEDatastoreUser --users blind@pve >/dev/null 2>&1
		ticket=$(curl -sk -d 'username=blind@pve&password=secret99' https://127.0.0.1:8006/api2/json/access/ticket)
		cookie=$(sed 's/.*"ticket":"\\([^"]*\\)".*/\\1/' <<<"$ticket") token=$(sed 's/.*"CSRFPreventionToken":"\\([^"]*\\)".*/\\1/' <<<"$ticket")
		ask() { echo "$1 $2: $(curl -sk -X "$1" -w ' %{http_code}' -b "PVEAuthCookie=$cookie" -H "CSRFPreventionToken: $token" \\
			"https://127.0.0.1:8006/api2/json/nodes/pve1/pve-diff-backup/$2" "\${@:3}")"; }
		ask GET storages; ask GET 'verified?storage=local'; ask GET status; ask POST verify -d storage=local
		ask POST consolidate -d 'volume=local:backup/${first}'; ask POST apply`);
	const asked = Object.fromEntries(told_to.trim().split('\n').map((line) => [line.split(':')[0], line]));
	await check('who may not see a guest hears nothing of its backups', /"storage":"local"/.test(asked['GET storages']) &&
		!/server|provider/.test(asked['GET storages']) && /"data":\[\].* 200$/.test(asked['GET verified?storage=local']) &&
		/ 403$/.test(asked['GET status']), told_to);
	await check('... and can do nothing to them', / 500$/.test(asked['POST verify']) && / 403$/.test(asked['POST consolidate']) &&
		/ 403$/.test(asked['POST apply']), told_to);
	await web.open(lists[lists.length - 1][0], lists[lists.length - 1][1]);
	await web.idle();

	// --- what pruning would keep, and why

	const [id, tab, list] = lists[lists.length - 1];
	if (await classes('PVE.window.Prune')) {
		await choose(list, second);
		const prune = await web.page.evaluate(() => gettext('Prune group'));
		await web.press(`${prune} qemu/200`);
		const reasons = async (field, value) => {
			for (const other of ['keep-last', 'keep-daily']) await web.type(`window field[name=${other}]`, '');
			await web.type(`window field[name=${field}]`, value);
			const rows = () => web.component('window grid', (c) => c.getStore().getRange().map((r) =>
				[r.data.volid.replace(/.*\//, ''), r.data.mark, r.data.keepReason]));
			// The answer may be long in coming on a busy machine.
			await web.until('the preview', async () => (await rows()).some(([, mark]) => mark === 'remove'));
			await web.idle();
			return rows();
		};
		const last = await reasons('keep-last', '2');
		const why = Object.fromEntries(last.map(([name, mark, reason]) => [name, mark === 'keep' ? reason : mark]));
		await web.screenshot('5-prune');
		const [newest, newestButOne] = all.slice().sort((a, b) => ownDate(b) < ownDate(a) ? -1 : 1);
		const needed = newestButOne.split('--')[0];
		await check('the preview says why a full backup is kept, and the others\' reasons are as ever',
			why[newest] === 'keep-last: 1' && why[newestButOne] === 'keep-last: 2' && /1/.test(why[needed]) &&
			!/keep-/.test(why[needed]) && all.every((f) => [newest, newestButOne, needed].includes(f) || why[f] === 'remove'),
			JSON.stringify(last));
		await web.closeWindows();
	}

	// --- restore: which full is needed, and whether it is there

	const restoreWindow = async (what) => {
		await choose(list, second);
		await press('Restore');
		await web.until('the window', () => web.exists('window displayfield[name=fullBackupName]'));
		// Closed while it still reads the configuration, Proxmox' window fails.
		await web.until('its answer', () => web.page.evaluate(() =>
			![...document.querySelectorAll('.x-mask-msg')].some((mask) => mask.offsetParent)));
		await web.idle();
		const seen = { name: await web.value('window displayfield[name=fullBackupName]'), hint: '' };
		if (await web.exists('window displayfield[name=fullBackupHint]')) seen.hint = await web.value('window displayfield[name=fullBackupHint]');
		await web.screenshot(`6-restore-${what}`);
		seen.windows = JSON.stringify(await web.windows());
		await web.closeWindows();
		return seen;
	};
	const doubted = await restoreWindow('doubted');
	await check('the restore window tells what a verification found', /\d{4}-\d\d-\d\d/.test(doubted.hint), JSON.stringify(doubted));
	web.sh(`mv ${DUMP}/../whole ${DUMP}/${second}`);
	const good = await restoreWindow('good');
	await check('the restore window names the full backup', good.name.includes(full) && good.hint === '', JSON.stringify(good));
	const compared = await (async () => {
		// The storage's list offers a new guest; up to 6.1 it has a tab for everything.
		if (release < 6.2) {
			await web.open('storage/pve1/local', 'content');
			await choose('pveStorageContentView', second);
		} else {
			await choose(list, second);
		}
		await press('Restore');
		await web.until('the window', () => web.exists('window displayfield[name=fullBackupName]'));
		await web.idle();
		await web.set('window field[name=vmid]', 105);
		await web.set('window field[name=storage]', 'local');
		const run = await web.task('qmrestore', () => press('Restore'));
		await web.closeWindows();
		if (release < 6.2) await web.open(id, tab);
		return run.status + web.sh(`cmp ${DISK}.then /var/lib/vz/images/105/vm-105-disk-0.raw && echo same`);
	})();
	await check('a differential is restored to a new guest with the disk of then', compared === 'OKsame\n', compared);
	web.sh(`mv ${DUMP}/${full} ${DUMP}/../away`);
	const missing = await restoreWindow('missing');
	await check('... and warns where it is missing', missing.hint !== '', JSON.stringify(missing));
	await choose(list, second);
	await press('Show Configuration');
	const reason = await web.window(/Error/);
	await web.screenshot('6-configuration-missing');
	await check('the configuration tells it in a sentence', /put it back/.test(reason) && !/os error/.test(reason), reason);
	await web.closeWindows();
	await web.component(list, (c) => void c.getStore().load());
	await web.idle();
	await check('the list warns', /fa-exclamation-triangle/.test(await html(list)));
	await web.screenshot('6-list-missing');
	web.sh(`head -c 5000 ${DUMP}/../away >${DUMP}/${full}`);
	const damaged = await restoreWindow('damaged');
	await check('... and the restore window where it is damaged',
		/the full backup \S+ (is damaged|cannot be read): \w/.test(damaged.hint + damaged.windows), JSON.stringify(damaged));
	web.sh(`mv ${DUMP}/../away ${DUMP}/${full}`);
	await web.component(list, (c) => void c.getStore().load());

	// --- removal: refused where the full is needed, unless all go

	const copies = `${DUMP}/${full}--differential-2030_01_01-00_00_`;
	web.sh(`for i in {10..${60 - needing}}; do ln ${DUMP}/${first} ${copies}$i.vcdiff${first.match(/vcdiff(.*)/)[1]}; done`);
	await web.component(list, (c) => void c.getStore().load());
	await web.idle();
	const ask = async () => {
		await choose(list, full);
		await press('Remove');
		return web.window(/\b51\b/);
	};
	const question = await ask();
	await check('before the click it says how many differentials need the full backup', /\b51\b.*\b48\b/.test(question), question);
	await web.screenshot('7-remove');
	await sayYes();
	const refusal = await web.window(/^Error/, 30);
	await web.screenshot('7-refused');
	await check('the refusal has the count, a few names, and how many more',
		/51 differential backup.* need it.* and 48 more/.test(refusal) && !/ line \d+\.|unexpected status/.test(refusal) &&
		archives().length === all.length + 51 - needing, refusal);
	await web.closeWindows();
	web.sh(`rm ${copies}{13..58}*`);
	await web.component(list, (c) => void c.getStore().load());
	await web.idle();
	if (release >= 7.2) { // one that is protected stays, and so does its full
		const volid = `local:backup/${first}`;
		await web.api('PUT', `/nodes/${web.node}/storage/local/content/${volid}`, { protected: 1 });
		await web.component(list, (c) => void c.getStore().load());
		await web.idle();
		await choose(list, full);
		await press('Remove');
		await web.window(new RegExp(`\\b${needing + 3}\\b`));
		await check('with a protected one among them it is not offered to remove all', await web.component(
			'window field[name=removeDifferentials]', (c) => c.isDisabled()));
		await web.screenshot('7-protected');
		await web.closeWindows();
		await web.api('PUT', `/nodes/${web.node}/storage/local/content/${volid}`, { protected: 0 });
		await web.component(list, (c) => void c.getStore().load());
		await web.idle();
	}
	await choose(list, full);
	await press('Remove');
	await web.window(new RegExp(`\\b${needing + 3}\\b`));
	await tick('window field[name=removeDifferentials]');
	await web.screenshot('7-remove-all');
	await sayYes();
	await web.until('all are removed', () => !archives().some((f) => f.startsWith(full)), 60);
	await web.idle();
	const left = all.filter((f) => !f.startsWith(full));
	await check('with a tick the full goes with all that need it, and nothing else',
		archives().join() === left.join() && (await web.windows()).length === 0, `${archives().join()} ${JSON.stringify(await web.windows())}`);
	await web.until('the list says so', async () => (await web.grid(list)).length === left.length);

	// --- a differential becomes a full backup of its own

	await backUp(7);
	change(50);
	await backUp(7);
	const alone = archives();
	const lone = alone.find(isDifferential);
	await web.open('root', 'differential');
	await web.until('the guest\'s backups', () => web.component(BACKUPS, (c, count) => c.getStore().getCount() === count, alone.length));
	await web.idle();
	await choose(BACKUPS, lone);
	const consolidated = await start('Consolidate', 'diffconsolidate');
	const [whole, ...others] = archives().filter((f) => !alone.includes(f));
	await check('a differential can be made a full backup of its own date', consolidated.status === 'OK' && others.length === 0 &&
		!archives().includes(lone) && !isDifferential(whole) && ownDate(whole) === ownDate(lone), consolidated.status + consolidated.log);
	const proof = web.sh(`pve-diff-backup verify --all ${DUMP}/${whole}`);
	await check('... which can be restored', /^OK /m.test(proof), proof);
	await web.until('the page says so', () => web.component(CHAINS, (c, count) =>
		c.getStore().getAt(0).data.differentials === count, archives().filter(isDifferential).length));
	await web.screenshot('8-page-consolidated');
	await check('no script errors', web.errors.length === 0, web.errors.join(' | '));
	await check('the console has no errors, and no warnings of ours', said.length === 0, said.join(' | '));
};
