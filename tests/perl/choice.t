#!/usr/bin/perl -T

# Which full serves as base, and what a prune must keep.

use strict;
use warnings;

use File::Basename qw(dirname);
use POSIX qw(strftime);
use Test::More;

use lib map { m!\A(.+)\z! ? "$1/../../patches/payload" : () } dirname(__FILE__);

use PVE::VZDump::Differential::Chain
    qw(choose_base dependants split_restorable mark_stranded keep_needed);
use PVE::VZDump::Differential::Storage;

my $HOUR = 3600;
my $DAY = 24 * $HOUR;

# A fixed noon, far from changes of the clock.
my $NOW = POSIX::mktime(0, 0, 12, 20, 5, 126);

sub name {
    my ($age, %with) = @_;

    my $stamp = strftime('%Y_%m_%d-%H_%M_%S', localtime($NOW - $age));
    my $id = $with{vmid} // 100;
    my $type = $with{type} // 'qemu';
    my $extension = $with{extension} // 'vma.zst';
    return "vzdump-$type-$id-$stamp.$extension";
}

sub differential {
    my ($full, $age) = @_;

    return
          "$full--differential-"
        . strftime('%Y_%m_%d-%H_%M_%S', localtime($NOW - $age))
        . '.vcdiff.zst';
}

sub file {
    my ($name, %with) = @_;

    return { size => 1000, readable => 1, %with, name => $name };
}

my $hour_old = name($HOUR);
my $day_old = name($DAY);

# what, the folder, days, the base expected, the reason, odd
my @cases = (
    ['an empty folder', [], 7, undef, qr/no full backup/, 0],
    ['a full of yesterday', [file($day_old)], 7, $day_old, qr/is 1 day old/, 0],
    ['a full of a second ago', [file(name(1))], 7, name(1), qr/less than a minute old/, 0],
    ['the newest of two', [file($day_old), file($hour_old)], 7, $hour_old, qr/1 hour old/, 0],
    [
        'the newest of two, other order', [file($hour_old), file($day_old)], 7, $hour_old,
        qr/1 hour/, 0
    ],
    [
        'just within N days less half a day', [file(name(6.5 * $DAY - 1))], 7,
        name(6.5 * $DAY - 1), qr/6 days/, 0
    ],
    [
        'due at N days less half a day', [file(name(6.5 * $DAY))], 7, undef,
        qr/the last one.* is 6 days old/, 0
    ],
    ['N = 1, half a day old', [file(name(12 * $HOUR))], 1, undef, qr/12 hours old/, 0],
    ['N = 1, some hours old', [file(name(11 * $HOUR))], 1, name(11 * $HOUR), qr/11 hours old/, 0],
    [
        'N = 365, nearly a year old', [file(name(364 * $DAY))], 365, name(364 * $DAY),
        qr/364 days/, 0
    ],
    ['a full from the future', [file(name(-$HOUR))], 7, undef, qr/1 dated in the future/, 1],
    ['a full of this very second', [file(name(0))], 7, undef, qr/dated in the future/, 1],
    [
        'one from the future, one good', [file(name(-$DAY)), file($day_old)], 7, $day_old,
        qr/future left out/, 0
    ],
    ["another guest's", [file(name($HOUR, vmid => 101))], 7, undef, qr/no full/, 0],
    ['an ID that begins alike', [file(name($HOUR, vmid => 1001))], 7, undef, qr/no full/, 0],
    [
        "a container's with the same ID",
        [file(name($HOUR, type => 'lxc', extension => 'tar.zst'))], 7, undef, qr/no full/, 0
    ],
    ['another format', [file(name($HOUR, extension => 'tar.gz'))], 7, undef, qr/another format/, 1],
    [
        'another compression', [file(name($HOUR, extension => 'vma.lzo'))], 7,
        name($HOUR, extension => 'vma.lzo'), qr/1 hour/, 0
    ],
    [
        'an uncompressed one', [file(name($HOUR, extension => 'vma'))], 7,
        name($HOUR, extension => 'vma'), qr/1 hour/, 0
    ],
    ['bzip2 cannot serve', [file(name($HOUR, extension => 'vma.bz2'))], 7, undef, qr/no full/, 0],
    ['renamed', [file("vzdump-qemu-100-before-upgrade.vma.zst")], 7, undef, qr/no full/, 0],
    ['a name with a line feed', [file("$day_old\n")], 7, undef, qr/no full/, 0],
    ['unfinished', [file('vzdump-qemu-100-2026_06_20-11_00_00.vma.dat')], 7, undef, qr/no full/, 0],
    [
        'a log, notes and a protection mark',
        [map { file("$day_old.$_") } qw(log notes protected)], 7, undef, qr/no full/, 0
    ],
    ['only a differential', [file(differential($day_old, $HOUR))], 7, undef, qr/no full/, 0],
    [
        'the full, not its newer differential',
        [file(differential($day_old, $HOUR)), file($day_old)], 7, $day_old, qr/1 day/, 0
    ],
    ['empty', [file($day_old, size => 0)], 7, undef, qr/is empty/, 1],
    ['unreadable', [file($day_old, readable => '')], 7, undef, qr/cannot be read/, 1],
    [
        'the newest decides, an older one does not step in',
        [file($hour_old, size => 0), file($day_old)], 7, undef, qr/is empty/, 1
    ],
);
for my $case (@cases) {
    my ($what, $files, $days, $expect, $reason, $odd) = @$case;
    my ($base, $why, $is_odd) = choose_base(
        $files, type => 'qemu', vmid => 100, format => 'vma', days => $days, now => $NOW,
    );
    is($base, $expect, $what);
    like($why, $reason, "... because $why");
    is(!!$is_odd, !!$odd, '... and whether it is odd');
}

