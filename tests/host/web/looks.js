// looks.js [LANGUAGE...]: each window, list and page that has something of ours, in the languages of our catalogue, in
// Proxmox' dark theme and narrow: nothing of ours is cut off or untranslated.  Screenshots show the rest, for people.
// Run by `run` beside it on a tree that `dress` was given.
'use strict';

const DUMP = '/var/lib/vz/dump';
const DISK = '/var/lib/vz/images/200/vm-200-disk-0.raw';
const GUEST_LIST = 'pveBackupView';
const JOBS = 'pveDcBackupView';
const FIELD = 'window field[name=fullbackup]';
const CHAINS = 'pveDiffBackupChains';

// Runs in the page.  The texts of ours that something cuts off: of our fields, columns, buttons and messages, not of cells,
// which may be narrow and have a tooltip.
function cutTexts() {
	const query = (selector) => Ext.ComponentQuery.query(selector).filter((c) => c.rendered && c.isVisible(true));
	const ours = query('pveDiffBackupPage, gridcolumn[dataIndex=fullbackup], field[name=fullbackupKind], messagebox, ' +
		'field[name=fullBackupName], field[name=fullBackupHint], field[name=removeDifferentials], displayfield[name=fullbackup]')
		.concat(query('fieldcontainer field[name=fullbackup]').map((c) => c.ownerCt));
	const cut = [];
	// what stands in an empty field
	const pen = document.createElement('canvas').getContext('2d');
	for (const input of query('field[name=fullbackup]').map((c) => c.inputEl.dom).filter((one) => !one.value && one.placeholder)) {
		const style = getComputedStyle(input);
		pen.font = style.font;
		const room = input.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
		if (pen.measureText(input.placeholder).width > room) cut.push(input.placeholder);
	}
	for (const component of ours) {
		const walker = document.createTreeWalker(component.el.dom, NodeFilter.SHOW_TEXT);
		for (let node = walker.nextNode(); node; node = walker.nextNode()) {
			const parent = node.parentElement;
			if (!node.data.trim() || parent.closest('.x-grid-cell, script, style, [class*=x-hidden]') || !parent.offsetParent) continue;
			const range = document.createRange();
			range.selectNodeContents(node);
			const text = range.getBoundingClientRect();
			if (!text.width) continue;
			for (let box = parent; box && box !== document.body; box = box.parentElement) {
				const style = getComputedStyle(box);
				// what scrolls cuts nothing off
				if (/auto|scroll/.test(style.overflowX) || box.classList.contains('x-grid-header-ct')) break;
				const edge = box.getBoundingClientRect();
				if (style.overflowX === 'hidden' && (text.right > edge.right + 0.1 || text.left < edge.left - 0.1)) {
					cut.push(node.data.trim());
					break;
				}
			}
		}
	}
	return [...new Set(cut)];
}

