#!/usr/bin/perl

# Backups that are being made, were killed, or lose their full meanwhile: on the small host tree, with the
# real programs.  What happens between the plan of a backup and its end happens in a program that stands
# before the helper.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use Test::More;

use lib dirname(__FILE__) . '/lib';
use HostTree qw(program new_tree run host read_file write_file vma random);

my @missing = grep { !program($_) } qw(pve-diff-backup pve-xdelta3);
plan skip_all =>
    "not built: @missing (cargo build, or name their folder in PVE_DIFF_BACKUP_PROGRAMS)"
    if @missing;

my $here = abs_path(dirname(__FILE__));
my $DAY = 86400;
my $T0 = 1_790_000_000;

my $root = new_tree();
my $dump = "$root/var/lib/vz/dump";
my $applied = run(
    program('pve-diff-backup'),
    '--root', $root, '--patches', "$here/../../patches", 'apply'
);
ok($applied->{ok}, 'apply') or BAIL_OUT($applied->{out});

my $helper = "$root/usr/bin/pve-xdelta3";
rename($helper, "$helper.real") or die;

# Has shell code run before and behind the helper, when that makes a differential.
sub meanwhile {
    my ($before, $behind) = @_;

    write_file($helper, <<"SCRIPT");
#!/bin/sh
real() { '$helper.real' "\$@"; }
[ "\$1" = diff ] || exec '$helper.real' "\$@"
cd '$dump'
{ $before; } >>'$root/guests/said' 2>&1
real "\$@" || exit
{ $behind; } >>'$root/guests/said' 2>&1
SCRIPT
    chmod 0755, $helper;
    write_file("$root/guests/said", '');
    return;
}

sub names {
    return map { m!([^/]+)\z! } sort glob("$dump/vzdump-*");
}

sub archives {
    return grep { !/\.(?:log|damaged|tmp)\z/ } names();
}
sub fresh { unlink glob("$dump/*"); meanwhile(':', ':'); return }

# Ends vzdump, whose children end with it.
my $KILL = <<'SHELL';
p=$PPID; all=
while [ "$p" -gt 1 ]; do
	tr '\\0' ' ' </proc/$p/cmdline | grep -q bin/vzdump && all="$all $p"
	p=$(sed 's/.*) . //; s/ .*//' /proc/$p/stat)
done
kill -9 $all; exit 1
SHELL
chomp $KILL;

my $disk = random(1_000_000, 'disk');
my $big = random(600_000, 'container');

sub set_guests {
    my ($day) = @_;

    write_file("$root/var/lib/lxc/100/rootfs/usr/big", $big);
    write_file("$root/var/lib/lxc/100/rootfs/var/today", random(20_000, "day $day"));
    write_file("$root/etc/pve/lxc/100.conf", "memory: $day\n");
    my $now = $disk;
    substr($now, 65536 * ($day % 10), 5000, random(5000, $day));
    write_file("$root/guests/200.vma", vma("memory: $day\n", $now, $day));
    write_file("$root/etc/pve/qemu-server/200.conf", "stream: $root/guests/200.vma\n");
    return;
}

sub backup {
    my ($id, $day, @options) = @_;

    set_guests($day);
    return host(
        $root, 'bin/vzdump', $id, '--backup-time', $T0 + $day * $DAY,
        qw(--compress zstd --fullbackup), 7, @options
    );
}

sub said { return read_file("$root/guests/said") }
my $pvesm = "'$^X' -T '$root/usr/sbin/pvesm'";
my %type = (100 => 'lxc', 200 => 'qemu');