# Daily jobs a little early or late: a full every Nth day.
for my $days (1, 2, 7, 30) {
    my @log;
    my @files;
    for my $day (0 .. 60) {
        my $now = $NOW + $day * $DAY + (37 * $day) % 600 - 300;
        my ($base) = choose_base(
            \@files, type => 'qemu', vmid => 100, format => 'vma', days => $days, now => $now,
        );
        push @log, $base ? 'd' : 'F';
        push @files, file(name($NOW - $now)) if !$base;
    }
    my $expect = substr(('F' . 'd' x ($days - 1)) x 61, 0, 61);
    is(join('', @log), $expect, "daily jobs with N = $days");
}

# Who needs a full.
my $full = name(2 * $DAY);
my @needing = (
    differential($full, $DAY),
    "$full--differential-2026_06_20-00_00_00.vcdiff",
    "$full--differential-2026_06_20-01_00_00.vcdiff.dat",
    "$full--differential-2026_06_20-02_00_00.dat",
);
(my $dotless = $needing[0]) =~ s/\.vma/_vma/;
my @others = (
    $full, "$full.notes", "$full.protected", differential($day_old, $HOUR),
    map({ differential($full, $DAY) . ".$_" } qw(notes protected)),
    "$full--differential-2026_06_19-12_00_00.log", "x$needing[0]",
    $dotless,
);
is_deeply([dependants($full, @others, @needing)], [sort @needing], 'who needs a full');

# Why a full cannot be removed.  What the web interface shows is cut out of a task's last 4096 bytes.
my $refusal = \&PVE::VZDump::Differential::Storage::_needed_message;
my @many = map { differential($full, $_ * $HOUR) } 1 .. 300;
my $why = $refusal->("local:backup/$full", @many);
like(
    $why, qr/': 300 differential backup\(s\) need it, remove them first: /,
    'the count comes first'
);
like($why, qr/first: \Q$many[0], $many[1], $many[2]\E and 297 more\n\z/, '... then a few names');
ok(length("TASK ERROR: $why") < 4096, '... and all of it fits') or diag(length($why));
like(
    $refusal->($full, @many[0 .. 2]), qr/: \Q$many[0], $many[1], $many[2]\E\n\z/,
    'three are all named'
);

# Retention.  A group is what upstream hands over after marking.
sub group {
    my ($style, @pairs) = @_;

    my @group;
    while (my ($name, $mark) = splice(@pairs, 0, 2)) {
        my $where = $style eq 'volid' ? "local:backup/$name" : "/var/lib/vz/dump/$name";
        push @group, { $style => $where, mark => $mark, ctime => $NOW };
    }
    return \@group;
}
my @chain = ($full, map { differential($full, $_ * $HOUR) } 3, 2, 1);
for my $style (qw(volid path)) {
    my @retention = (
        ['all go', [qw(remove remove remove remove)], [qw(remove remove remove remove)]],
        [
            'the last stays, so does its full', [qw(remove remove remove keep)],
            [qw(keep remove remove keep)]
        ],
        [
            'a protected one keeps its full', [qw(remove protected remove remove)],
            [qw(keep protected remove remove)]
        ],
        [
            'a protected full stays protected', [qw(protected remove remove keep)],
            [qw(protected remove remove keep)]
        ],
        ['only the full is kept', [qw(keep remove remove remove)], [qw(keep remove remove remove)]],
    );
    for my $case (@retention) {
        my ($what, $before, $after) = @$case;
        my $group = group($style, map { $chain[$_] => $before->[$_] } 0 .. $#chain);
        keep_needed($group);
        is_deeply([map { $_->{mark} } @$group], $after, "$what ($style)");
    }
}
my $two = group('volid', $day_old => 'remove', $full => 'remove', $chain[1] => 'keep');
is_deeply([keep_needed($two)], [$full], 'only the needed full is saved');
is_deeply([map { $_->{'needed-by'} } @$two], [undef, 1, undef], '... and says what needs it');

# Differentials without their full do not count.
my $mixed = group(
    'volid', map { $_ => undef } $day_old, differential($full, $HOUR),
    differential($day_old, $HOUR));
my ($good, $stranded) = split_restorable($mixed);
is_deeply(
    [map { $_->{volid} } @$good],
    [map { "local:backup/$_" } $day_old, differential($day_old, $HOUR)], 'restorable'
);
is(scalar(@$stranded), 1, 'stranded');

my @stranded_cases = (
    ['newer than the oldest kept', 10, { 'keep-last' => 1 }, undef, 'keep'],
    ['older than all that is kept', 1, { 'keep-last' => 1 }, undef, 'remove'],
    ['older, but no rule', 1, { 'keep-all' => 1 }, undef, 'keep'],
    ['older, but a rule of zero', 1, { 'keep-last' => 0 }, undef, 'keep'],
    ['older, but protected', 1, { 'keep-last' => 1 }, 'protected', 'protected'],
);
for my $case (@stranded_cases) {
    my ($what, $ctime, $keep, $mark, $expect) = @$case;
    my $entry = { ctime => $ctime, mark => $mark };
    mark_stranded(
        [$entry], [{ ctime => 5, mark => 'keep' }, { ctime => 0, mark => 'remove' }],
        $keep
    );
    is($entry->{mark}, $expect, "stranded, $what");
}
my $alone = { ctime => 1 };
mark_stranded([$alone], [], { 'keep-last' => 1 });
is($alone->{mark}, 'keep', 'stranded, and nothing else is left');

done_testing();
