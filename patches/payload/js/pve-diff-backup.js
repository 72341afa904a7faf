// pve-diff-backup: the field "Full Backup Every" of backup jobs.
//
// Loaded by a line of ours in index.html.tpl, after Proxmox' own scripts and before the workspace is
// created.  An override of a class, so nothing of Proxmox is edited; whatever goes wrong leaves the
// window as it was, without the field.  Not in strict mode: callParent of Ext JS does not allow that.

(function () {
    if (typeof Ext === 'undefined' || typeof PVE === 'undefined') {
        return;
    }

    var text = typeof gettext === 'function' ? gettext : function (message) { return message; };

    // The field as the window needs it: an empty value is not sent, or removed from an existing job that had one.  A job
    // that lost its value to a node without our lines keeps its right to it, whatever else is changed in this window.
    // Of Ext JS' own kind (4 to 7), since Proxmox' came and changed its name later.
    var fieldConfig = function (isCreate) {
        return {
            xtype: 'numberfield',
            name: 'fullbackup',
            fieldLabel: text('Full Backup Every'),
            emptyText: text('0 days: always full'),
            minValue: 0,
            maxValue: 365,
            allowBlank: true,
            allowDecimals: false,
            getSubmitData: function () {
                var data = {};
                var value = this.getSubmitValue();
                var before = this.originalValue;
                if (value !== null && value !== '') {
                    data[this.getName()] = value;
                } else if (!isCreate && before !== undefined && before !== null && before !== '') {
                    data['delete'] = this.getName();
                }
                return data;
            },
            autoEl: {
                tag: 'div',
                'data-qtip': Ext.htmlEncode(
                    text('Days between full backups. Those between hold only what changed since the last full one.') +
                        ' ' + text('Not for Proxmox Backup Server.'),
                ),
            },
        };
    };

    Ext.define('PveDiffBackup.dc.BackupEdit', {
        override: 'PVE.dc.BackupEdit',

        initComponent: function () {
            var me = this;
            me.callParent(arguments);
            try {
                // both generations of this window end with a field named mode
                var mode = me.down('field[name=mode]');
                var owner = mode && mode.ownerCt;
                if (owner && !me.down('field[name=fullbackup]')) {
                    owner.insert(owner.items.indexOf(mode) + 1, fieldConfig(!me.jobid));
                }
            } catch (err) {
                if (window.console) {
                    console.warn('pve-diff-backup: no field in this window', err);
                }
            }
        },
    });
})();
