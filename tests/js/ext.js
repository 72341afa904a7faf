// A small stand-in for what pve-diff-backup.js uses of Ext JS and of Proxmox' interface, written for its tests in an
// interpreter without a browser.  Components are plain objects that know their parents and children; nothing is drawn.
// The real ones are in tests/host/web and tests/perl/ui.t.  ES5, as duktape has it.

var window = this;
var requests = []; // what was asked of the server: {url, method, params, answer(data), refuse(status, text)}
var messages = []; // what Ext.Msg was asked to show
var warnings = [];
var console = { warn: function (text) { warnings.push(text); } };

function gettext(text) { return text; }

var Ext = {
    emptyFn: function () {},
    apply: function (to, from, more) {
        for (var key in from) { to[key] = from[key]; }
        return more ? Ext.apply(to, more) : to;
    },
    htmlEncode: function (text) {
        return String(text === undefined || text === null ? '' : text)
            .replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/"/g, '&quot;').replace(/'/g, '&#39;');
    },
    callback: function (fn, scope, args, defer, caller) { return fn && fn.apply(scope || caller || window, args || []); },
    defer: function (fn, delay, scope, args) { fn.apply(scope, args || []); },
    Array: {
        each: function (list, fn) {
            for (var at = 0; at < (list || []).length; at++) {
                if (fn(list[at], at) === false) { return; }
            }
        },
        map: function (list, fn) { return list.map(fn); },
        filter: function (list, fn) { return list.filter(fn); },
        some: function (list, fn) { return list.some(fn); },
        findBy: function (list, fn) { return list.filter(fn)[0] || null; },
    },
    Object: { getValues: function (object) { return Object.keys(object).map(function (key) { return object[key]; }); } },
    String: {
        format: function (text) {
            var args = arguments;
            return text.replace(/\{(\d+)\}/g, function (all, at) { return args[Number(at) + 1]; });
        },
    },
    Date: { format: function (date) { return date.toISOString().substr(0, 16).replace('T', ' '); } },
    Msg: {
        buttonText: { yes: 'Yes' },
        confirm: function (title, text, fn) { messages.push({ text: text, answer: fn }); },
        alert: function (title, text) { messages.push({ text: text }); },
        show: Ext_show, hide: function () {}, updateProgress: function () {},
    },
    state: { Manager: { get: function () { return window.caps; } } },
};
function Ext_show(config) { messages.push({ text: config.message || config.msg || config.title, answer: config.fn }); }

// ---------------------------------------------------------------- classes and components

var classes = {}; // by name: what was defined, with `parent` and overrides applied
var widgets = {}; // names by xtype

Ext.ns = function (name) {
    window[name] = window[name] || {};
    return window[name];
};
Ext.ClassManager = { get: function (name) { return classes[name] || null; } };
Ext.define = function (name, body) {
    if (body.override) {
        var before = classes[body.override].initComponent || Ext.emptyFn;
        classes[body.override].initComponent = function () {
            var outer = this.callParent;
            this.callParent = before;
            try { body.initComponent.apply(this, arguments); } finally { this.callParent = outer; }
        };
        return;
    }
    classes[name] = Ext.apply({ $className: name }, body);
    if (body.alias) { widgets[[].concat(body.alias)[0].replace('widget.', '')] = name; }
};

var ids = 0;
function Store(config) {
    Ext.apply(this, config);
    this.records = [];
    this.listeners = {};
    this.loadData(config.data || []);
}
Store.prototype = {
    loadData: function (rows) {
        var store = this;
        this.records = rows.map(function (row) {
            var data = Ext.apply({}, row);
            return {
                id: row.id === undefined ? 'made-' + ++ids : row.id, data: data,
                set: function (values) { Ext.apply(data, values); store.fire('update'); },
            };
        });
        this.generation = (this.generation || 0) + 1;
        this.fire('datachanged');
    },
    setData: function (rows) { this.loadData(rows); },
    getData: function () { return this; },
    getRange: function () { return this.records; },
    getAt: function (at) { return this.records[at]; },
    getById: function (id) { return this.records.filter(function (one) { return one.id === id; })[0] || null; },
    each: function (fn) { this.records.forEach(fn); },
    findRecord: function (field, value) {
        return this.records.filter(function (one) { return String(one.data[field]) === String(value); })[0] || null;
    },
    getSorters: function () { return { findBy: function () { return null; } }; },
    clearFilter: Ext.emptyFn, filterBy: Ext.emptyFn,
    on: function (events, fn) {
        if (typeof events === 'string') { this.listeners[events] = fn; } else { Ext.apply(this.listeners, events); }
    },
    fire: function (name) { this.listeners && this.listeners[name] && this.listeners[name](this); },
};

