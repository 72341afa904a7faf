// The cases of tests/perl/script.t: prints TAP.  `data` holds the vectors that other languages share, `source` the script.

var count = 0;
function check(name, is, detail) {
    count++;
    print((is ? 'ok ' : 'not ok ') + count + ' - ' + name + (is || detail === undefined ? '' : ' # ' + JSON.stringify(detail)));
}
function same(name, got, expected) { check(name, JSON.stringify(got) === JSON.stringify(expected), got); }
function load() { (0, eval)(source); }
// the last request, which is taken away
function asked() { return requests.pop() || {}; }
function askedFor(part) {
    return requests.filter(function (one) { return one.url.indexOf(part) >= 0; })[0] || {};
}

// --- nothing there: the page of a release without any of what we know, or without Ext JS

var allExt = Ext, allPVE = PVE, allClasses = classes, allUtils = Proxmox.Utils;
PVE = undefined;
load();
check('without Proxmox\' scripts nothing happens', true);
PVE = allPVE;
classes = {};
Proxmox.Utils = {};
load();
check('without the classes that it overrides the script runs to its end', true);
classes = allClasses;
Proxmox.Utils = allUtils;
warnings = [];
requests = [];
load();
same('with all of them there is nothing to warn of', warnings, []);

// --- names and sums, as Rust and Perl have them

data.names.names.forEach(function (vector) {
    var info = PveDiffBackup.parse('local:backup/' + vector.name);
    var expect = vector.expect;
    if (!expect) {
        same('names: ' + vector.why, info, null);
        return;
    }
    var own = function (time) { return time.replace('T', ' '); };
    same('names: ' + vector.why, info && [info.name, info.made, info.base || null, info.base ? info.baseMade : null, info.format], [
        vector.name, own(expect.time), expect.base, expect.base ? own(expect.base_time) : null, expect.format,
    ]);
});
data.chains.sums.forEach(function (vector) {
    var rows = PveDiffBackup.sumUp('pve1', 'local', vector.files.map(function (file) {
        return { volid: 'local:backup/' + file.name, size: file.size };
    }));
    same('sums: ' + vector.why, rows.sort(function (a, b) { return a.guest < b.guest ? -1 : 1; }).map(function (row) {
        return Object.keys(vector.expect[0]).map(function (key) { return row[key]; });
    }), vector.expect.map(function (row) {
        return Object.keys(vector.expect[0]).map(function (key) { return row[key]; });
    }));
});

// --- languages: each text of the script in each of them, with the same places

