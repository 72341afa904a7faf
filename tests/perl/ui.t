#!/usr/bin/perl

# The field in the backup job's window, and our page: Proxmox' real scripts with ours in headless
# Chromium, without a server. Needs Chromium, PVE_MIRRORS (clones of pve-manager and proxmox-widget-toolkit) and
# EXTJS (the folder "build" of Ext JS 6, such as that of the npm package extjs-gpl).
# PVE_UI_SCREENSHOTS names a folder for pictures of the windows.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use JSON::PP;
use Test::More;

use lib dirname(__FILE__) . '/lib';
use HostTree qw(run read_file write_file);

my $mirrors = $ENV{PVE_MIRRORS} // plan skip_all => 'PVE_MIRRORS is not set';
my $ext = $ENV{EXTJS} // plan skip_all => 'EXTJS is not set';
-e "$ext/ext-all-debug.js" or plan skip_all => "no ext-all-debug.js in '$ext'";
my ($chromium) = grep { run('sh', '-c', "command -v $_")->{ok} } qw(chromium chromium-browser);
$chromium or plan skip_all => 'Chromium is not installed';

sub clone {
    my ($name) = @_;

    my @places = ("$name/.git", "$name.git", $name, "proxmox+$name/repo");
    my ($git) = grep { -e "$_/HEAD" } map { "$mirrors/$_" } @places;
    return $git // plan skip_all => "no clone of $name in PVE_MIRRORS";
}
my $manager = clone('pve-manager');
my $toolkit = clone('proxmox-widget-toolkit');

sub git {
    my ($repo, @arguments) = @_;

    my $result = run('git', '-c', 'safe.directory=*', '-C', $repo, @arguments);
    die "git @arguments: $result->{out}" if !$result->{ok};
    chomp(my $out = $result->{out});
    return $out;
}

# The scripts that a Makefile lists, in order.
sub scripts {
    my ($makefile) = @_;

    my ($list) = $makefile =~ /^JSSRC\s*=((?:.*\\\n)*.*\n)/m or die "no JSSRC\n";
    return grep { /\.js\z/ } split(/[\s\\]+/, $list);
}

# The options that a window asks to be removed.
sub deleted {
    my ($sent) = @_;

    my $names = $sent->{del} // '';
    return ref($names) ? join(',', @$names) : $names;
}

my $theme = 'classic/theme-crisp/resources/theme-crisp-all.css';
my $override = abs_path(dirname(__FILE__) . '/../../patches/payload/js/pve-diff-backup.js');