for my $id (100, 200) {

    # 1. A job that is killed harms no other.
    fresh();
    backup($id, 0);
    my ($full) = archives();
    meanwhile($KILL, ':');
    backup($id, 1);
    my ($left) = grep { /\.dat\z/ } names();
    like(
        $left, qr/\A\Q$full\E--differential-.*\.vcdiff\.[A-Za-z0-9-]+-[0-9a-f]{8}\.dat\z/,
        "$id: killed, and something is left"
    );
    rename("$helper.real", "$root/guests/real");
    my $verify = run(program('pve-diff-backup'), 'verify', $dump);
    rename("$root/guests/real", "$helper.real");
    like($verify->{out}, qr/^LEFT  \Q$left\E: /m, '... verify names it');
    my @prune = ('sbin/pvesm', 'prune-backups', 'local', qw(--keep-last 1 --vmid), $id);
    write_file(
        "$dump/vzdump-$type{$id}-$id-2026_12_30-01_00_00" . ($id == 100 ? '.tar' : '.vma'),
        'x'
    );
    my $dry = host($root, @prune, '--dry-run');
    like($dry->{out}, qr/^remove \S+\/\Q$full\E$/m, '... it holds no full in a dry run');
    ok(host($root, @prune)->{ok}, '... nor in a real one');
    ok(!-e "$dump/$full" && -e "$dump/$left", '... the full went');

    # A folder that nobody but another node can tell the end of stays.
    fresh();
    backup($id, 0);
    meanwhile($KILL, ':');
    backup($id, 1);
    my ($folder) = map { m!([^/]+)\z! } glob("$dump/*.tmp");
    my $start = "$dump/vzdump-$type{$id}-$id-2026_09_2";
    my %stays = (bare => "${start}0-01_00_00.tmp", other => "${start}0-02_00_00.tmp");
    mkdir($_) or die for values(%stays);
    my $note = read_file("$dump/$folder/pve-diff-backup.unfinished");
    my $of_other = $note;
    $of_other =~ s/[^.]+(?=\.dat$)/pve9-0badcafe/;
    write_file("$stays{other}/pve-diff-backup.unfinished", $of_other);
    mkdir("$dump/vzdump-$type{$id}-101-2026_09_20-01_00_00.tmp") or die;
    write_file(
        "$dump/vzdump-$type{$id}-101-2026_09_20-01_00_00.tmp/pve-diff-backup.unfinished",
        $note
    );
    meanwhile('ls */pve-diff-backup.unfinished', ':');
    my $next = backup($id, 2);
    like(
        $next->{out}, qr/INFO: removed '\Q$folder\E', which a killed backup had left/,
        "$id: the folder goes"
    );
    ok(!-e "$dump/$folder", '... it is gone');
    is(scalar(() = said() =~ /unfinished/g), 3, '... the job has its own') or diag(said());

    for my $path (values(%stays)) {
        ok(-d $path, "... $path stays");
        like(
            $next->{out},
            qr/INFO: '\Q@{[ $path =~ m!([^\/]+)\z! ]}\E' is the folder of .*: rm -r '\Q$path\E'/,
            '... told'
        );
    }
    ok(
        -d "$dump/vzdump-$type{$id}-101-2026_09_20-01_00_00.tmp",
        '... another guest is not asked for'
    );
    is(scalar(() = glob("$dump/*.tmp")), 3, '... nothing else is left');
    system('rm', '-rf', glob("$dump/*.tmp"));

    fresh();
    backup($id, 0);
    meanwhile($KILL, ':');
    backup($id, 1);
    meanwhile(':', ':');
    $next = backup($id, 2);
    like($next->{out}, qr/INFO: removed '\S+\.dat', which a killed backup had left/, '... it goes');
    like($next->{out}, qr/INFO: differential backup/, '... the next differential is made');
    is(scalar(archives()), 2, '... and nothing else is there');

    # 2. What another node may be writing stays, and keeps its full.
    fresh();
    backup($id, 0);
    ($full) = archives();
    my $other = "$full--differential-2026_09_22-01_00_00.vcdiff.pve9-0badcafe.dat";
    write_file("$dump/$other", 'x');
    my $seen = backup($id, 1, '--prune-backups', 'keep-last=1');
    ok($seen->{ok}, "$id: beside a file of another node") or diag($seen->{out});
    like(
        $seen->{out}, qr/WARN: '\Q$other\E' is unfinished, of node pve9-0badcafe\..*rm '/,
        '... told'
    );
    $dry = host($root, @prune, '--dry-run');
    my $real = host($root, @prune);
    ok($real->{ok} && -e "$dump/$full" && -e "$dump/$other", '... the full stays');
    like($dry->{out}, qr/^keep \S+\/\Q$full\E$/m, '... the dry run says so');

    # 2a. What another node made in the same second is not written over.
    fresh();
    backup($id, 0);
    meanwhile(
        'for left in *.dat; do echo other >"${left%.vcdiff.*}.vcdiff.zst"; done',
        ':'
    );
    my $second = backup($id, 1);
    ok(!$second->{ok}, "$id: beside a backup of the same second");
    like(
        $second->{out}, qr/exists already: another node has made a backup of the same second/,
        '... told'
    );
    my ($theirs) = grep { /differential/ && !/log\z/ } names();
    is(read_file("$dump/$theirs"), "other\n", '... that stays as it is');
    is(scalar(grep { /\.dat\z/ } names()), 0, '... and nothing of this one');

    # 2b. A link whose answer got lost, as over NFS, is found to be there already: it is this backup.
    fresh();
    backup($id, 0);
    meanwhile(':', 'for left in *.dat; do ln "$left" "${left%.vcdiff.*}.vcdiff.zst"; done');
    my $linked = backup($id, 1);
    ok($linked->{ok}, "$id: the name is given already") or diag($linked->{out});
    is(scalar(grep { /differential.*zst\z/ } archives()), 1, '... the backup is there');
    is(scalar(grep { /\.dat\z/ } names()), 0, '... and its first name gone');

    # 3. A differential whose full is away is nobody's to remove, but the administrator's.
    fresh();
    backup($id, $_) for 0, 1;
    my $stranded;
    ($full, $stranded) = archives();
    rename("$dump/$full", "$root/guests/away");
    my $later = backup($id, 20, '--prune-backups', 'keep-last=1');
    ok($later->{ok} && -e "$dump/$stranded", "$id: a stranded differential stays")
        or diag($later->{out});
    like(
        $later->{out},
        qr/WARN: 1 differential backup\(s\) cannot be restored, .* not there: \Q$full\E\. They are kept/,
        '... told'
    );
    $dry = host($root, @prune, '--dry-run');
    like($dry->{out}, qr/^keep \S+\/\Q$stranded\E$/m, '... the dry run says so');
    like($dry->{out}, qr/1 differential backup\(s\) cannot be restored/, '... and why');
    ok(host($root, @prune)->{ok} && -e "$dump/$stranded", '... and the real one does');
    rename("$root/guests/away", "$dump/$full");
    ok(
        host($root, @prune)->{ok} && !-e "$dump/$stranded" && !-e "$dump/$full",
        '... back, both may go'
    );
    fresh();
    backup($id, $_) for 0, 1;
    ($full, $stranded) = archives();
    unlink("$dump/$full");
    ok(
        host($root, 'sbin/pvesm', 'free', "local:backup/$stranded")->{ok} && !-e "$dump/$stranded",
        '... by hand it goes'
    );

    # 4. A full that is in use is not removed.
    fresh();
    backup($id, 0);
    ($full) = archives();
    my $newer = 'vzdump-' . "$type{$id}-$id-2030_01_01-01_00_00" . ($id == 100 ? '.tar' : '.vma');
    meanwhile(
              "echo x >$newer; $pvesm free local:backup/$full;"
            . " $pvesm prune-backups local --keep-last 1 --dry-run; $pvesm prune-backups local --keep-last 1; rm $newer",
        ':'
    );
    ok(backup($id, 1)->{ok} && -e "$dump/$full", "$id: the full in use stays");
    like(said(), qr/a backup is being made that needs it/, '... by hand');
    like(said(), qr/^keep \S+\/\Q$full\E$/m, '... in a dry run');
    unlike(said(), qr/error|removing/, '... without an error');
    is(scalar(archives()), 2, '... and the backup is made');

    # 5. A full that is gone, or no longer good, when the data begins to flow: an ordinary full.
    for my $how ('rm', 'truncate -s 1000', 'cp /etc/hostname') {
        fresh();
        backup($id, 0);
        ($full) = archives();
        meanwhile("$how ./$full", ':');
        my $made = backup($id, 1, '--protected', 1);
        ok($made->{ok}, "$id: $how before the data flows") or diag($made->{out});
        my ($new) = grep { $_ ne $full && !/\.protected\z/ } archives();
        unlike($new, qr/differential|\.dat/, '... a full is made');
        ok(run('zstd', '-qt', "$dump/$new")->{ok}, '... that everybody can read');
        like(
            $made->{out}, qr/WARN: '\Q$full\E' could not serve .*ordinary full backup, \Q$new\E/,
            '... told'
        );
        ok(-e "$dump/$new.protected", '... and what upstream does to it is done to the right file');
        (my $log = $new) =~ s/\.(?:vma|tar)\.zst\z/.log/;
        ok(-e "$dump/$log", '... its log too');
        like(
            backup($id, 2)->{out}, qr/INFO: differential backup: '\Q$new\E'/,
            '... it serves as base'
        );
    }

    # 6. A full that goes away while a differential is made against it.
    my %gone = (
        'rm ./FULL' => qr/the full backup \S+ was removed or renamed while/,
        'mv ./FULL ./away' => qr/was removed or renamed while/,
        'truncate -s 300000 ./FULL' =>
            qr/was cut short or replaced .*while|is damaged: cannot read/,
        'real full <away >FULL' => qr/was replaced or overwritten while|is damaged: cannot read/,
    );
    for my $how (sort keys %gone) {
        fresh();
        backup($id, 0);
        ($full) = archives();
        write_file("$dump/away", random(500_000, 'another'));
        (my $change = $how) =~ s/FULL/$full/g;

        # the helper has read the base's map when it begins to read the stream
        write_file($helper, <<"SCRIPT");
#!/bin/bash
[ "\$1" = diff ] || exec '$helper.real' "\$@"
real() { '$helper.real' "\$@"; }
cd '$dump'
exec 3< <(head -c 100; while ! grep -qs FULL=open '$root/guests/x' && ! ls -l /proc/*/fd 2>/dev/null | grep -q '$full'; do :; done; sleep 0.3; $change; cat)
real "\$@" <&3
SCRIPT
        chmod 0755, $helper;
        my $made = backup($id, 1);
        ok(!$made->{ok}, "$id: $how while data flows: the job fails") or diag($made->{out});
        like($made->{out}, $gone{$how}, '... and says why');
        is(scalar(grep { /differential.*(?:zst|dat)\z/ } names()), 0, '... nothing is left');
    }
}

# 7. Damage that shows before the data flows, as a small full is read at once.
fresh();
backup(100, 0, '--compress', 'gzip');
my ($full) = archives();
my $content = read_file("$dump/$full");
substr($content, length($content) / 2, 4, "\0\0\0\0");
write_file("$dump/$full", $content);
my $made = backup(100, 1, '--compress', 'gzip');
ok($made->{ok}, 'damage that shows before the data flows') or diag($made->{out});
like($made->{out}, qr/WARN: '\Q$full\E' could not serve/, '... a full');

# 8. A VM's full shows its damage late.  The job fails, and the next one makes a full.
fresh();
backup(200, 0, '--compress', 'gzip');
($full) = archives();
$content = read_file("$dump/$full");
substr($content, length($content) / 2, 4, "\0\0\0\0");
write_file("$dump/$full", $content);
$made = backup(200, 1, '--compress', 'gzip');
ok(!$made->{ok}, 'damage shows while data flows: the job fails') or diag($made->{out});
like($made->{out}, qr/the full backup \S+ is damaged: /, '... and says why');
is(scalar(grep { /differential.*(?:gz|dat)\z/ } names()), 0, '... nothing is left');
ok(-e "$dump/$full.damaged", '... but a note');
my $next = backup(200, 2, '--compress', 'gzip');
ok($next->{ok}, 'the next job') or diag($next->{out});
like($next->{out}, qr/WARN: full backup: '\Q$full\E' .*found damaged/, '... makes a full');
like(
    $next->{out}, qr/WARN: the full backup '\Q$full\E' is damaged .*pve-verify-backups/,
    '... told'
);
like(
    backup(200, 3, '--compress', 'gzip')->{out}, qr/INFO: differential backup/,
    '... and the one after that a differential'
);
ok(host($root, 'sbin/pvesm', 'free', "local:backup/$full")->{ok}, 'the damaged one is removed');
ok(!-e "$dump/$full.damaged", '... with the note');

# 9. The helper goes while guests are waited for.
fresh();
backup(100, 0);
write_file(
    $helper,
    "#!/bin/sh\n[ \"\$1\" = identify ] && rm -f '$helper'\nexec '$helper.real' \"\$@\"\n"
);
chmod 0755, $helper;
$made = backup(100, 1);
ok($made->{ok}, 'no helper when data begins to flow: the backup is made') or diag($made->{out});
like($made->{out}, qr/WARN: \S+ is missing: making an ordinary full backup/, '... a full');
is(scalar(grep { !/differential/ } archives()), 2, '... of its own');

done_testing();