function Component(config, parent) {
    var kind = config.xtype && (classes[config.xtype] || classes[widgets[config.xtype]]);
    if (kind) { Ext.apply(this, kind); }
    Ext.apply(this, config);
    this.ownerCt = parent;
    this.own = {}; // the listeners of each event
    this.on(this.listeners || {});
    this.early = this.listeners;
    this.children = [];
    this.selected = [];
    if (this.initComponent) { this.initComponent(); }
    if (!this.isBuilt) { this.build(); }
}
Component.prototype = {
    callParent: function () { this.build(); },
    build: function () {
        var me = this;
        me.isBuilt = true;
        if (me.listeners && me.listeners !== me.early) { me.on(me.listeners); }
        me.add((me.tbar || []).concat(me.items || [], me.dockedItems || []));
        me.items = {
            indexOf: function (child) { return me.children.indexOf(child); },
            each: function (fn) { me.children.forEach(fn); },
        };
        me.headerCt = {
            getGridColumns: function () { return me.columns || []; },
            insert: function (at, column) { me.columns.splice(at, 0, column); },
        };
    },
    add: function (children) {
        var me = this;
        [].concat(children).forEach(function (child) { if (typeof child !== 'string') { me.insert(me.children.length, child); } });
    },
    insert: function (at, child) {
        var made = (Array.isArray(child) ? child : [child]).map(function (one) {
            return one instanceof Component ? one : new Component(one, this);
        }, this);
        made.forEach(function (one) { one.ownerCt = this; }, this);
        Array.prototype.splice.apply(this.children, [at, 0].concat(made));
        return made[0];
    },
    // 'xtype', 'field', '#itemId', each with [name] or [name=value]; several with commas
    is: function (selector) {
        var me = this;
        return selector.split(/,\s*/).some(function (one) {
            var match = /^(#?)(\w*)(?:\[(\w+)(?:=([^\]]*))?\])?$/.exec(one);
            var kind = match[2];
            var fits = match[1] ? me.itemId === kind
                : !kind || me.xtype === kind || (kind === 'field' && me.name !== undefined) ||
                (kind === 'button' && (me.handler || me.xtype === 'button')) ||
                (kind === 'grid' && /grid/i.test(me.extend || me.xtype || ''));
            return fits && (!match[3] || (match[4] === undefined ? me[match[3]] !== undefined : String(me[match[3]]) === match[4]));
        });
    },
    query: function (selector) {
        return this.children.reduce(function (found, child) {
            return found.concat(child.is(selector) ? child : [], child.query(selector));
        }, []);
    },
    down: function (selector) { return this.query(selector)[0] || null; },
    up: function (selector) {
        for (var one = this.ownerCt; one && !one.is(selector); one = one.ownerCt) { /* on */ }
        return one || null;
    },
    nextSibling: function () { return this.ownerCt.children[this.ownerCt.children.indexOf(this) + 1]; },
    on: function (events, fn) {
        var own = this.own;
        var add = function (name, fn) { own[name] = (own[name] || []).concat(fn); };
        if (typeof events === 'string') { add(events, fn); return; }
        Object.keys(events).forEach(function (name) { add(name, events[name]); });
    },
    mon: function (other, event, fn) { other.on(event, fn); },
    fire: function (name) {
        var args = [this].concat([].slice.call(arguments, 1));
        (this.own[name] || []).forEach(function (fn) { fn.apply(this, args); }, this);
    },
    getStore: function () { return this.store; },
    getSelection: function () { return this.selected; },
    getSelectionModel: function () { return this; },
    select: function (record) {
        var before = this.selected[0]; // the same row loaded anew is selected still, and nobody is told
        this.selected = [record];
        if (!before || before.id !== record.id) { this.fire('selectionchange', this.selected); }
    },
    getValue: function () { return this.value; },
    getSubmitValue: function () { return this.value === undefined ? null : this.value; },
    getName: function () { return this.name; },
    setValue: function (value) { this.value = value; this.fire('change', value); },
    setDisabled: function (is) { this.disabled = !!is; },
    setEmptyText: function (text) { this.emptyText = text; },
    setText: function (text) { this.text = text; },
    setTitle: function (text) { this.title = text; },
    setVisible: function (is) { this.hidden = !is; },
    setHidden: function (is) { this.hidden = is; },
    setLoading: Ext.emptyFn, update: function (html) { this.html = html; },
    show: function (config) {
        if (config) { messages.push({ text: config.message, answer: config.fn, window: this }); }
        return this;
    },
};

var created = []; // windows and the like
Ext.create = function (name, config) {
    if (name === 'Ext.data.Store') { return new Store(config); }
    var component = new Component(Ext.apply({}, config, { xtype: name }));
    if (/MessageBox$/.test(name)) { component.promptContainer = component; }
    created.push(component);
    return component;
};

// ---------------------------------------------------------------- Proxmox' interface

var Proxmox = {
    defaultLang: 'en',
    NodeName: 'pve1',
    Utils: {
        task_desc_table: {},
        format_size: function (size) { return size + ' B'; },
        API2Request: function (options) {
            var response = { htmlStatus: '', status: 200 };
            requests.push(Ext.apply({
                answer: function (data) { response.result = { data: data }; options.success(response); },
                refuse: function (status, text) {
                    Ext.callback(options.failure, null, [Ext.apply(response, { status: status, htmlStatus: text })]);
                },
            }, { url: options.url, method: options.method, params: options.params }));
        },
    },
};
var PVE = {
    data: { ResourceStore: null },
    Parser: {
        parsePropertyString: function (text) {
            return text.split(',').reduce(function (found, part) {
                found[part.split('=')[0]] = Number(part.split('=')[1]);
                return found;
            }, {});
        },
    },
};
var caps = { dc: { 'Sys.Modify': 1 }, storage: { 'Datastore.AllocateSpace': 1 }, vms: { 'VM.Backup': 1 } };

// What of Proxmox' classes is overridden: as bare as can be.
['PVE.grid.BackupView', 'PVE.storage.ContentView', 'PVE.window.Restore', 'PVE.PruneInputPanel', 'PVE.dc.BackupEdit',
    'PVE.dc.BackupView', 'PVE.dc.BackupInfo', 'PVE.window.Backup', 'PVE.panel.Config', 'PVE.dc.Config'].forEach(function (name) {
    Ext.define(name, { initComponent: function () { this.build(); } });
});