# What the page does: the window for a new job and for an existing one, and what each would send.
my $driver = <<'JS';
var result = { create: null, edit: null, cleared: null, errors: [] };
window.onerror = function (message) { result.errors.push(String(message)); };
Ext.Ajax.request = function (options) {
    var data = [];
    var job = /cluster\/backup\/(job[12])/.exec(options.url);
    if (job && (options.method || 'GET') === 'GET') {
        data = { id: job[1], type: 'vzdump', vmid: '100', storage: 'local', mode: 'snapshot',
            schedule: '03:00', dow: 'mon', starttime: '03:00', compress: 'zstd', enabled: 1 };
        if (job[1] === 'job1') { data.fullbackup = 7; }
    }
    var full = 'local:backup/vzdump-qemu-100-2026_11_20-01_00_00.vma.zst';
    var differential = full + '--differential-2026_11_21-01_00_00.vcdiff.zst';
    if (/pve-diff-backup\/status/.test(options.url)) {
        data = { overall: 'patched', program: '1.2.3', verified: 1, attention: ['do this'] };
    } else if (/pve-diff-backup\/verified/.test(options.url)) {
        data = [{ volid: full, at: 1764400000, good: 1 }, { volid: differential, at: 1764400000, good: 0 }];
    } else if (/storage\/local\/content/.test(options.url)) {
        data = [{ volid: full, size: 1000 }, { volid: differential, size: 10 }];
    } else if (/cluster\/backup$/.test(options.url)) {
        data = [{ id: 'job1', storage: 'local', vmid: '100', fullbackup: 7, starttime: '03:00', dow: 'mon' }];
    }
    var response = { status: 200, responseText: Ext.encode({ success: 1, data: data }) };
    response.request = { options: options };
    Ext.defer(function () {
        Ext.callback(options.success, options.scope, [response, options]);
        Ext.callback(options.callback, options.scope, [options, true, response]);
    }, 10);
    return { abort: Ext.emptyFn, id: 1 };
};
var look = function (win) {
    var field = win.down('field[name=fullbackup]');
    if (!field) { return { found: false }; }
    var mode = win.down('field[name=mode]');
    var around = field.ownerCt; // the field and its unit
    var line = mode.labelEl.getHeight();
    var seen = { found: true, label: around.getFieldLabel(), value: field.getValue(),
        next: around.ownerCt.items.indexOf(around) - mode.ownerCt.items.indexOf(mode),
        visible: field.isVisible(true), errors: [],
        oneLine: around.labelEl.dom.scrollHeight <= line && around.labelEl.dom.scrollWidth <= around.labelEl.getWidth(),
        height: around.getHeight() === mode.getHeight(), typed: '1.5e-3'.replace(/./g, function (key) {
            return field.maskRe.test(key) ? key : ''; }) };
    [-1, 366, 'x', '1.5', '1e1', 1.5].forEach(function (bad) { seen.errors.push(field.getErrors(bad).length > 0); });
    [0, 1, 365, ''].forEach(function (ok) { seen.errors.push(field.getErrors(ok).length === 0); });
    return seen;
};
var sent = function (win) {
    var values = win.getValues();
    return { fullbackup: values.fullbackup, del: values['delete'] };
};
// Our page, as somebody with all privileges sees it.
var showPage = function () {
    var everything = { dc: { 'Sys.Modify': 1 }, storage: { 'Datastore.AllocateSpace': 1 }, vms: { 'VM.Backup': 1 } };
    var get = Ext.state.Manager.get;
    Ext.state.Manager.get = function (name) {
        return name === 'GuiCap' ? everything : get.apply(this, arguments);
    };
    PVE.data.ResourceStore.loadData([
        { id: 'node/pve1', type: 'node', node: 'pve1', status: 'online' },
        { id: 'storage/pve1/local', type: 'storage', node: 'pve1', storage: 'local', status: 'available' },
        { id: 'qemu/100', type: 'qemu', node: 'pve1', vmid: 100, name: 'one' },
    ]);
    var page = Ext.create('PveDiffBackup.Page', {});
    Ext.create('Ext.container.Viewport', { layout: 'fit', items: [page] });
    page.reload();
    return page;
};
var lookAtPage = function (page) {
    var cells = function (query) {
        return Ext.Array.map(page.down(query).el.query('td'), function (td) {
            return (td.textContent || td.innerText).replace(/\s+/g, ' ').replace(/^ | $/g, '');
        }).join('|');
    };
    var backups = page.down('pveDiffBackupBackups');
    page.down('pveDiffBackupNodes').getSelectionModel().select(0);
    backups.getSelectionModel().select(0);
    var buttons = Ext.Array.map(page.query('button[fits]'), function (button) {
        return button.text + (button.disabled ? ' off' : '');
    });
    return { nodes: cells('pveDiffBackupNodes'), jobs: cells('pveDiffBackupJobs'), guests: cells('pveDiffBackupChains'),
        backups: cells('pveDiffBackupBackups'), buttons: buttons.join() };
};
Ext.onReady(function () {
    try {
        var win = Ext.create('PVE.dc.BackupEdit', {}); win.show();
        result.create = look(win);
        result.createEmpty = sent(win);
        win.down('field[name=fullbackup]').setValue(14);
        result.createSent = sent(win);
        win.hide();
        win = Ext.create('PVE.dc.BackupEdit', { jobid: 'job1' }); win.show();
        var other = Ext.create('PVE.dc.BackupEdit', { jobid: 'job2' }); other.show();
        Ext.defer(function () {
            try {
                result.untouchedSent = sent(other);
                other.hide();
                result.edit = look(win);
                result.editSent = sent(win);
                win.down('field[name=fullbackup]').setValue('');
                result.clearedSent = sent(win);
                win.down('field[name=fullbackup]').setValue(7);
                win.hide();
                result.task = (Proxmox.Utils.format_task_description ? Proxmox : PVE).Utils.format_task_description('diffverify', '100');
                var page = showPage();
            } catch (err) { result.errors.push(String(err.stack || err)); }
            Ext.defer(function () {
                try {
                    result.page = lookAtPage(page);
                } catch (err) { result.errors.push(String(err.stack || err)); }
                var pre = document.createElement('pre');
                pre.id = 'result'; pre.style.display = 'none'; pre.textContent = JSON.stringify(result);
                document.body.appendChild(pre);
            }, 1500);
        }, 1500);
    } catch (err) {
        result.errors.push(String(err.stack || err));
        document.body.innerHTML = '<pre id="result"></pre>';
        document.getElementById('result').textContent = JSON.stringify(result);
    }
});
JS

