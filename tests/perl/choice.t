#!/usr/bin/perl -T

# Which full serves as base, and what a prune must keep.

use strict;
use warnings;

use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use JSON::PP;
use POSIX qw(strftime);
use Test::More;

# A storage whose list ends in an error after so many names.
my $fails_after;

BEGIN {
    no warnings 'once';
    *CORE::GLOBAL::readdir = sub (*) {
        return CORE::readdir($_[0]) if !defined($fails_after) || $fails_after-- > 0;
        $! = POSIX::EIO(); ## no critic (RequireLocalizedPunctuationVars)
        return;
    };
}

use lib map { m!\A(.+)\z! ? "$1/../../patches/payload" : () } dirname(__FILE__);

use PVE::VZDump::Differential::Chain
    qw(choose_base other_guest parse_unfinished dependants split_restorable mark_stranded keep_needed
    parse_settings);
use PVE::VZDump::Differential::Helper qw(backup_files existing_dependants);
use PVE::VZDump::Differential::Storage;
use PVE::VZDump::Differential::Unfinished qw(states unfinished_name);

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

# What is in a file, by its extension and by fields that a case adds: what the helper would say.
sub look_into {
    my ($files) = @_;

    my %files = map { $_->{name} => $_ } @$files;
    return sub {
        my ($name) = @_;

        my $file = $files{$name};
        return {
            has_map => $file->{has_map} // scalar($name =~ /\.zst\z/),
            from_start => $file->{from_start} // scalar($name =~ /\.gz\z/),
            error => $file->{error},
            other_guest => $file->{other_guest},
        };
    };
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
    ['N = 1, two thirds of a day old', [file(name(16 * $HOUR))], 1, undef, qr/16 hours old/, 0],
    [
        'N = 1, less than that', [file(name(15.9 * $HOUR))],
        1, name(15.9 * $HOUR), qr/15 hours old/, 0
    ],
    [
        'N = 1, with a differential meanwhile',
        [file(name(18 * $HOUR)), file(differential(name(18 * $HOUR), 6 * $HOUR))],
        1, name(18 * $HOUR), qr/18 hours old/, 0
    ],
    [
        'N = 365, nearly a year old', [file(name(364 * $DAY))], 365, name(364 * $DAY),
        qr/364 days/, 0
    ],
    [
        'a full from the future', [file(name(-$HOUR))],
        7, undef, qr/no full backup .* can serve .*\(1 dated in the future/, 1
    ],
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
    [
        'only a differential', [file(differential($day_old, $HOUR))],
        7, undef,
        qr/the full backup of 1 differential backup .* is missing: put '\Q$day_old\E' back/, 1
    ],
    [
        'many differentials of fulls that are away',
        [map { file(differential(name($_ * $DAY), $HOUR)) } 1 .. 5],
        7, undef, qr/of 5 differential backups .* put '\Q$day_old\E', '.*', '.*' and 2 more back/, 1
    ],
    [
        "another guest's differential",
        [file(differential(name($DAY, vmid => 101), $HOUR))],
        7, undef, qr/no full backup of this guest yet/, 0
    ],
    [
        'a full that is there as xz only',
        [
            file(differential($day_old, $HOUR)),
            file(name($DAY, extension => 'vma.xz'))
        ],
        7, undef,
        qr/no full backup of this guest here can serve/,
        1
    ],
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
    [
        'damaged', [file($hour_old, error => 'cut short'), file($day_old)],
        7, undef, qr/'\Q$hour_old\E' cannot serve as base \(cut short\)/, 1
    ],

    # the map
    [
        'zstd without a map', [file($day_old, has_map => 0, from_start => 1)],
        7, undef, qr/'\Q$day_old\E' has no map/, 0
    ],
    [
        'gzip, and the job would make a map', [file(name($DAY, extension => 'vma.gz'))],
        7, undef, qr/vma\.gz' has no map/, 0
    ],
    [
        'a newer one without a map beside one with it',
        [file($hour_old, has_map => 0, from_start => 1), file($day_old)], 7, $day_old,
        qr/1 day old and has a map, which '\Q$hour_old\E' lacks/, 0
    ],
    [
        'the one with a map is past its days',
        [file($day_old, has_map => 0, from_start => 1), file(name(7 * $DAY))],
        7, undef, qr/has no map/, 0
    ],
    [
        'the one with a map is damaged',
        [file($hour_old, has_map => 0, from_start => 1), file($day_old, error => 'cut short')],
        7, undef, qr/has no map/, 0
    ],
    [
        'two in another form, the older has the map',
        [
            file(name($HOUR, extension => 'vma.gz')),
            file(name(2 * $HOUR, extension => 'vma')), file($day_old)
        ],
        7, $day_old,
        qr/has a map/,
        0
    ],
    [
        'the same as it is and unpacked',
        [file($day_old), file(name($DAY, extension => 'vma'))],
        7, $day_old, qr/1 day/, 0
    ],
    [
        'without a map, but it can be read anywhere', [file($day_old, has_map => 0)], 7, $day_old,
        qr/1 day old$/, 0
    ],

    # whose it is
    [
        "another guest's under this number",
        [file($hour_old, other_guest => 'they differ in x'), file($day_old)],
        7, undef, qr/'\Q$hour_old\E' is another guest's: they differ in x/, 0
    ],
    [
        'the older one with a map is that',
        [
            file($hour_old, has_map => 0, from_start => 1),
            file($day_old, other_guest => 'they differ in x')
        ],
        7, undef,
        qr/has no map/,
        0
    ],
);
for my $case (@cases) {
    my ($what, $files, $days, $expect, $reason, $odd) = @$case;
    my ($base, $why, $is_odd) = choose_base(
        $files, type => 'qemu', vmid => 100, format => 'vma', days => $days, now => $NOW,
        needs_map => 1, look => look_into($files),
    );
    is($base, $expect, $what);
    like($why, $reason, "... because $why");
    is(!!$is_odd, !!$odd, '... and whether it is odd');
}

my @one_way = (file(name($HOUR, extension => 'vma.gz')));
my ($serves) = choose_base(
    \@one_way, type => 'qemu', vmid => 100, format => 'vma', days => 7, now => $NOW,
    needs_map => 0, look => look_into(\@one_way),
);
is($serves, $one_way[0]->{name}, 'a job that makes no map makes no full for want of one');

# Differentials that have grown too large.
my ($new, $old) = map { differential($day_old, $_ * $HOUR) } 1, 2;
(my $unpacked_base = $day_old) =~ s/\.zst\z//;
for my $case (
    ['at the limit', [file($day_old), file($new, size => 500)], 50, 1],
    ['above it', [file($day_old), file($new, size => 501)], 50, 0],
    ['off', [file($day_old), file($new, size => 5000)], undef, 1],
    ['more than the full, and that may be', [file($day_old), file($new, size => 1500)], 150, 1],
    ['none yet', [file($day_old)], 50, 1],
    [
        'the last one counts', [file($day_old), file($old, size => 900), file($new, size => 9)],
        50, 1
    ],
    ['... in any order', [file($new, size => 900), file($day_old), file($old, size => 9)], 50, 0],
    [
        'one from the future does not count',
        [file($day_old), file(differential($day_old, -$HOUR), size => 900)], 50, 1
    ],
    ['nor does a link', [file($day_old), file($new, size => 900, odd => 'a symbolic link')], 50, 1],
    [
        "nor another full's",
        [file($day_old), file(differential($hour_old, 0.5 * $HOUR), size => 900)], 50, 1
    ],
    ['a full that was unpacked', [file($unpacked_base), file($new, size => 900)], 50, 0],
) {
    my ($what, $files, $largest, $serves) = @$case;
    my ($base, $why, $is_odd) = choose_base(
        $files, type => 'qemu', vmid => 100, format => 'vma', days => 7, now => $NOW,
        largest => $largest, look => sub { return { has_map => 1 } },
    );
    is(!!defined($base), !!$serves, "growing differentials: $what") or diag($why);
    ok(!$is_odd, '... which is nothing odd');
    like(
        $why, qr/of 2026_06_20-11_00_00, takes [59]0% of '.*', which is more than 50% /,
        '... and why'
    ) if !$serves;
}

# What is set (tests/data/settings.json).
my ($data) = dirname(__FILE__) =~ m!\A(.+)\z!;
open(my $fh, '<', "$data/../data/settings.json") or die "cannot read settings.json - $!\n";
my $vectors = JSON::PP->new->decode(do { local $/ = undef; <$fh> });
close($fh);
for my $vector (@{ $vectors->{settings} }) {
    utf8::encode($vector->{text});
    my ($settings, @complaints) =
        parse_settings($vector->{storage}, $vector->{cluster} // '', $vector->{text});
    is_deeply($settings, $vector->{settings}, "settings: $vector->{why}");
    is_deeply($complaints[-1], $vector->{complaints}, '... and what is not understood');
}

# A calendar: jobs at certain times of each day, a little early or late, by the clock on the wall,
# over four weeks with a change of the clock, from a noon on.
sub stamp { return strftime('%Y_%m_%d-%H_%M_%S', localtime($_[0])) }

sub calendar {
    my ($month, $jobs, $days, $jitter) = @_;

    my ($turn, @files, @log) = (0);
    for my $slot ($jobs / 2 .. 28 * $jobs - 1) {
        my $minute = 24 * 60 * ($slot % $jobs) / $jobs + 30;
        my $day = int($slot / $jobs);
        my $now =
            POSIX::mktime(0, $minute % 60, int($minute / 60), 14 + $day, $month, 126, 0, 0, -1);
        $now += (37 * $turn++) % (2 * $jitter + 1) - $jitter;
        my ($base) = choose_base(
            \@files, type => 'qemu', vmid => 100, format => 'vma', days => $days, now => $now,
            look => sub { return { has_map => 1 } },
        );
        my $full = 'vzdump-qemu-100-' . stamp($now) . '.vma.zst';
        if ($base) {
            $files[1] = file("$base--differential-" . stamp($now) . '.vcdiff.zst');
        } else {
            @files = file($full);
        }
        $log[$day] .= $base ? 'd' : 'F';
    }
    return map { tr/F// } @log;
}

# the clock goes forward and back, by half an hour on Lord Howe
for my $when (['UTC', 2], ['Europe/Vienna', 2], ['Europe/Vienna', 9], ['Australia/Lord_Howe', 8]) {
    my ($zone, $month) = @$when;
    local $ENV{TZ} = $zone;
    POSIX::tzset();
    for my $jobs (1, 2, 4, 24) {
        for my $days (1, 7) {
            my $fulls = join('', calendar($month, $jobs, $days, $jobs > 4 ? 120 : 900));
            my $expect = substr(('1' . '0' x ($days - 1)) x 28, 0, 28);
            is($fulls, $expect, "fulls on each day: $zone, $jobs jobs a day, N = $days");
        }
    }
}
delete $ENV{TZ};
POSIX::tzset();

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
(my $unpacked = $full) =~ s/\.zst\z//;
is_deeply(
    [dependants($unpacked, @others, @needing)], [sort @needing],
    '... and the same in another compression'
);
is_deeply([dependants("$unpacked.bz2", @needing)], [], '... but not what cannot serve');

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

my $both = group(
    'volid', $unpacked => 'remove', $full => 'remove', $day_old => 'remove',
    $chain[1] => 'keep'
);
is_deeply([keep_needed($both)], [$unpacked, $full], 'each form of a needed full is saved');
my $repacked = group('volid', $unpacked => undef, $chain[1] => undef);
is(scalar(@{ (split_restorable($repacked))[1] }), 0, 'a full in another compression is one');

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

mark_stranded($stranded);
is($stranded->[0]->{mark}, 'keep', '... which stays');
$stranded->[0]->{mark} = 'protected';
mark_stranded($stranded);
is($stranded->[0]->{mark}, 'protected', '... also where it is protected');

# Names of unfinished backups.
my $stamp = '2026_06_20-01_00_00';
my @unfinished = (
    ["$full--differential-$stamp.vcdiff.pve-1-0badcafe.dat", $full, 'pve-1-0badcafe'],
    ["$full--differential-$stamp.vcdiff.dat", $full, undef],
    ["$full--differential-$stamp.dat", $full, undef],
    ["vzdump-qemu-100-$stamp.vma.pve-1-0badcafe.dat", undef, 'pve-1-0badcafe'],
    ["vzdump-qemu-100-$stamp.vma.dat", undef, undef],
    ["vzdump-qemu-100-$stamp.dat", undef, undef],
);
for my $case (@unfinished) {
    my ($name, $base, $node) = @$case;
    my $expect = { name => $name, type => 'qemu', vmid => 100, base => $base, node => $node };
    is_deeply(parse_unfinished($name), $expect, $name);
}
is(parse_unfinished($_), undef, "not unfinished: $_") for $full, "$full.dat", 'x.dat', "$stamp.dat";

# Another guest under the same number.
my @uuid = map { "0000000$_-1111-2222-3333-444444444444" } 0 .. 9;
my @mac = map { "BC:24:11:00:00:0$_" } 0 .. 9;

sub vm {
    my (%with) = @_;

    my %lines = (
        smbios1 => "uuid=$uuid[0]", vmgenid => $uuid[1],
        meta => 'creation-qemu=9.0.2,ctime=1700000000', net0 => "virtio=$mac[0],bridge=vmbr0",
        scsi0 => 'local:100/vm-100-disk-0.raw,size=8G', name => 'web', %with,
    );
    return join('', map { "$_: $lines{$_}\n" } grep { defined($lines{$_}) } sort keys %lines);
}

sub ct {
    my (%with) = @_;

    my %lines = (
        hostname => 'web', rootfs => 'local:100/vm-100-disk-0.raw,size=8G',
        net0 => "name=eth0,bridge=vmbr0,hwaddr=$mac[0],ip=dhcp", %with,
    );
    return join('', map { "$_: $lines{$_}\n" } grep { defined($lines{$_}) } sort keys %lines);
}
my %new_vm = (
    smbios1 => "uuid=$uuid[2]", vmgenid => $uuid[3], meta => 'creation-qemu=9.0.2,ctime=1710000000',
    net0 => "virtio=$mac[1],bridge=vmbr0",
);
my @no_marks = (smbios1 => undef, vmgenid => undef, meta => undef);
my $TIME = 1_705_000_000;
my @guests = (
    ['the same', 'qemu', vm(), vm(), undef],
    ['another VM', 'qemu', vm(), vm(%new_vm), qr/created after/],
    ['... of the same name', 'qemu', vm(), vm(%new_vm, name => 'db'), qr/created after/],
    [
        '... that was restored from an old backup', 'qemu',
        vm(), vm(%new_vm, meta => 'creation-qemu=9.0.2,ctime=1690000000'),
        qr/differ in SMBIOS UUID, generation ID, network addresses, time of creation|differ in/
    ],
    [
        '... before there was a time of creation', 'qemu',
        vm(meta => undef), vm(%new_vm, meta => undef), qr/SMBIOS UUID/
    ],
    ['restored over itself', 'qemu', vm(), vm(vmgenid => $uuid[3]), undef],
    [
        '... with new addresses and UUID', 'qemu',
        vm(), vm(%new_vm, meta => 'creation-qemu=9.0.2,ctime=1700000000'), undef
    ],
    [
        'rolled back, with another network card', 'qemu',
        vm(), vm(vmgenid => $uuid[3], net0 => "virtio=$mac[1]"), undef
    ],
    ['another UUID', 'qemu', vm(), vm(smbios1 => "uuid=$uuid[2]"), undef],
    [
        'another UUID, nothing else known', 'qemu',
        vm(@no_marks, net0 => undef, smbios1 => "uuid=$uuid[0]"),
        vm(@no_marks, net0 => undef, smbios1 => "uuid=$uuid[1]"), undef
    ],
    [
        'another network card alone', 'qemu', vm(@no_marks),
        vm(@no_marks, net0 => "e1000=$mac[1]"), undef
    ],
    ['more disks', 'qemu', vm(), vm(scsi0 => undef, scsi1 => 'nas:100/vm-100-disk-3.raw'), undef],
    [
        'more network cards', 'qemu', vm(@no_marks, meta => undef),
        vm(
            @no_marks, smbios1 => "uuid=$uuid[2]", net1 => "virtio=$mac[0]",
            net0 => "virtio=$mac[1]"
        ),
        undef
    ],
    [
        'letters of another case', 'qemu', vm(), vm(%new_vm, smbios1 => 'uuid=' . uc($uuid[0])),
        undef
    ],
    [
        'a description or a snapshot says so', 'qemu', vm(),
        "#smbios1: uuid=$uuid[3]\n"
            . vm()
            . "[before]\nsmbios1: uuid=$uuid[2]\nvmgenid: $uuid[3]\n", undef
    ],
    ['nothing known', 'qemu', '', vm(), undef],
    ['nothing known now', 'qemu', vm(), '', undef],
    ['binary', 'qemu', vm(), "\xff\0\n" x 10, undef],
    ['the same container', 'lxc', ct(), ct(), undef],
    [
        'another container', 'lxc', ct(), ct(hostname => 'db', net0 => "name=eth0,hwaddr=$mac[1]"),
        qr/differ in host name, network addresses/
    ],
    ['a container renamed', 'lxc', ct(), ct(hostname => 'db'), undef],
    [
        'a container with another network card', 'lxc', ct(),
        ct(net0 => "name=eth0,hwaddr=$mac[1]"), undef
    ],
    [
        'a container on another storage', 'lxc', ct(), ct(rootfs => 'nas:100/vm-100-disk-1.raw'),
        undef
    ],
    [
        'containers without network', 'lxc', ct(net0 => undef),
        ct(net0 => undef, hostname => 'db'), undef
    ],
);
for my $case (@guests) {
    my ($what, $type, $then, $now, $expect) = @$case;
    my $reason = other_guest($type, $then, $now, $TIME);
    defined($expect) ? like($reason, $expect, $what) : is($reason, undef, $what);
}

# Half of a list, or of what is known of a file, is no list: a full would look as if nothing needed it.
{
    my $dir = tempdir(CLEANUP => 1);
    my $full = name($DAY);
    for my $file ($full, differential($full, 0)) {
        open(my $fh, '>', "$dir/$file") or die "$file: $!";
        close($fh);
    }
    my @needing = existing_dependants("$dir/$full");
    is(@needing, 1, 'a full that is needed');
    for my $after (0 .. 3) {
        $fails_after = $after;
        is(eval { existing_dependants("$dir/$full"); 1 }, undef, "fails after $after names");
        like($@, qr/cannot read folder '\Q$dir\E' - \w/, 'and says why');
    }
    my $unfinished = unfinished_name("$full--differential-2026_06_20-12_00_00.vcdiff");
    for my $after (0, 1, 50) {
        $fails_after = $after;
        my %states = states($unfinished);
        is($states{$unfinished}, 'unknown', "processes fail after $after names");
    }
    $fails_after = undef;

    # names can be read, and nothing else: root may do all, others are not asked to change this
    chmod(oct($> ? 400 : 744), $dir);
    my (@names, @odd);
    {
        local $> = $> || 65534;
        @names = eval { existing_dependants("$dir/$full") };
        @odd = eval {
            map { $_->{odd} // '' } backup_files($dir);
        };
    }
    chmod(oct(700), $dir);
    is("@names", "@needing", 'what cannot be looked at is there');
    like($_, qr/cannot be looked at/, 'and no base') for @odd;
    is(@odd, 2, 'both');
}

done_testing();