var languages = eval('(' + /var CATALOGUE = (\{[\s\S]*?\n    \});/.exec(source)[1] + ')');
var texts = Object.keys(languages.de);
['de', 'es', 'fr', 'it', 'zh_CN'].forEach(function (name) {
    var bad = texts.filter(function (one) {
        var places = function (text) { return (text.match(/\{\d\}/g) || []).sort().join(); };
        return !languages[name][one] || places(languages[name][one]) !== places(one);
    });
    same('language ' + name + ' has each text', bad.concat(Object.keys(languages[name]).filter(function (one) {
        return texts.indexOf(one) < 0;
    })), []);
});
var code = source.slice(source.indexOf('var ours'));
same('no text is of no use', texts.filter(function (one) { return code.indexOf("'" + one.replace(/'/g, "\\'") + "'") < 0; }), []);
Proxmox.defaultLang = 'de';
load();
same('the interface\'s language is taken', PveDiffBackup.text('{0} of {1} verified, last on {2}', 1, 2, 'x'), '1 von 2 verifiziert, zuletzt am x');
Proxmox.defaultLang = 'xx';
classes = {};
load();
same('another language gets English', PveDiffBackup.text('never'), 'never');
Proxmox.defaultLang = 'en';
// afresh, since each load overrides once more
(0, eval)(standIn);
load();

// --- dates: a field of the model, none up to 6.1

var record = function (volid) { return { data: { volid: volid } }; };
var later = 'local:backup/vzdump-qemu-101-2026_11_20-01_00_02.vma.zst--differential-2026_11_21-03_04_05.vcdiff.zst';
var vdate = { convert: function (value) { return value || 'upstream\'s'; } };
var added;
[{ getField: function (name) { return name === 'vdate' ? vdate : null; } },
    { getField: function () { return null; }, addFields: function (fields) { added = fields; } },
].forEach(function (model) {
    (0, eval)(standIn);
    classes['pve-storage-content'] = model;
    load();
});
same('a differential\'s date is its own', [vdate.convert('', record(later)), vdate.convert('given', record(later)), vdate.convert('', record('x'))],
    ['2026-11-21 03:04:05', 'given', 'upstream\'s']);
same('... and where there was none', [added[0].name, added[0].convert('', record(later)), added[0].convert('', record('x'))],
    ['vdate', '2026-11-21 03:04:05', '']);
(0, eval)(standIn);
load();

// --- lists

var FULL = 'vzdump-qemu-101-2026_11_20-01_00_02.vma.zst';
var differential = function (day) { return FULL + '--differential-2026_11_' + day + '-01_00_02.vcdiff.zst'; };
var volumes = [FULL, differential(21), differential(22)].map(function (name, at) {
    return { id: name, volid: 'local:backup/' + name, size: at ? 10 : 1000, format: 'vma.zst', node: 'pve1' };
});
var removed = [];
var list = function (rows) {
    return new Component({
        xtype: 'PVE.grid.BackupView',
        store: new Store({ data: rows }),
        columns: [{ dataIndex: 'volid' }, { dataIndex: 'format' }],
        items: [{
            xtype: 'proxmoxStdRemoveButton',
            handler: function (button, event, record) { removed.push(record.data.volid); },
            getUrl: function (record) { return '/nodes/pve1/storage/local/content/' + record.data.volid; },
            confirmMsg: function () { return 'Sure?'; },
            self: { prototype: { handler: function (button, event, record) { removed.push(record.data.volid); } } },
        }],
    });
};
var grid = list(volumes);
var cell = function (grid, column, at) {
    var record = grid.store.getAt(at);
    return grid.columns.filter(function (one) { return one.dataIndex === column; })[0]
        .renderer(record.data[column], {}, record, at, 0, grid.store);
};
check('a full tells how many need it', /fa-files-o"><\/i> 2</.test(cell(grid, 'volid', 0)), cell(grid, 'volid', 0));
check('a differential tells of which full', cell(grid, 'volid', 1).indexOf(FULL) > 0 && /fa-level-up/.test(cell(grid, 'volid', 1)));
same('its format is in words', cell(grid, 'format', 1), 'differential, vma, zst');
same('a full\'s is as ever', cell(grid, 'format', 0), 'vma.zst');
check('a differential alone warns', /fa-exclamation-triangle/.test(cell(list([volumes[1]]), 'volid', 0)));
var odd = list([{ volid: 'local:backup/<b>.vma', format: '<i>' }]);
same('what is not ours is as ever, and encoded', [cell(odd, 'volid', 0), cell(odd, 'format', 0)], ['local:backup/&lt;b&gt;.vma', '&lt;i&gt;']);

// up to 6.4 sorted by name, up to 6.1 without a date
var sorter = { getProperty: function () { return 'volid'; } };
var sorters = { findBy: function (fn) { return fn(sorter) ? sorter : null; }, remove: function () { sorter.isGone = true; } };
var byName = new Store({ data: volumes });
byName.getSorters = function () { return sorters; };
byName.setSorters = function (sorter) { byName.sorter = sorter; };
var old = new Component({
    xtype: 'PVE.storage.ContentView', store: byName, columns: [{ dataIndex: 'text' }, { dataIndex: 'format', width: 100 }, { dataIndex: 'size' }],
});
same('a list without a date gets one', old.columns.map(function (one) { return one.dataIndex; }), ['text', 'vdate', 'format', 'size']);
var places = volumes.concat({ volid: 'local:backup/vzdump-qemu-101-2026_11_21-12_00_00.vma.zst' }, { volid: 'local:iso/a.iso' }).map(function (one) {
    return [byName.sorter.transform(one.volid), one.volid];
}).sort().map(function (one) { return /[^/]*$/.exec(one[1])[0]; });
same('... and is sorted by each backup\'s own', [sorter.isGone, places], [true,
    ['a.iso', FULL, differential(21), 'vzdump-qemu-101-2026_11_21-12_00_00.vma.zst', differential(22)]]);

// --- removal

var remove = function (grid, at) {
    messages = [];
    requests = [];
    removed = [];
    grid.selected = [grid.store.getAt(at)];
    var button = grid.down('proxmoxStdRemoveButton');
    button.handler(button, null, grid.store.getAt(at));
    return messages[0];
};
check('a differential goes as ever', !remove(grid, 1) && removed.length === 1);
var question = remove(grid, 0);
check('a full is asked about, with the count and the dates', /2 differential.*2026-11-21 01:00:02, 2026-11-22 01:00:02/.test(question.text) &&
    removed.length === 0, question.text);
question.answer('no');
check('no removes nothing', removed.length === 0 && requests.length === 0);
question = remove(grid, 0);
question.answer('yes');
check('yes alone asks the server for the full only', removed.length === 1 && requests.length === 0);
question = remove(grid, 0);
question.window.down('field[name=removeDifferentials]').value = true;
question.answer('yes');
var look = asked();
same('with a tick the server is asked what is there', [look.method, look.url, requests.length],
    ['GET', '/nodes/pve1/storage/local/content', 0]);
look.answer(volumes);
var first = asked();
check('with a tick the first differential goes first', first.method === 'DELETE' && first.url.indexOf(differential(21)) > 0 &&
    removed.length === 0, first.url);
first.answer(null);
var next = asked();
check('... then the next', next.url.indexOf(differential(22)) > 0 && removed.length === 0);
next.answer(null);
same('... and the full last', removed, ['local:backup/' + FULL]);
question = remove(grid, 0);
question.window.down('field[name=removeDifferentials]').value = true;
question.answer('yes');
asked().answer(volumes);
asked().refuse(500, 'no');
check('after a refusal nothing else goes', removed.length === 0 && requests.length === 0 && messages[messages.length - 1].text === 'no');
var isProtected = Ext.apply({}, volumes[0], { 'protected': 1 });
var another = Ext.apply({}, volumes[1], { volid: 'local:backup/' + differential(23) });
[['a protected full', [isProtected].concat(volumes.slice(1))], ['one more differential', volumes.concat(another)],
    ['one less', volumes.slice(0, 2)], ['a full that is gone', volumes.slice(1)], ['no list', null], ['another answer', [null]],
].forEach(function (one) {
    question = remove(grid, 0);
    question.window.down('field[name=removeDifferentials]').value = true;
    question.answer('yes');
    asked().answer(one[1]);
    check('nothing goes where the server has ' + one[0], removed.length === 0 && requests.length === 0 &&
        /Nothing was removed/.test(messages[messages.length - 1].text), messages);
});
warnings = [];
question = remove(grid, 0);
question.window.down('field[name=removeDifferentials]').value = true;
question.answer('yes');
asked().refuse(500, 'away');
check('nor where it does not tell', removed.length === 0 && requests.length === 0 && messages[messages.length - 1].text === 'away');
volumes[1]['protected'] = 1;
question = remove(list(volumes), 0);
check('with a protected one it is not offered', question.window.down('field[name=removeDifferentials]').disabled === true);
question = remove(list(volumes.slice(0, 2)), 0);
same('one alone is told of as one', [/A differential backup needs this full backup: 2026-11-21 01:00:02\. /.test(question.text),
    question.window.down('field[name=removeDifferentials]').boxLabel], [true, 'Remove it as well (it is protected)']);
delete volumes[1]['protected'];

// --- the field of jobs

var edit = function () {
    return new Component({
        xtype: 'PVE.dc.BackupEdit', jobid: 'job1',
        items: [
            { xtype: 'combobox', name: 'storage', value: 'local', store: new Store({ data: [
                { storage: 'local', type: 'dir' }, { storage: 'server', type: 'pbs' }, { storage: 'own', type: 'somebodys' },
            ] }) },
            { xtype: 'combobox', name: 'mode' },
        ],
    });
};
requests = [];
var win = edit();
var field = win.down('field[name=fullbackup]');
field.setValue(7);
same('a value is sent', field.getSubmitData(), { fullbackup: 7 });
same('its unit is shown', field.nextSibling().html, 'days');
var storage = win.down('field[name=storage]');
storage.setValue('server');
check('greyed out with a hint for Proxmox Backup Server', field.disabled && /PBS/.test(field.emptyText) &&
    field.getSubmitData() === null);
storage.setValue('local');
check('... and as it was for another', !field.disabled && field.getValue() === 7 && requests.length === 0);
storage.setValue('own');
check('a kind that is not known is asked for', !field.disabled && requests[0].url === '/nodes/pve1/pve-diff-backup/storages');
asked().answer([{ storage: 'own', differential: 0 }]);
check('... and greyed out', field.disabled && /kind of storage/.test(field.emptyText));
storage.setValue('local');
storage.setValue('own');
asked().answer([{ storage: 'own', differential: 1 }]);
check('... unless files are made there', !field.disabled);
storage.setValue('own');
asked().refuse(501, 'not implemented');
check('... or nobody knows', !field.disabled);
['7.5', '1e2', '-1', ' x'].forEach(function (bad) {
    check('no number of days: ' + bad, field.validator(bad) !== true && field.parseValue(bad) === null);
});
field.originalValue = 7;
field.setValue(null);
same('what is cleared is deleted', field.getSubmitData(), { 'delete': 'fullbackup' });

// both generations of the window: form code up to 6.4, with columns, and the declarative one with tabs
[
    { xtype: 'inputpanel', items: [
        { xtype: 'container', items: [{ xtype: 'pveStorageSelector', name: 'storage', value: 'local', store: new Store({}) }] },
        { xtype: 'container', items: [{ xtype: 'textfield', name: 'mailto' }, { xtype: 'combobox', name: 'mode' }] },
    ] },
    { xtype: 'tabpanel', items: [
        { xtype: 'inputpanel', items: [
            { xtype: 'container', items: [{ xtype: 'pveStorageSelector', name: 'storage', value: 'local', store: new Store({}) }] },
            { xtype: 'container', items: [{ xtype: 'combobox', name: 'mode' }, { xtype: 'checkbox', name: 'enabled' }] },
        ] },
        { xtype: 'inputpanel', items: [{ xtype: 'textfield', name: 'notes-template' }] },
    ] },
    { xtype: 'inputpanel', items: [{ xtype: 'combobox', name: 'mode' }] },
].forEach(function (content) {
    var made = new Component({ xtype: 'PVE.dc.BackupEdit', items: [content] });
    var mode = made.down('field[name=mode]');
    check('the field stands below the mode in a window of ' + content.xtype,
        mode.nextSibling() && mode.nextSibling().down('field[name=fullbackup]') === made.down('field[name=fullbackup]'));
    same('... is not sent while it is empty', made.down('field[name=fullbackup]').getSubmitData(), {});
});
check('a window without a mode is as ever', !new Component({ xtype: 'PVE.dc.BackupEdit' }).down('field[name=fullbackup]'));

// --- the jobs' list and detail

[[[{ dataIndex: 'node' }, { dataIndex: 'storage' }, { dataIndex: 'vmid' }], false, 2],
    [[{ dataIndex: 'storage' }, { dataIndex: 'comment', hidden: true }], true, 1], [[{ dataIndex: 'vmid' }], false, 1],
].forEach(function (one) {
    var jobs = new Component({ xtype: 'PVE.dc.BackupView', columns: one[0] });
    var column = jobs.columns[one[2]];
    same('the column stands behind the storage, hidden where others are', [column.dataIndex, column.hidden], ['fullbackup', one[1]]);
    same('... in words', [column.renderer(7), column.renderer('1'), column.renderer(undefined), column.renderer(0)],
        ['7 days', '1 day', 'always full', 'always full']);
});
[[7, '7 days'], [undefined, undefined]].forEach(function (one) {
    var detail = new Component({
        xtype: 'PVE.dc.BackupInfo', record: { fullbackup: one[0] }, items: [{ xtype: 'container', items: [{ xtype: 'displayfield', name: 'mode' }] }],
    });
    var shown = detail.down('displayfield[name=fullbackup]');
    same('the detail of a job with ' + one[0], shown ? shown.renderer(shown.value) : undefined, one[1]);
});

// --- backup now

var backupWindow = function () {
    return new Component({
        xtype: 'PVE.window.Backup',
        items: [
            { xtype: 'combobox', name: 'storage', value: 'local', store: new Store({ data: [
                { storage: 'local', type: 'dir' }, { storage: 'server', type: 'pbs' },
            ] }) },
            { xtype: 'combobox', name: 'mode' },
            {
                xtype: 'button', text: 'Backup',
                handler: function () {
                    Proxmox.Utils.API2Request({ url: '/nodes/pve1/vzdump', params: { vmid: 101 }, method: 'POST' });
                },
            },
        ],
    });
};
[['', undefined], ['full', 0], ['differential', 365]].forEach(function (one) {
    win = backupWindow();
    win.down('field[name=fullbackupKind]').setValue(one[0]);
    win.down('button').handler();
    same('backup now: ' + one[0], asked().params, Ext.apply({ vmid: 101 }, one[1] === undefined ? {} : { fullbackup: one[1] }));
});
win.down('field[name=storage]').setValue('server');
win.down('button').handler();
same('... not for Proxmox Backup Server', asked().params, { vmid: 101 });
Proxmox.Utils.API2Request({ url: '/nodes/pve1/vzdump', params: {} });
same('... and no other request is touched', asked().params, {});

// --- restore

var restore = function (volume, isNew) {
    requests = [];
    return new Component({
        xtype: 'PVE.window.Restore', volid: volume.volid, nodename: 'pve1',
        items: [{
            xtype: 'form',
            items: [{ xtype: 'displayfield', name: 'source' }].concat(isNew ? { xtype: 'numberfield', name: 'cores' } : []),
        }],
    });
};
var hintOf = function (win) {
    var hint = win.down('field[name=fullBackupHint]');
    return hint.hidden ? '' : hint.value;
};
win = restore(volumes[0], true);
check('the restore window of a full is as ever', requests.length === 0 && !win.down('field[name=fullBackupName]'));
[true, false].forEach(function (isNew) {
    var which = isNew ? 'the window that reads the archive: ' : 'the one up to 6.4: ';
    win = restore(volumes[1], isNew);
    same(which + 'the full is named below the source', win.down('form').children.slice(0, 2).map(function (one) { return one.name; }),
        ['source', 'fullBackupName']);
    check(which + '... with its date', win.down('field[name=fullBackupName]').value.indexOf(FULL + ' (made 2026-11-20 01:00:02)') === 0);
    asked().answer(volumes.slice(1));
    check(which + 'a missing full is told of before anything is done', /missing on the storage/.test(hintOf(win)) && requests.length === 0);
    win = restore(volumes[1], isNew);
    asked().answer(volumes);
    askedFor('verified').answer([{ volid: volumes[1].volid, at: 1000, good: 1 }, { volid: volumes[2].volid, at: 1000, good: 0 }]);
    same(which + 'a good one is not', hintOf(win), '');
    same(which + 'the archive is read once', !!askedFor('extractconfig').url, !isNew);
    if (!isNew) {
        askedFor('extractconfig').refuse(500, 'it is damaged');
        same(which + '... and what is wrong with it told', hintOf(win), 'it is damaged');
        win = restore(volumes[1], isNew);
        asked().answer(volumes);
        askedFor('verified').answer([{ volid: volumes[1].volid, at: 1000, good: 0 }]);
        askedFor('extractconfig').refuse(500, 'it is damaged');
        check(which + '... beside what a verification found', /^A verification .*restored\.<br>it is damaged$/.test(hintOf(win)), hintOf(win));
    }
    win = restore(volumes[1], isNew);
    asked().answer(volumes);
    askedFor('verified').answer([{ volid: volumes[1].volid, at: 1000, good: 0 }]);
    check(which + 'what a verification found is told', /A verification on 1970-01-01 .* cannot be restored/.test(hintOf(win)), hintOf(win));
    win = restore(volumes[1], isNew);
    asked().refuse(500, 'away');
    same(which + 'no list, no hint', hintOf(win), '');
});
warnings = [];
win = restore(volumes[1], true);
asked().answer(null);
check('an answer of another kind leaves the window', hintOf(win) === '' && /no look at the full/.test(warnings.join()), warnings);
warnings = [];

// --- what pruning keeps

var panel = new Component({
    xtype: 'PVE.PruneInputPanel', pruneStore: new Store({ data: [] }),
    getValues: function () { return { 'prune-backups': 'keep-last=1' }; },
});
panel.pruneStore.setData([
    { volid: volumes[0].volid, ctime: 1, mark: 'keep', 'needed-by': 1 },
    { volid: volumes[1].volid, ctime: 2, mark: 'remove' },
    { volid: volumes[2].volid, ctime: 3, mark: 'keep' },
]);
same('why each is kept', panel.pruneStore.getRange().map(function (one) { return one.data.keepReason; }),
    ['needed by 1', undefined, 'keep-last: 1']);

// --- the page

PVE.data.ResourceStore = new Store({ data: [
    { type: 'node', node: 'pve1', status: 'online' }, { type: 'node', node: 'pve2', status: 'online' },
    { type: 'node', node: 'pve3', status: 'offline' },
    { type: 'storage', id: 'storage/pve1/local', node: 'pve1', storage: 'local', content: 'backup', status: 'available' },
    { type: 'storage', id: 'storage/pve1/nas', node: 'pve1', storage: 'nas', shared: 1, content: 'backup', status: 'available' },
    { type: 'storage', id: 'storage/pve2/nas', node: 'pve2', storage: 'nas', shared: 1, content: 'backup', status: 'available' },
    { type: 'storage', id: 'storage/pve1/pbs', node: 'pve1', storage: 'pbs', plugintype: 'pbs', content: 'backup', status: 'available' },
    { type: 'qemu', vmid: 101, name: '<vm>' },
] });
var main = new Component({ xtype: 'PVE.dc.Config', items: [{ itemId: 'backup' }] });
// the override of PVE.panel.Config, of which that is one
classes['PVE.panel.Config'].initComponent.call(Ext.apply(new Component({ $className: 'PVE.dc.Config' }), { items: main.items2 = [{ itemId: 'backup' }] }));
same('the page stands below the backup jobs', main.items2.map(function (one) { return one.itemId; }), ['backup', 'differential']);
requests = [];
var page = new Component({ xtype: 'pveDiffBackupPage' });
page.fire('activate');
same('each node and each storage is asked, a shared one once', requests.map(function (one) { return one.url; }).sort(), [
    '/cluster/backup', '/nodes/pve1/pve-diff-backup/status', '/nodes/pve1/storage/local/content', '/nodes/pve1/storage/nas/content',
    '/nodes/pve2/pve-diff-backup/status',
]);
askedFor('pve1/pve-diff-backup/status').answer({ overall: 'patched', program: '1', attention: ['Do <this>\nso'], verified: 1 });
askedFor('pve2/pve-diff-backup/status').refuse(501, 'Method not implemented');
askedFor('/cluster/backup').answer([{ id: 'a', fullbackup: 7, vmid: '101' }, { id: 'b', all: 1 }]);
askedFor('local/content').answer(volumes);
askedFor('nas/content').refuse(500, 'away');
askedFor('verified').answer([
    { volid: volumes[0].volid, at: 1000, good: 1 }, { volid: volumes[1].volid, at: 2000, good: 0 },
]);
var nodes = page.down('pveDiffBackupNodes');
var show = function (list, column, at) {
    var record = list.store.getAt(at);
    var found = list.columns.filter(function (one) { return one.dataIndex === column; })[0];
    return found.renderer ? found.renderer(record.data[column], {}, record) : record.data[column];
};
same('how the nodes stand', nodes.store.getRange().map(function (one) { return one.data.state; }), ['patched', 'unknown', 'away']);
check('... with a sign where something is to be done', /warning/.test(show(nodes, 'state', 0)) &&
    /Do &lt;this&gt;<\/span>/.test(show(nodes, 'attention', 0)), show(nodes, 'attention', 0));
var jobs = page.down('pveDiffBackupJobs');
same('the jobs\' option', [show(jobs, 'fullbackup', 0), show(jobs, 'fullbackup', 1)], ['7 days', 'always full']);
var chains = page.down('pveDiffBackupChains');
var row = chains.store.getAt(0).data;
same('the guest\'s sums and results', [row.fulls, row.differentials, row.saved, row.checked, row.bad, row.checkedAt], [1, 2, 1980, 2, 1, 2000]);
check('... names encoded', /qemu\/101 \(&lt;vm&gt;\)/.test(show(chains, 'guest', 0)), show(chains, 'guest', 0));
check('... a bad one shown', /fa-times critical/.test(show(chains, 'checkedAt', 0)), show(chains, 'checkedAt', 0));
check('a storage that does not answer is named', /nas \(pve1\)/.test(chains.down('#unread').text));
var backups = page.down('pveDiffBackupBackups');
same('the only guest\'s backups are shown', backups.store.getRange().length, 3);
function button(list, title) {
    return list.query('button').filter(function (one) { return one.text === title; })[0];
}
check('Verify is offered for a guest', !button(chains, 'Verify').disabled && button(backups, 'Consolidate').disabled);
backups.select(backups.store.getAt(0));
check('Consolidate is not offered for a full', button(backups, 'Consolidate').disabled);
backups.select(backups.store.getAt(1));
check('... but for a differential', !button(backups, 'Consolidate').disabled);
nodes.select(nodes.store.getAt(1));
check('Apply is not offered for a node that cannot be asked', button(nodes, 'Apply').disabled && button(nodes, 'Show').disabled);
nodes.select(nodes.store.getAt(0));
check('... but for one that can', !button(nodes, 'Apply').disabled);
[[chains, 'Verify', 'verify', { storage: 'local', vmid: '101' }], [backups, 'Consolidate', 'consolidate', { volume: volumes[1].volid }],
    [nodes, 'Apply', 'apply', {}]].forEach(function (one) {
    messages = [];
    requests = [];
    button(one[0], one[1]).handler(button(one[0], one[1]));
    check(one[1] + ' asks before anything is sent', messages.length === 1 && requests.length === 0);
    messages[0].answer('no');
    same('... no sends nothing', requests.length, 0);
    messages[0].answer('yes');
    same('... yes starts the task', [requests[0].method, requests[0].url, requests[0].params],
        ['POST', '/nodes/pve1/pve-diff-backup/' + one[2], one[3]]);
    created = [];
    requests[0].answer('UPID:x');
    same('... whose window is shown', [created[0].xtype, created[0].upid], ['Proxmox.window.TaskViewer', 'UPID:x']);
});
created = [];
button(nodes, 'Show').handler(button(nodes, 'Show'));
check('what doctor says is shown, encoded', /Do &lt;this&gt;<br>so/.test(created[0].html), created[0].html);
caps = { dc: {}, storage: {}, vms: {} };
[nodes, chains, backups].forEach(function (list) { list.fire('selectionchange', list.selected); });
chains.select(chains.store.getAt(0));
nodes.select(nodes.store.getAt(0));
backups.select(backups.store.getAt(1));
check('without the privileges no button is offered', button(nodes, 'Apply').disabled && button(chains, 'Verify').disabled &&
    button(backups, 'Consolidate').disabled);
caps = { nodes: { 'Sys.Modify': 1 } };
nodes.fire('selectionchange', nodes.selected);
check('Apply is offered where nobody is told of the datacenter\'s privileges, as up to 7.4', !button(nodes, 'Apply').disabled);
requests = [];
button(page, 'Reload').handler();
askedFor('local/content').answer(volumes.slice(0, 2));
askedFor('nas/content').refuse(500, 'away');
askedFor('verified').answer([{ volid: volumes[0].volid, at: 3000, good: 1 }]);
same('read anew, the same guest\'s backups are others', backups.store.getRange().map(function (one) { return one.data.checkedAt; }),
    [3000, undefined]);
same('nothing had to be warned of', warnings, []);
// answers of another shape than ours end in a list as well, and the mask goes
var mask;
chains.setLoading = function (is) { mask = is; };
[[function () { return [null]; }, 'nas (pve1), local (pve1)'], [function () { return volumes; }, 'nas (pve1)']].forEach(function (one, at) {
    requests = [];
    button(page, 'Reload').handler();
    check('the list is masked while it is read', mask === true);
    askedFor('nas/content').refuse(500, 'away');
    askedFor('local/content').answer(one[0]());
    if (at) { askedFor('verified').answer([null]); }
    check('what cannot be read masks no list', mask === false);
    same('... and is named', [chains.store.getRange().length, chains.down('#unread').text], [at, 'Not read: ' + one[1]]);
});

// --- files of backups

var sent = 0;
var picked = { data: { type: 'f', filepath: 'L2V0Yy9ob3N0cw==' } };
var controller = { downloadFile: function () { sent++; }, lookup: function () { return { getSelection: function () { return [picked]; } }; } };
Ext.define('Proxmox.window.FileBrowser', {
    initComponent: function () { this.build(); },
    getController: function () { return controller; },
});
var withBar = function (kind) {
    return new Component({
        xtype: 'PVE.grid.BackupView',
        pveSelNode: { data: { node: 'pve1' } },
        store: new Store({
            data: ['lxc-105', 'qemu-101', 'other-1'].map(function (guest) {
                var name = 'vzdump-' + guest + '-2026_11_20-01_00_02.tar.zst';
                return { id: guest, volid: 'local:backup/' + name, text: '<b>' + name };
            }),
        }),
        columns: [{ dataIndex: 'volid' }],
        items: [{
            xtype: 'toolbar',
            items: [
                { xtype: 'button', text: 'Backup now' }, { xtype: 'button', text: 'Restore' }, { xtype: 'button', text: 'Edit Notes' },
                { xtype: 'pveStorageSelector', value: 'local', store: new Store({ data: [{ id: 'l', storage: 'local', type: kind }] }) },
            ],
        }],
    });
};
var shownTo = withBar('dir');
var fileButton = shownTo.down('button[name=diffFileRestore]');
same('the button stands behind Proxmox\' own', shownTo.down('toolbar').children.map(function (one) { return one.text; }).slice(0, 3),
    ['Backup now', 'Restore', 'File Restore']);
check('it is there and waits for a backup', !fileButton.hidden && fileButton.disabled);
check('it is not there on a Proxmox Backup Server', withBar('pbs').down('button[name=diffFileRestore]').hidden);
check('... nor on a storage of somebody else\'s plugin', withBar('own').down('button[name=diffFileRestore]').hidden);
var pick = function (at) { shownTo.select(shownTo.store.getAt(at)); };
pick(2);
check('another file is no backup', fileButton.disabled);
created = [];
pick(0);
check('a container\'s backup can be looked into', !fileButton.disabled);
fileButton.handler();
same('... in Proxmox\' window, by Proxmox\' calls', [created[0].listURL, created[0].downloadURL, created[0].extraParams.volume], [
    '/api2/json/nodes/pve1/storage/local/file-restore/list', '/api2/json/nodes/pve1/storage/local/file-restore/download',
    'local:backup/vzdump-lxc-105-2026_11_20-01_00_02.tar.zst',
]);
check('... with an encoded title', /^File Restore - &lt;b&gt;vzdump/.test(created[0].title), created[0].title);
requests = [];
controller.downloadFile();
same('a file is looked at before it is sent', [sent, requests[0].url, requests[0].params.filepath],
    [0, '/nodes/pve1/storage/local/file-restore/list', picked.data.filepath]);
requests[0].refuse(500, 'damaged');
check('a damaged one is not', sent === 0);
controller.downloadFile();
requests[1].answer([]);
check('a good one is', sent === 1);
picked.data.type = 'd';
controller.downloadFile();
same('a folder is sent at once', [sent, requests.length], [2, 2]);
pick(1);
fileButton.handler();
requests[2].answer({ path: "/mnt/it's/x.vma.zst" });
check('of a VM the commands are shown', /pve-xdelta3 vma mount '\/mnt\/it'\\''s\/x\.vma\.zst' \/mnt\/backup/.test(
    created[1].html.replace(/&#39;/g, "'")), created[1].html);

print('1..' + count);