my @releases =
    $ENV{PVE_UI_RELEASES}
    ? split(/ /, $ENV{PVE_UI_RELEASES})
    : (
    '5.0-12', '5.4-10', '6.0-9', '6.4-13', '7.0-10', '7.1-13', '7.2-15', '7.3-6', '7.4-20',
    '8.0.9', '8.1.11', '8.4.21', '9.0.11', '9.2.11'
    );
for my $release (@releases) {
    my $commit =
        git($manager, 'log', '--all', '--format=%H', '-1', "--grep=^bump version to $release\$");
    if ($commit eq '') {
        note("no release $release in this clone");
        next;
    }
    my $date = git($manager, 'log', '-1', '--format=%cI', $commit);
    my $widget = git($toolkit, 'rev-list', '--all', '-1', "--before=$date");

    my $dir = tempdir(CLEANUP => 1);
    # the toolkit's scripts lay in its top folder once
    my $src = git($toolkit, 'ls-tree', '--name-only', $widget, 'src') ? 'src' : 'toolkit';
    run('sh', '-c', 'git -c safe.directory="*" -C "$0" archive $2 | tar x -C "$1"', @$_)
        for [$manager, $dir, "$commit www"],
        [$toolkit, $dir, $src eq 'src' ? "$widget src" : "--prefix=toolkit/ $widget"];

    my @scripts = ("$ext/ext-all-debug.js");
    push @scripts, grep { -e } "$ext/packages/charts/classic/charts-debug.js";
    my @ours = map { "$src/$_" } scripts(read_file("$dir/$src/Makefile"));
    push @ours, map { "www/manager6/$_" } scripts(read_file("$dir/www/manager6/Makefile"));
    push @scripts, map { "$dir/$_" } grep { -e "$dir/$_" } @ours;
    write_file("$dir/driver.js", $driver);
    my $page =
          "<!DOCTYPE html><html><head><meta charset='utf-8'>\n"
        . "<link rel='stylesheet' href='file://$ext/$theme'>\n"
        . '<script>function gettext(t) { return t; }'
        . ' function ngettext(a, b, n) { return n === 1 ? a : b; }'
        . " var Proxmox = { Setup: { auth_cookie_name: 'x' }, defaultLang: 'en', NodeName: 'pve1',"
        . " UserName: 'root\@pam', CSRFPreventionToken: 't', ConsentText: '' };\n"
        . " function QRCode() {}"
        . " var PVE_vnc_console_event, pveOnlineHelpInfo = {};"
        . " var proxmoxOnlineHelpInfo = {};</script>\n"
        . join(
        '', map { "<script src='file://$_'></script>\n" } @scripts, $override,
        "$dir/driver.js"
        ) . "</head><body></body></html>\n";
    write_file("$dir/index.html", $page);

    my @options = (
        '--headless', '--no-sandbox', '--disable-gpu', '--allow-file-access-from-files',
        "--user-data-dir=$dir/profile", '--window-size=1000,760', '--virtual-time-budget=20000'
    );
    if (my $pictures = $ENV{PVE_UI_SCREENSHOTS}) {
        run(
            $chromium, @options, "--screenshot=$pictures/backup-edit-$release.png",
            "file://$dir/index.html"
        );
    }
    my $dom =
        run('timeout', 120, $chromium, @options, '--dump-dom', "file://$dir/index.html")->{out};
    my ($json) = $dom =~ m!<pre id="result"[^>]*>(.*?)</pre>!s;
    if (!ok(defined($json), "$release: the page ran to its end")) {
        diag(join("\n", grep { /rror/ } split(/\n/, $dom))) if length($dom) < 200_000;
        next;
    }
    my %entity = (lt => '<', gt => '>', amp => '&');
    $json =~ s/&(lt|gt|amp);/$entity{$1}/g;
    my $got = JSON::PP->new->decode($json);
    for my $window (qw(create edit)) {
        ok($got->{$window}->{found}, "$release, $window: the field is there");
        is($got->{$window}->{label}, 'Full Every', "$release, $window: its label");
        is($got->{$window}->{next}, 1, "$release, $window: next to the mode");
        ok($got->{$window}->{visible}, "$release, $window: visible");
        ok($got->{$window}->{oneLine}, "$release, $window: its label is one line and fits");
        ok($got->{$window}->{height}, "$release, $window: ... and pushes no neighbour");
        is($got->{$window}->{typed}, '153', "$release, $window: digits alone can be typed");
        is(
            scalar(grep { !$_ } @{ $got->{$window}->{errors} }), 0,
            "$release, $window: 0 to 365 only"
        );
    }
    is(
        $got->{createEmpty}->{fullbackup} || undef, undef,
        "$release: nothing is sent for an empty field"
    );
    unlike(
        deleted($got->{createEmpty}), qr/fullbackup/,
        "$release: ... nor deleted"
    );
    is($got->{createSent}->{fullbackup}, 14, "$release: what was entered is sent");
    is($got->{edit}->{value}, 7, "$release: the job's value is shown");
    is($got->{editSent}->{fullbackup}, 7, "$release: ... and sent");
    unlike(
        deleted($got->{untouchedSent}), qr/fullbackup/,
        "$release: a job without a value that nobody touched is not said to have none"
    );
    like(
        deleted($got->{clearedSent}), qr/fullbackup/,
        "$release: clearing it deletes the option"
    );
    my $seen = $got->{page};
    like($seen->{nodes}, qr/\Apve1\|patched\|do this\|1\.2\.3\z/, "$release: the page's nodes");
    like($seen->{jobs}, qr/\|7 days\|mon 03:00\|local\|100\|/, "$release: ... its jobs");
    like(
        $seen->{guests}, qr/\Aqemu\/100 \(one\)\|\|1 cannot be restored\|\|1\|1\|/,
        "$release: ... its guests"
    );
    like(
        $seen->{backups}, qr/Differential of 2026-11-20 01:00:00.*\|Full\|/,
        "$release: ... the only guest's backups"
    );
    is($seen->{buttons}, 'Show,Apply,Verify,Consolidate', "$release: ... its buttons");
    # 5.0 lets nobody add to its names
    my $task = $release =~ /^5\.0-/ ? 'diffverify 100' : 'VM/CT 100 - Verify backups';
    is($got->{task}, $task, "$release: ... the name of its task");
    is_deeply($got->{errors}, [], "$release: no errors");
}

done_testing();
