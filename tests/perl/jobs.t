#!/usr/bin/perl

# The option in backup jobs on the small host tree: what our lines in its modules make our copy
# remember and forget, and that code without them drops the option, which comes back.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use JSON::PP;
use Test::More;

use lib dirname(__FILE__) . '/lib';
use HostTree qw(program new_tree run read_file write_file);

my @missing = grep { !program($_) } qw(pve-diff-backup pve-xdelta3);
plan skip_all =>
    "not built: @missing (cargo build, or name their folder in PVE_DIFF_BACKUP_PROGRAMS)"
    if @missing;

my $patches = abs_path(dirname(__FILE__)) . '/../../patches';
my $root = new_tree();
write_file("$root/etc/pve/.members", '{"nodename": "pve1"}');
mkdir "$root/etc/pve/priv" or die;

sub ours {
    my ($command) = @_;

    return run(program('pve-diff-backup'), '--root', $root, '--patches', $patches, $command);
}

# Calls the API as the tree's own modules have it.
sub api {
    my ($code) = @_;

    my $result = run($^X, '-T', "-I$root/usr/share/perl5", '-MPVE::API2::Backup', '-e', $code);
    diag($result->{out}) if !$result->{ok};
    return $result;
}

sub remembered {
    my $path = "$root/etc/pve/pve-diff-backup.json";
    return -e $path ? decode_json(read_file($path))->{jobs} // {} : undef;
}

sub jobs { return read_file("$root/etc/pve/jobs.cfg") }

ok(ours('apply')->{ok}, 'apply');
is_deeply(remembered(), {}, 'no job, nothing to remember');

# each change through our lines is remembered at once
ok(
    api("PVE::API2::Backup::create_job('a', { storage => 'nas', fullbackup => 7 })")->{ok},
    'create'
);
ok(api("PVE::API2::Backup::create_job('b', { storage => 'nas' })")->{ok}, 'create without');
is_deeply(remembered(), { a => 7 }, 'a new job with the option');
ok(api("PVE::API2::Backup::update_job('b', { fullbackup => 0 })")->{ok}, 'set to 0');
ok(api("PVE::API2::Backup::update_job('a', { fullbackup => 14 })")->{ok}, 'change');
is_deeply(remembered(), { a => 14, b => 0 }, 'changed values');
ok(api("PVE::API2::Backup::update_job('a', { storage => 'usb' })")->{ok}, 'change something else');
is_deeply(remembered(), { a => 14, b => 0 }, '... which says nothing of it');
my $before = jobs();
like($before, qr/fullbackup 14\n.*fullbackup 0\n/s, 'both are in jobs.cfg');

# what a node without our lines writes, and what becomes of it
sub stock_writes {
    my $pristine = new_tree();
    write_file("$pristine/etc/pve/jobs.cfg", jobs());
    my $result = run(
        $^X, '-T', "-I$pristine/usr/share/perl5", '-MPVE::API2::Backup', '-e',
        "PVE::API2::Backup::update_job('b', { storage => 'tape' })"
    );
    ok($result->{ok}, 'a node without our lines writes');
    write_file("$root/etc/pve/jobs.cfg", read_file("$pristine/etc/pve/jobs.cfg"));
    unlike(jobs(), qr/fullbackup/, '... and drops the option from all jobs');
    return;
}
stock_writes();
my $status = ours('status');
like($status->{out}, qr/a\s+full backup every 14 days, dropped/, 'status tells');
unlike(jobs(), qr/fullbackup/, '... and changes nothing');
my $applied = ours('apply');
like($applied->{out}, qr/job a: its Full Backup Every 14 is back/, 'apply says so');
(my $expected = $before) =~ s/storage nas/storage tape/;
$expected =~ s/\tfullbackup (\d+)\n((?:\t.*\n)*)/$2\tfullbackup $1\n/g;
is(jobs(), $expected, '... and nothing else changed');

# removed and deleted through our lines, after a drop too: it stays away
stock_writes();
ok(api("PVE::API2::Backup::update_job('a', {}, 'fullbackup')")->{ok}, 'remove the option');
ours('apply');
unlike(jobs(), qr/fullbackup 14/, 'what was removed does not return');
is_deeply(remembered(), { b => 0 }, '... and is forgotten');
ok(api("PVE::API2::Backup::update_job('a', { fullbackup => 3 })")->{ok}, 'set anew');
ok(api("PVE::API2::Backup::delete_job('a')")->{ok}, 'delete the job');
is_deeply(remembered(), { b => 0 }, 'a deleted job is forgotten');

# made anew under its name, whoever deleted it
ok(
    api("PVE::API2::Backup::create_job('a', { storage => 'nas', fullbackup => 5 })")->{ok},
    'create'
);
write_file("$root/etc/pve/jobs.cfg", "vzdump: b\n\tstorage nas\n\n");
ok(api("PVE::API2::Backup::create_job('a', { storage => 'nas' })")->{ok}, 'create anew, without');
ours('apply');
unlike(jobs(), qr/vzdump: a.*fullbackup/s, 'the new job has no old value');

# a failure of ours is a warning
write_file("$root/etc/pve/pve-diff-backup.json", '{"format": 99}');
my $result = api("PVE::API2::Backup::update_job('a', { fullbackup => 9 })");
ok($result->{ok}, 'a file of a newer version does not stop the change');
like($result->{out}, qr/unknown form/, '... but is told');
like(jobs(), qr/fullbackup 9/, '... which is made');
like(ours('status')->{out}, qr/form 99 is unknown/, 'status tells too');
write_file("$root/etc/pve/pve-diff-backup.json", '{"format"');
like(ours('apply')->{out}, qr/damaged/, 'a damaged file is told');
is_deeply(remembered(), { a => 9, b => 0 }, '... and made anew');

# revert takes the option out and keeps it for a return
my $reverted = ours('revert');
ok($reverted->{ok}, 'revert');
like($reverted->{out}, qr/job a: Full Backup Every 9 taken out/, '... says what it changes');
unlike(jobs(), qr/fullbackup/, '... in jobs.cfg');
ours('apply');
like(jobs(), qr/vzdump: a\n\tstorage nas\n\tfullbackup 9\n/, 'it returns with us');

# a backup's start does it too, and is not stopped by a program that fails
stock_writes();
write_file("$root/usr/bin/pve-diff-backup", "#!/bin/sh\necho called \"\$\@\" >&2\nexit 1\n");
chmod(0755, "$root/usr/bin/pve-diff-backup") or die;
$result = api("PVE::VZDump->new({})->exec_backup()");
ok($result->{ok}, 'a backup starts');
like($result->{out}, qr/called hook jobs\n/, '... and asks for it');
my @hook = ('--root', $root, '--patches', $patches, 'hook', 'jobs');
is(run(program('pve-diff-backup'), @hook)->{code}, 0, 'the hook');
like(jobs(), qr/fullbackup 9/, '... brings it back');

done_testing();