module.exports = async (web) => {
	const check = web.check.bind(web);
	const told = (text) => web.page.evaluate((t) => PveDiffBackup.text(t), text);
	const press = async (text) => web.press(await told(text));
	const classes = (name) => web.page.evaluate((n) => !!Ext.ClassManager.get(n), name);
	const release = Number((await web.sh('dpkg-query -W -f \'${Version}\' pve-manager')).match(/^\d+\.\d+/)[0]);
	const archives = () => web.sh(`ls -1 ${DUMP}`).split('\n').filter((f) => /\.(vma|vcdiff)(\.(zst|lzo|gz))?$/.test(f)).sort();
	const said = [];
	const errors = []; // of scripts, with the picture that was taken next
	web.page.on('console', (message) => {
		if (message.type() === 'error' && !/^Failed to load resource/.test(message.text())) said.push(message.text());
		if (/pve-diff-backup/.test(message.text())) said.push(message.text());
	});

	// what there is to see: two chains, of one of which something is damaged, a differential alone, a job, something to do
	web.sh('mkdir -p /var/lib/pve-diff-backup');
	web.page.setDefaultTimeout(300000);
	if (release < 6.2) web.sh('sed -i \'s/prune-backups .*/maxfiles 0/\' /etc/pve/storage.cfg');
	if (release >= 6.2) {
		web.sh('printf \'\\npbs: server\\n\\tdatastore d\\n\\tserver 127.0.0.1\\n\\tusername u@pbs\\n\\tcontent backup\\n\' >>/etc/pve/storage.cfg');
	}
	await web.login();
	for (const days of [7, 7, 7, 7, 0]) {
		const run = await web.task('vzdump', () => web.api('POST', `/nodes/${web.node}/vzdump`, {
			vmid: 200, storage: 'local', mode: 'snapshot', compress: release < 6.2 ? 'lzo' : 'zstd', fullbackup: days }));
		if (run.status !== 'OK') throw new Error(run.log);
		web.sh(`dd if=/dev/urandom of=${DISK} bs=64k seek=$((100 * ${archives().length})) count=4 conv=notrunc`);
	}
	const [full, first, second, third] = archives();
	web.sh(`cd ${DUMP} && cp ${first} ${first.replace('qemu-200', 'qemu-301')}`);
	web.sh(`printf XXXXXXXX | dd of=${DUMP}/${third} bs=1 seek=$(( $(stat -c %s ${DUMP}/${third}) / 2 )) conv=notrunc; pve-diff-backup verify --all ${DUMP}`);
	web.sh('printf \'compresss: 3\\n\' >/etc/pve-diff-backup.conf');
	await web.api('POST', '/cluster/backup', { vmid: 200, storage: 'local', fullbackup: 7, mode: 'snapshot',
		...(release < 7 ? { starttime: '03:00' } : { schedule: 'daily', comment: 'nightly' }) });

	const choose = async (list, name) => {
		await web.component(list, (c, name) => {
			const record = c.getStore().getRange().find((r) => r.data.volid.endsWith(name));
			if (record) c.ensureVisible(record);
		}, name);
		return web.select(list, new RegExp(name.replace(/[.]/g, '\\.') + '"'));
	};

	// a button that may be out of sight where it is narrow
	const pressIn = (list, text) => web.component(list, (c, text) =>
		void c.query('button').find((b) => b.text === text).el.dom.click(), text);
	const look = async (pass) => {
		const cut = [];
		const shot = async (name) => {
			await web.idle();
			await web.screenshot(`${pass}-${name}`);
			for (const text of await web.page.evaluate(cutTexts)) cut.push(`${name}: ${text}`);
			for (const error of web.errors.splice(0)) errors.push(`${pass}-${name}: ${error}`);
		};
		await web.open('root', 'backup');
		await web.component(JOBS, (c) => void c.headerCt.getGridColumns().find((one) => one.dataIndex === 'fullbackup').show());
		await shot('1-jobs');
		await press('Add');
		await web.idle();
		await shot('1-job-empty');
		await web.set(FIELD, 7);
		await shot('1-job-filled');
		if (release >= 6.2) {
			await web.set('window field[name=storage]', 'server');
			await web.until('the field is greyed out', () => web.component(FIELD, (c) => c.isDisabled()));
			await shot('1-job-pbs');
		}
		await web.closeWindows();
		if (await classes('PVE.dc.BackupInfo')) {
			await web.select(JOBS, /200/);
			await press('Job Detail');
			await web.until('the detail', () => web.exists('pveBackupInfo displayfield[name=fullbackup]'));
			await shot('1-job-detail');
			await web.closeWindows();
		}

		await web.open('qemu/200', 'backup');
		await press('Backup now');
		await web.set('window field[name=fullbackupKind]', 'differential');
		await shot('2-now');
		await web.closeWindows();
		await shot('2-list');
		await choose(GUEST_LIST, full);
		await pressIn(GUEST_LIST, await told('Remove'));
		await web.until('the question', () => web.exists('window field[name=removeDifferentials]'));
		await shot('2-remove');
		await web.closeWindows();
		// Proxmox' window for a guest that is there fails when it is closed, whatever backup it is of.
		let list = GUEST_LIST;
		if (await classes('PVE.storage.BackupView')) {
			list = 'pveStorageBackupView';
			await web.open('storage/pve1/local', 'contentBackup');
		}
		await choose(list, third);
		await pressIn(list, await told('Restore'));
		await web.until('the hint', () => web.exists('window displayfield[name=fullBackupHint]'));
		// Closed while it still reads the configuration, Proxmox' window fails.
		await web.until('the configuration', () => web.page.evaluate(() =>
			![...document.querySelectorAll('.x-mask-msg')].some((mask) => mask.offsetParent)));
		await shot('2-restore');
		await web.closeWindows();

		await web.open('root', 'differential');
		await web.until('the guests', () => web.component(CHAINS, (c) => c.getStore().getCount() === 2));
		await web.until('the node\'s answer', () => web.component('pveDiffBackupNodes', (c) => c.getStore().getAt(0).data.state !== ''));
		await web.select(CHAINS, /qemu\/200/);
		await shot('3-page');
		await press('Verify');
		await shot('3-verify');
		await web.closeWindows();
		await choose('pveDiffBackupBackups', second);
		await press('Consolidate');
		await shot('3-consolidate');
		await web.closeWindows();
		await web.component('pveDiffBackupPage', (c) => void (c.body.dom.scrollTop = 0));
		await web.select('pveDiffBackupNodes', /pve1/);
		await press('Show');
		await shot('3-doctor');
		await web.closeWindows();
		await press('Apply');
		await shot('3-apply');
		await web.closeWindows();

		if (await classes('PVE.window.Prune')) {
			const list = 'pveStorageBackupView';
			await web.open('storage/pve1/local', 'contentBackup');
			await choose(list, third);
			const prune = await web.page.evaluate(() => gettext('Prune group'));
			await pressIn(list, `${prune} qemu/200`);
			await web.type('window field[name=keep-last]', '2');
			await web.until('the preview', () => web.component('window grid', (c) => c.getStore().getRange().some((r) => r.data.mark === 'remove')));
			await shot('4-prune');
			await web.closeWindows();
		}
		await check(`${pass}: nothing of ours is cut off`, cut.length === 0, cut.join(' | '));
	};

	// by the name of its cookies
	const dress = async (cookies) => {
		await web.context.addCookies(Object.entries(cookies).map(([name, value]) => ({ name, value, url: 'https://127.0.0.1:8006' })));
		await web.page.reload();
		await web.page.waitForFunction(() => typeof Ext !== 'undefined' && Ext.isReady);
		await web.until('the interface', () => web.exists('pveResourceTree'), 60);
		await web.idle();
		await web.closeWindows();
	};
	const source = web.read('/usr/share/pve-manager/js/pve-diff-backup.js');
	// eslint-disable-next-line no-eval
	const catalogue = eval(`(${/var CATALOGUE = (\{[\s\S]*?\n    \});/.exec(source)[1]})`);
	const literals = [...source.replace(/[\s\S]*?\n    var ours =/, '')
		.matchAll(/(?:\btext|number|rowButton)\(\s*'((?:[^'\\]|\\.)*)'/g)].map((found) => found[1].replace(/\\'/g, '\''));

	await web.page.setViewportSize({ width: 1440, height: 900 });
	const languages = web.args.length ? web.args : ['en', 'de', 'fr', 'es', 'it', 'zh_CN'];
	for (const language of languages) {
		await dress({ PVELangCookie: language, PVEThemeCookie: 'crisp' });
		const knows = await web.page.evaluate(() => typeof gettext.knows === 'function');
		if (language !== 'en' && knows) {
			const untranslated = await web.page.evaluate((all) => all.filter((t) => !gettext.knows(t)),
				literals.filter((t) => !catalogue[language][t]));
			await check(`${language}: all texts are translated`, literals.length > 30 && untranslated.length === 0, untranslated.join(' | '));
		}
		await look(language);
	}
	await web.page.setViewportSize({ width: 900, height: 700 });
	await dress({ PVELangCookie: 'de', PVEThemeCookie: 'crisp' });
	await look('de-narrow');
	await web.page.setViewportSize({ width: 1440, height: 900 });
	if (web.sh('ls /usr/share/javascript/proxmox-widget-toolkit/themes 2>/dev/null').includes('dark')) {
		await dress({ PVELangCookie: 'en', PVEThemeCookie: 'proxmox-dark' });
		await look('en-dark');
	}
	await check('no script errors', errors.length === 0, errors.join(' | '));
	await check('the console has no errors, and no warnings of ours', said.length === 0, said.join(' | '));
};
