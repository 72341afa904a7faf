// files.js: files out of containers' backups in the browser, by Proxmox' own window: listed, sent one by one and in folders, out
// of full backups, differential ones and those that vzdump made without us; who may not, a VM, and damage.  Run by `run`
// beside it.
'use strict';
const fs = require('fs');

const TMP = process.env.TMPDIR || '/tmp';
const DUMP = '/var/lib/vz/dump';
const ROOT = '/var/lib/vz/images/105/subvol-105-disk-0.subvol';
const LIST = 'pveStorageBackupView';
const TREE = 'window treepanel';

module.exports = async (web) => {
	const check = web.check.bind(web);
	const release = Number((await web.sh('dpkg-query -W -f \'${Version}\' pve-manager')).match(/^\d+\.\d+/)[0]);
	if (release < 6.4) {
		await check('there is no File Restore in this release', true);
		return;
	}
	const archives = () => web.sh(`ls -1 ${DUMP}`).split('\n').filter((f) => /\.(vma|tar|vcdiff)(\.(zst|lzo|gz))?$/.test(f)).sort();
	const told = (text) => web.page.evaluate((t) => PveDiffBackup.text(t), text);
	const made = (command) => {
		const before = archives();
		const said = web.sh(command);
		const [name] = archives().filter((f) => !before.includes(f));
		if (!name) web.note(said);
		web.sh('sleep 1.1');
		return name || 'none';
	};
	const vzdump = (id, days, compress) =>
		made(`vzdump ${id} --mode ${id === 105 ? 'stop' : 'snapshot'} --storage local --compress ${compress} --fullbackup ${days}`);

	// --- a container with backups of each kind, and a VM with one

	web.sh(`mkdir -p ${ROOT}/{etc/network,root,dev,proc,sys,tmp,usr/share,var/lib}
		echo 12.1 >${ROOT}/etc/debian_version; echo ct105 >${ROOT}/etc/hostname
		head -c 6291456 /dev/urandom >${ROOT}/usr/share/big; seq 1 90000 >${ROOT}/usr/share/text
		echo first >${ROOT}/etc/network/interfaces; echo x >'${ROOT}/root/a <b>blank'; ln -s /etc/shadow ${ROOT}/etc/link
		ln ${ROOT}/usr/share/text ${ROOT}/root/hard; mkfifo ${ROOT}/root/fifo
		printf 'arch: amd64\\nhostname: ct105\\nmemory: 512\\nostype: debian\\nrootfs: local:105/subvol-105-disk-0.subvol,size=0T\\n' >/etc/pve/lxc/105.conf`);
	const full = vzdump(105, 7, 'zstd');
	web.sh(`cp -a ${ROOT} /var/lib/then; echo second >${ROOT}/etc/network/interfaces; echo new >${ROOT}/root/new`);
	const differential = vzdump(105, 7, 'zstd');
	const stock = vzdump(105, 0, 'zstd');
	const gzip = vzdump(105, 0, 'gzip');
	const vm = vzdump(200, 7, 'zstd');
	await check('backups: a full, a differential, two of vzdump\'s own, a VM\'s', [full, differential, stock, gzip, vm].every((n) => n !== 'none') &&
		differential.startsWith(full), archives().join(' '));

	web.page.setDefaultTimeout(300000);
	await web.login();
	// Without a head the browser cancels many downloads before it asks for them, so what it would ask for is taken and fetched.
	await web.page.evaluate(() => {
		Proxmox.Utils.downloadAsFile = (source, name) => { window.asked = { source, name }; };
	});
	const file = await told('File Restore');

	// what the page's scripts failed in since the last call
	let failed = 0;
	const fine = async (step) => {
		// Ext JS 7.0 fails to give the focus back to a row of a list that was loaded meanwhile.
		const errors = web.errors.slice(failed).filter((e) => !/isModel.* at \S+setRow/.test(e));
		failed = web.errors.length;
		await check(`${step}: no script errors`, errors.length === 0, errors.join('; '));
	};

	// --- the window

	const openWindow = async (list, name) => {
		await web.idle();
		await web.component(list, (c, name) => {
			const record = c.getStore().getRange().find((r) => r.data.volid.endsWith('/' + name));
			if (record) c.ensureVisible(record);
		}, name);
		await web.select(list, new RegExp(name.replace(/[.]/g, '\\.') + '"'));
		await web.until('the button', () => web.component(list, (c) => {
			const button = c.down('button[name=diffFileRestore]');
			return !!button && !button.disabled && button.isVisible();
		}));
		await web.component(list, (c) => {
			const button = c.down('button[name=diffFileRestore]');
			button.handler.call(button.scope || button, button);
		});
	};
	// the entries of a folder that is named by its path, once they are there
	const entries = (path) => web.until(`what is in ${path || '/'}`, () => web.component(TREE, (tree, path) => {
		let node = tree.getStore().getRoot();
		for (const part of path.split('/').filter((p) => p)) {
			node.isExpanded() || node.expand();
			if (!node.isLoaded() || node.isLoading()) return null;
			node = node.childNodes.find((n) => n.data.text === part);
			if (!node) return null;
		}
		node.isExpanded() || node.expand();
		if (!node.isLoaded() || node.isLoading() || !node.childNodes.length) return null;
		return node.childNodes.map((n) => n.data.text + ' ' + n.data.type).sort();
	}, path), 90);
	const choose = async (path) => {
		await entries(path.replace(/\/?[^/]*$/, ''));
		await web.component(TREE, (tree, path) => {
			let node = tree.getStore().getRoot();
			for (const part of path.split('/')) node = node.childNodes.find((n) => n.data.text === part);
			tree.setSelection(node);
		}, path);
	};
	// what the browser gets
	const download = async (press) => {
		await web.page.evaluate(() => { window.asked = null; });
		await press();
		const asked = await web.until('a download', () => web.page.evaluate(() => window.asked), 60);
		const got = await web.page.evaluate(async (source) => {
			const answer = await fetch(source);
			const reader = new FileReader();
			const text = new Promise((resolve) => { reader.onload = () => resolve(reader.result); });
			reader.readAsDataURL(await answer.blob());
			return { status: answer.status, text: await text };
		}, asked.source);
		if (got.status !== 200) web.note(`${asked.source}: ${got.status}`);
		const path = `${TMP}/got`;
		fs.writeFileSync(path, Buffer.from(got.text.replace(/^[^,]*,/, ''), 'base64'));
		return { name: asked.name, path };
	};
	const pressed = (text) => async () => web.press(await told(text));
	const asForm = (text) => async () => {
		await web.press(await told('Download as'));
		await web.press(text);
	};
	const backups = [[full, 'first', '/var/lib/then'], [differential, 'second', ROOT], [stock, 'second', ROOT], [gzip, 'second', ROOT]];
	for (const [name, text, tree] of backups) {
		const kind = name === full ? 'full' : name === differential ? 'differential' : name === stock ? 'stock zstd' : 'stock gzip';
		await web.open('storage/pve1/local', 'contentBackup');
		await openWindow(LIST, name);
		const top = await entries('');
		await check(`${kind}: folders are listed`, ['etc d', 'root d', 'usr d'].every((n) => top.includes(n)), top.join(', '));
		const etc = await entries('etc');
		await check(`${kind}: files, links and folders in a folder`,
			['hostname f', 'link l', 'network d'].every((n) => etc.includes(n)), etc.join(', '));
		await web.screenshot('files-' + kind.replace(/ /g, '-'));
		await choose('usr/share/big');
		let got = await download(pressed('Download'));
		await check(`${kind}: a file comes as it was`, web.sh(`cmp ${got.path} ${tree}/usr/share/big`) === '' && got.name === 'big', got.name);
		await choose('etc/network/interfaces');
		got = await download(pressed('Download'));
		await check(`${kind}: of its own day`, web.read(got.path) === text + '\n', web.read(got.path));
		await choose('root');
		await web.idle();
		const hasTar = await web.exists('window button[reference=menuBtn]'); // its window has no menu before 8.1
		got = await download(hasTar ? asForm('.zip') : pressed('Download'));
		web.sh(`rm -rf ${TMP}/un; mkdir ${TMP}/un; cd ${TMP}/un; python3 -c 'import zipfile; zipfile.ZipFile("${got.path}").extractall()'`);
		let differs = web.sh(`diff -r -x fifo ${TMP}/un/root ${tree}/root`);
		await check(`${kind}: a folder as zip`, differs === '' && /root\.zip$/.test(got.name), got.name + ' ' + differs);
		if (hasTar) {
			await choose('root');
			got = await download(asForm('.tar.zst'));
			web.sh(`rm -rf ${TMP}/un; mkdir ${TMP}/un; zstd -qdc ${got.path} | tar -x -C ${TMP}/un`);
			differs = web.sh(`diff -r -x fifo ${TMP}/un/root ${tree}/root`);
			await check(`${kind}: a folder as tar`, differs === '' && web.sh(`test -p ${TMP}/un/root/fifo`) === '', got.name + ' ' + differs);
		}
		await fine(kind);
		await web.closeWindows();
		await fine(`${kind}, closed`);
	}
	const tasks = await web.api('GET', `/nodes/${web.node}/tasks`, { source: 'all', limit: 500 });
	const ours = tasks.filter((t) => /^diff(index|download)$/.test(t.type));
	await check('tasks did it, and all went well', ours.length > 12 && ours.every((t) => t.status === 'OK'),
		[...new Set(ours.map((t) => `${t.type} ${t.status}`))].join(', '));
	const left = () => web.sh('find /tmp -maxdepth 2 -path "/tmp/pve-diff-backup-*/fifo"');
	await check('nothing is left of the streams', left() === '', left());

	// --- the guest's own list

	await web.open('lxc/105', 'backup');
	await web.until('the list', async () => (await web.grid('pveBackupView')).length === 4);
	await openWindow('pveBackupView', differential);
	await check('the guest\'s list has it, too', (await entries('root')).includes('new f'));
	await fine('the guest\'s list');
	await web.closeWindows();

	// --- a VM: its file systems are not read

	await web.open('storage/pve1/local', 'contentBackup');
	await openWindow(LIST, vm);
	const shown = await web.window(new RegExp(file));
	await check('a VM: the commands are shown', shown.includes(`pve-xdelta3 vma mount '${DUMP}/${vm}' /mnt/backup`), shown);
	await web.screenshot('files-vm');
	await web.closeWindows();
	await fine('a VM');
	const refused = await web.api('GET', `/nodes/${web.node}/storage/local/file-restore/list`, { volume: `local:backup/${vm}`, filepath: '/' })
		.then(() => 'it answered', (e) => e.message);
	await check('... and Proxmox says what it ever said', /Only PBS storages supported/.test(refused), refused);

	// --- who may not

	web.sh(`pvesh create /access/users --userid reader@pve --password secret99 >/dev/null 2>&1
		pvesh set /access/acl --path /storage/local --roles PVEDatastoreUser --users reader@pve >/dev/null 2>&1`);
	const as = (user, call, path) => web.sh(`T=$(curl -sk -d username=${user} -d password=secret99 https://127.0.0.1:8006/api2/json/access/ticket |
		sed 's/.*"ticket":"\\([^"]*\\)".*/\\1/')
		curl -sk -o ${TMP}/body -w '%{http_code} ' -G -b "PVEAuthCookie=$T" --data-urlencode 'volume=local:backup/${full}' \
			--data-urlencode 'filepath=${path}' https://127.0.0.1:8006/api2/json/nodes/${web.node}/storage/local/file-restore/${call}; cat ${TMP}/body`);
	const big = Buffer.from('/usr/share/big').toString('base64');
	await check('a user without the privilege gets no list', /^403 /.test(as('reader@pve', 'list', '/')), as('reader@pve', 'list', '/').slice(0, 200));
	await check('... and no file', /^403 /.test(as('reader@pve', 'download', big).slice(0, 200)));
	web.sh('pvesh set /access/acl --path /vms/105 --roles PVEVMAdmin --users reader@pve >/dev/null 2>&1');
	await check('with it, a list', /^200 .*"text":"etc"/.test(as('reader@pve', 'list', '/')), as('reader@pve', 'list', '/').slice(0, 200));

	// --- damage

	const damaged = full.replace(/-\d\d_\d\d_\d\d\.tar/, '-00_00_01.tar');
	const cut = stock.replace(/-\d\d_\d\d_\d\d\.tar/, '-00_00_02.tar');
	web.sh(`cp ${DUMP}/${full} ${DUMP}/${damaged}; truncate -s 3M ${DUMP}/x; cp ${DUMP}/${stock} ${DUMP}/x; truncate -s 3M ${DUMP}/x; mv ${DUMP}/x ${DUMP}/${cut}
		head -c 400000 /dev/zero | dd of=${DUMP}/${damaged} bs=1 seek=3000000 conv=notrunc status=none`);
	await web.open('storage/pve1/local', 'contentBackup');
	await web.component(LIST, (c) => void c.getStore().load());
	await web.until('the damaged ones', () => web.component(LIST, (c, name) =>
		c.getStore().getRange().some((r) => r.data.volid.endsWith(name)), cut));
	await fine('the list read anew');
	await openWindow(LIST, damaged);
	await choose('usr/share/big');
	await web.press(await told('Download'));
	const says = await web.until('an error', async () => (await web.windows()).find((w) => w.text.includes(damaged) && /Error/.test(w.title)), 60);
	await check('a damaged file is not sent, and why is told', /not written as a whole/.test(says.text), says.text);
	await web.screenshot('files-damaged');
	await web.closeWindows();
	await fine('a damaged one');
	await web.closeWindows();
	await fine('a damaged one, closed');
	await openWindow(LIST, cut);
	const mask = await web.until('why there is no list', () => web.component(TREE, (tree) => {
		const text = tree.el.dom.innerText;
		return /\.tar\.zst/.test(text) ? text.replace(/\s+/g, ' ') : '';
	}), 90);
	await check('a cut backup tells so in the window', mask.includes(cut), mask);
	await web.screenshot('files-cut');
	await web.closeWindows();
	await fine('the rest');
};
