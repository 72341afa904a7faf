#!/usr/bin/perl

# Backups and restores on the small host tree, with the real programs of this repository and
# through the commands that vzdump would run.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(basename dirname);
use POSIX ();
use Test::More;

use lib dirname(__FILE__) . '/lib';
use HostTree qw(program new_tree run host read_file write_file vma random);

my @missing = grep { !program($_) } qw(pve-diff-backup pve-xdelta3);
plan skip_all =>
    "not built: @missing (cargo build, or name their folder in PVE_DIFF_BACKUP_PROGRAMS)"
    if @missing;

my $here = abs_path(dirname(__FILE__));
my $patches = "$here/../../patches";
my $DAY = 86400;
my $T0 = 1_790_000_000;

sub patch {
    my ($root, $command) = @_;

    return run(program('pve-diff-backup'), '--root', $root, '--patches', $patches, $command);
}

sub dump_names {
    my ($root) = @_;

    opendir(my $dh, "$root/var/lib/vz/dump") or die;
    my @names = sort grep { !/\A\./ } readdir($dh);
    closedir($dh);
    return @names;
}

sub archives {
    my ($root) = @_;

    return grep { !/\.(?:log|notes|protected)\z/ } dump_names($root);
}

# The guests on a certain day: a container with a large and a changing file, a VM with one disk.
my $big = random(1_500_000, 'container');
my $disk = random(2_000_000, 'disk');

sub set_guests {
    my ($root, $day) = @_;

    write_file("$root/var/lib/lxc/100/rootfs/usr/big", $big);
    write_file("$root/var/lib/lxc/100/rootfs/var/today", random(20_000, "day $day"));
    write_file("$root/etc/pve/lxc/100.conf", 'memory: ' . (512 + $day) . "\nhostname: ct\n");
    my $now = $disk;
    substr($now, 65536 * ($_ + $day), 5000, random(5000, "$day/$_")) for 1 .. 3;
    my $stream = vma('memory: ' . (1024 + $day) . "\n", $now, "day $day");
    write_file("$root/guests/200.vma", $stream);
    write_file("$root/etc/pve/qemu-server/200.conf", "stream: $root/guests/200.vma\n");
    return $stream;
}

# All that tasks have said.
my $logs = '';

sub backup {
    my ($root, $id, $day, @options) = @_;

    my $result = host($root, 'bin/vzdump', $id, '--backup-time', $T0 + $day * $DAY, @options);
    $logs .= $result->{out};
    return $result;
}

# 1. An unpatched tree does not know the option.
my $root = new_tree();
set_guests($root, 0);
like(
    backup($root, 100, 0, '--fullbackup', 7)->{out}, qr/Unknown option: fullbackup/,
    'unpatched: no such option'
);
is_deeply([archives($root)], [], 'unpatched: nothing written');

my $patched = patch($root, 'apply');
ok($patched->{ok}, 'apply') or BAIL_OUT($patched->{out});

# 2. A full and three differentials of each guest, with each compression.
for my $compress (qw(zstd lzo gzip 0)) {
    my %saved;
    for my $day (0 .. 3) {
        my $stream = set_guests($root, $day);
        for my $id (100, 200) {
            my $result = backup($root, $id, $day, '--compress', $compress, '--fullbackup', 4);
            ok($result->{ok}, "$compress: backup of $id on day $day") or diag($result->{out});
            my $expect =
                $day
                ? qr/INFO: differential backup: '.*' is $day days? old/
                : qr/INFO: full backup: /;
            like($result->{out}, $expect, '... says what it is and why');
        }
        $saved{$day} = { today => random(20_000, "day $day"), vma => $stream };
    }
    my @archives = archives($root);
    is(scalar(@archives), 8, "$compress: eight archives") or diag(join("\n", @archives));
    for my $archive (@archives) {
        my ($id) = $archive =~ /-([12]00)-/;
        my ($time) = $archive =~ /([0-9_]{10}-[0-9_]{8})\.[a-z.]+\z/;
        my ($day) =
            grep { $time eq POSIX::strftime('%Y_%m_%d-%H_%M_%S', localtime($T0 + $_ * $DAY)) }
            0 .. 3;
        my @stat = (-s "$root/var/lib/vz/dump/$archive");
        cmp_ok($stat[0], '<', 150_000, "$archive is small") if $day;
        my $config = host($root, 'sbin/pvesm', 'extractconfig', "local:backup/$archive");
        my $memory = ($id == 100 ? 512 : 1024) + $day;
        # no \A: with it, Perl 5.14 finds $ at the end of the text alone
        like($config->{out}, qr/^memory: $memory$/m, '... its configuration');

        if ($id == 100) {
            my @limit = $compress eq 'lzo' ? ('--bwlimit', 200_000) : ();
            my $restore = host($root, 'sbin/pct', 'restore', 101, "local:backup/$archive", @limit);
            ok($restore->{ok}, '... restored') or diag($restore->{out});
            is(
                read_file("$root/var/lib/lxc/101/rootfs/var/today"), $saved{$day}->{today},
                '... the same'
            );
            is(read_file("$root/var/lib/lxc/101/rootfs/usr/big"), $big, '... all of it');
            run('rm', '-r', "$root/var/lib/lxc/101");
        } else {
            my @limit = $compress eq 'lzo' ? ('--bwlimit', 200_000) : ();
            my $restore = host(
                $root, 'sbin/qmrestore', "local:backup/$archive", "$root/guests/out",
                @limit
            );
            ok($restore->{ok}, '... restored') or diag($restore->{out});
            ok(read_file("$root/guests/out") eq $saved{$day}->{vma}, '... the same byte for byte');
        }
    }
    is(scalar(grep { /\.log\z/ } dump_names($root)), 8, "$compress: each has its log");
    run('rm', '-r', "$root/var/lib/vz/dump");
    mkdir "$root/var/lib/vz/dump";
}

# 3. Who keeps whom.
backup($root, 100, $_, qw(--compress zstd --fullbackup 3)) for 0 .. 4;
my @chain = archives($root);
is(scalar(grep { !/differential/ } @chain), 2, 'days 0 and 3 are full');
my $free = host($root, 'sbin/pvesm', 'free', "local:backup/$chain[0]");
ok(!$free->{ok}, 'a needed full is not deleted by hand');
like($free->{out}, qr/\Q$chain[1]\E.*\Q$chain[2]\E/, '... and who needs it is said');
write_file("$root/var/lib/vz/dump/$chain[1].protected", '');
write_file("$root/var/lib/vz/dump/$chain[2].notes", 'mine');
my $prune = host($root, 'sbin/pvesm', 'prune-backups', 'local', '--keep-last', 1);
ok($prune->{ok}, 'prune') or diag($prune->{out});
$logs .= $prune->{out};
is_deeply(
    [archives($root)], [@chain[0, 1, 3, 4]],
    'the protected and the newest one, and what they need'
);
ok(!-e "$root/var/lib/vz/dump/$chain[2].notes", 'notes go with their backup');
unlink "$root/var/lib/vz/dump/$chain[1].protected";
my $result = backup($root, 100, 5, qw(--compress zstd --fullbackup 3 --prune-backups keep-last=2));
ok($result->{ok}, 'backup with prune') or diag($result->{out});
is(scalar(archives($root)), 3, 'an old chain goes as a whole');
is(scalar(grep { /\.log\z/ } dump_names($root)), 3, '... with its logs');
$result = host(
    $root, 'bin/vzdump', 100, '--dumpdir', "$root/var/lib/vz/dump", '--backup-time',
    $T0 + 9 * $DAY,
    qw(--compress zstd --prune-backups keep-last=1)
);
ok($result->{ok}, 'the other way to prune') or diag($result->{out});
is(scalar(archives($root)), 1, '... removes a whole chain too');
unlink glob("$root/var/lib/vz/dump/*");

# 4. A restore without its full is refused before anything is written.
backup($root, $_, 0, qw(--compress zstd --fullbackup 7)) for 100, 200;
backup($root, $_, 1, qw(--compress zstd --fullbackup 7)) for 100, 200;
my ($full_ct, $diff_ct, $full_vm, $diff_vm) = archives($root);
rename("$root/var/lib/vz/dump/$_", "$root/guests/$_") for $full_ct, $full_vm;
$result = host($root, 'sbin/pct', 'restore', 102, "local:backup/$diff_ct");
ok(!$result->{ok} && !-e "$root/var/lib/lxc/102", 'container: refused, nothing written');
like($result->{out}, qr/the full backup '\Q$full_ct\E' is needed/, '... and says what is missing');
write_file("$root/guests/out", 'precious');
$result = host($root, 'sbin/qmrestore', "local:backup/$diff_vm", "$root/guests/out");
ok(!$result->{ok} && read_file("$root/guests/out") eq 'precious', 'VM: refused, nothing written');
like($result->{out}, qr/the full backup '\Q$full_vm\E' is needed/, '... and says what is missing');
$result = backup($root, 100, 2, qw(--compress zstd --fullbackup 7));
like(
    $result->{out},
    qr/WARN: full backup: the full backup of 1 differential.* missing: put '\Q$full_ct\E' back/,
    'a backup without base is full, and says what is missing'
);
unlink glob("$root/var/lib/vz/dump/*");

# 4a. A full that was compressed anew, beside the old one first.
my $dump = "$root/var/lib/vz/dump";
my %stream = map { $_ => set_guests($root, $_) } 0, 1;
set_guests($root, 0);
backup($root, $_, 0, qw(--compress zstd --fullbackup 7)) for 100, 200;
set_guests($root, 1);
backup($root, $_, 1, qw(--compress zstd --fullbackup 7)) for 100, 200;
($full_ct, $diff_ct, $full_vm, $diff_vm) = archives($root);

for my $guest ([100, $full_ct, $diff_ct], [200, $full_vm, $diff_vm]) {
    my ($id, $full, $differential) = @$guest;
    (my $content = $full) =~ s/\.zst\z//;
    run('zstd', '-qdf', "$dump/$full", '-o', "$root/guests/content");
    unlink("$root/guests/$full"); # of what was tried before
    my %pack = (
        '' => 'cat', '.lzo' => 'lzop -c', '.gz' => 'gzip -c', '.xz' => 'xz -0c',
        '.zst' => 'zstd -qc',
    );
    for my $form ($id == 200 ? ('', '.lzo', '.gz', '.xz', '.zst') : ('', '.gz')) {
        my $now = "$content$form";
        rename("$dump/$full", "$root/guests/$full") if $form eq '.zst';
        run('sh', '-c', "$pack{$form} <'$root/guests/content' >'$dump/$now'");
        my $name = "$id as '$form'";

        # one of the two may go if the other is known to do; one-way files cannot tell
        if ($form eq '' || $form eq '.lzo') {
            my $freed = host($root, 'sbin/pvesm', 'free', "local:backup/$full");
            ok($freed->{ok} && !-e "$dump/$full", "$name: the old form can go")
                or diag($freed->{out});
        } elsif ($form ne '.zst') {
            my $freed = host($root, 'sbin/pvesm', 'free', "local:backup/$full");
            ok(!$freed->{ok} && -e "$dump/$full", "$name: the old form is kept in doubt");
            rename("$dump/$full", "$root/guests/$full");
        }
        if ($form ne '.xz') { # Proxmox VE does not know it
            my $freed = host($root, 'sbin/pvesm', 'free', "local:backup/$now");
            ok(!$freed->{ok} && -e "$dump/$now", "$name: what is needed is not deleted by hand");
            like($freed->{out}, qr/\Q$differential\E/, '... and who needs it is said');
        }
        my $prune = host($root, 'sbin/pvesm', 'prune-backups', 'local', '--keep-last', 1);
        ok(-e "$dump/$now" && -e "$dump/$differential", '... and neither goes by a prune')
            or diag($prune->{out});
        my $config = host($root, 'sbin/pvesm', 'extractconfig', "local:backup/$differential");
        my $memory = ($id == 100 ? 512 : 1024) + 1;
        like($config->{out}, qr/^memory: $memory$/m, '... its configuration');
        if ($id == 200) {
            $result =
                host($root, 'sbin/qmrestore', "local:backup/$differential", "$root/guests/out");
            ok($result->{ok} && read_file("$root/guests/out") eq $stream{1}, '... restored')
                or diag($result->{out});
        } else {
            $result = host(
                $root, 'sbin/pct', 'restore', 105, "local:backup/$differential", '--bwlimit',
                200_000
            );
            ok($result->{ok}, '... restored with a limit') or diag($result->{out});
            is(
                read_file("$root/var/lib/lxc/105/rootfs/var/today"), random(20_000, 'day 1'),
                '... the same'
            );
            run('rm', '-r', "$root/var/lib/lxc/105");
        }
        my $verified = run(program('pve-diff-backup'), 'verify', "$dump/$differential");
        ok($verified->{ok}, '... verified') or diag($verified->{out});
        if ($form ne '.xz') {
            $result = backup($root, $id, 2, qw(--compress gzip --fullbackup 7));
            my $made = (grep { /vcdiff\.gz\z/ } archives($root))[0];
            like($made // $result->{out}, qr/\A\Q$now\E--/, '... and base of new differentials');
            unlink("$dump/$made") if $made;
        }
        unlink("$dump/$now");
        rename("$root/guests/$full", "$dump/$full")
            or run('sh', '-c', "zstd -qc <'$root/guests/content' >'$dump/$full'");
    }
}

(my $tgz = $full_ct) =~ s/\.tar\.zst\z/.tgz/;
run('sh', '-c', "zstd -qdc <'$dump/$full_ct' | gzip -c >'$dump/$tgz'");
unlink("$dump/$full_ct");
$result = host($root, 'sbin/pct', 'restore', 105, "local:backup/$diff_ct");
ok($result->{ok}, 'tgz is tar.gz') or diag($result->{out});
run('rm', '-r', "$root/var/lib/lxc/105");

# another content under one of these names is not taken
(my $plain = $full_vm) =~ s/\.zst\z//;
write_file("$dump/$plain", $stream{1});
my $freed = host($root, 'sbin/pvesm', 'free', "local:backup/$full_vm");
ok(!$freed->{ok} && -e "$dump/$full_vm", 'a full beside something else is not deleted');
unlink("$dump/$full_vm");
$result = host($root, 'sbin/qmrestore', "local:backup/$diff_vm", "$root/guests/out");
ok(!$result->{ok}, '... and nothing is restored from that');
like(
    $result->{out}, qr/is not the one that this differential was made against/,
    '... with the reason'
);
unlink glob("$dump/*");

# 4b. A full that vzdump itself made has no map; another guest's is none of this one's.
set_guests($root, 0);
backup($root, 100, 0, qw(--compress zstd));
my ($stock) = archives($root);
$result = backup($root, 100, 1, qw(--compress zstd --fullbackup 7));
like($result->{out}, qr/INFO: full backup: '\Q$stock\E' has no map/, 'no map: a full');
unlink("$dump/$_") for grep { $_ ne $stock } archives($root);
write_file("$root/etc/pve-diff-backup.conf", "# ours\n\nbase-without-map: use\nbase-without: x\n");
$result = backup($root, 100, 1, qw(--compress zstd --fullbackup 7));
like($result->{out}, qr/INFO: differential backup: '\Q$stock\E'/, '... unless it is set to serve');
like(
    $result->{out}, qr/WARN: '\S*pve-diff-backup\.conf', line 4: not understood/,
    '... and what else is set there is not understood'
);
unlink("$root/etc/pve-diff-backup.conf");
$result = backup($root, 100, 2, qw(--compress gzip --fullbackup 7));
like($result->{out}, qr/INFO: differential backup/, '... or the job would make no map either');
unlink glob("$dump/*");

# 4c. What has changed since the full is more than half of it.
sub grown {
    my ($length, $day, @options) = @_;

    write_file(
        "$root/var/lib/lxc/100/rootfs/usr/big",
        random($length, 'grown') . substr($big, $length));
    return backup($root, 100, $day, qw(--compress zstd --fullbackup 30 --storage local), @options)
        ->{out};
}
set_guests($root, 0);
backup($root, 100, 0, qw(--compress zstd --fullbackup 30));
my ($first) = archives($root);
like(grown(600_000, 1), qr/INFO: differential backup: /, 'a change of less than half');
like(
    grown(1_000_000, 2), qr/INFO: differential backup: /,
    '... which another differential may follow'
);
my $log = grown(1_000_000, 3);
like(
    $log, qr/INFO: full backup: the last differential, .*, takes 6[0-9]% of '\Q$first\E'/,
    'after more than half a full is made'
);
unlike($log, qr/WARN/, '... without a warning');
unlink("$dump/$_") for grep { !/\A\Q$first\E/ } archives($root);
my $config = "$root/etc/pve-diff-backup.conf";
write_file($config, "largest-differential: 40%\nstorage: local\n  largest-differential: off\n");
like(
    grown(1_000_000, 4), qr/INFO: differential backup: /,
    'unless it is set otherwise for the storage'
);
write_file($config, "storage: other\n  largest-differential: off\nlargest-differential: 7\n");
$log = grown(1_000_000, 5);
like($log, qr/INFO: full backup: the last differential/, '... not for another one');
like(
    $log, qr/WARN: '\S*pve-diff-backup\.conf', line 3: .*\(largest-differential is a share/,
    '... and a bad line is named'
);
unlink("$dump/$_") for grep { !/\A\Q$first\E/ } archives($root);
write_file($config, "largest-differential: 90%\n");
unlink("$dump/$_") for grep { $_ ne $first } archives($root);
write_file("$root/var/lib/lxc/100/rootfs/var/more", random(3_000_000, 'more'));
like(
    grown(1_000_000, 6),
    qr/WARN: this differential takes more than its full backup \([0-9]+ and [0-9]+ bytes\): the next backup will be a/,
    'a differential that is larger than its full'
);
run('rm', '-r', "$root/var/lib/lxc/100/rootfs/var/more", $config);
unlink glob("$dump/*");

sub set_identities {
    my ($n) = @_;

    my $marks = "smbios1: uuid=0000000$n-1111-2222-3333-444444444444\n"
        . "vmgenid: 1000000$n-1111-2222-3333-444444444444\nnet0: virtio=BC:24:11:00:00:0$n\n";
    write_file("$root/guests/200.vma", vma($marks, $disk, 'x'));
    write_file("$root/etc/pve/qemu-server/200.conf", "stream: $root/guests/200.vma\n$marks");
    write_file(
        "$root/etc/pve/lxc/100.conf",
        "hostname: ct$n\nnet0: name=eth0,hwaddr=BC:24:11:00:00:0$n\n"
    );
    return;
}
for my $compress (qw(zstd gzip 0)) {
    my $day = 0;
    for my $n (1, 1, 2, 2) {
        set_identities($n);
        for my $id (100, 200) {
            $result = backup($root, $id, $day, '--compress', $compress, qw(--fullbackup 7));
            my $expect =
                  $day == 2 ? qr/INFO: full backup: .* is another guest's: they differ in/
                : $day ? qr/INFO: differential/
                : qr/INFO: full backup: there is no full/;
            like($result->{out}, $expect, "$compress: $id as guest $n, day $day");
        }
        $day++;
    }
    unlink glob("$dump/*");
}

# 5. What is not as it should be ends in a full backup and a warning.
backup($root, 200, 0, qw(--compress zstd --fullbackup 7));
my ($base) = archives($root);
my $whole = read_file("$root/var/lib/vz/dump/$base");
my @odd = ([
        'an empty base', sub { write_file("$root/var/lib/vz/dump/$base", '') },
        qr/WARN: full backup: .* is empty/
    ],
    [
        'a base that is something else',
        sub { write_file("$root/var/lib/vz/dump/$base", 'x' x 5000) },
        qr/WARN: full backup: .* cannot serve/
    ],
    [
        'a base in another compression',
        sub {
            run(
                'sh', '-c', 'zstd -dc "$0" | gzip -c >"$1" && mv "$1" "$0"',
                "$root/var/lib/vz/dump/$base", "$root/guests/gz"
            );
        },
        qr/WARN: full backup: .* not what its name says/
    ],
    [
        'no program', sub { rename("$root/usr/bin/pve-xdelta3", "$root/guests/x") },
        qr/WARN: .* is missing/
    ],
    [
        'a program that fails',
        sub {
            write_file("$root/usr/bin/pve-xdelta3", "#!/bin/sh\nexit 3\n");
            chmod 0755, "$root/usr/bin/pve-xdelta3";
        },
        qr/WARN: no differential backup is possible/
    ],
);
for my $case (@odd) {
    my ($what, $break, $expect) = @$case;
    $break->();
    $result = backup($root, 200, 1, qw(--compress zstd --fullbackup 7));
    ok($result->{ok}, "$what: the backup is made") or diag($result->{out});
    like($result->{out}, $expect, '... with a warning');
    my ($made) = grep { $_ ne $base } archives($root);
    is(scalar(archives($root)), 2, '... of its own');
    ok(run('zstd', '-qt', "$root/var/lib/vz/dump/$made")->{ok}, '... that everybody can read');
    unlink("$root/var/lib/vz/dump/$made");
    write_file("$root/var/lib/vz/dump/$base", $whole);
    rename("$root/guests/x", "$root/usr/bin/pve-xdelta3")
        if -e "$root/guests/x" && $what ne 'no program';
}
rename("$root/guests/x", "$root/usr/bin/pve-xdelta3") if -e "$root/guests/x";
unlink glob("$root/var/lib/vz/dump/*");
backup($root, 200, 0, qw(--compress lzo --fullbackup 7));
($base) = archives($root);
$whole = read_file("$root/var/lib/vz/dump/$base");
write_file("$root/var/lib/vz/dump/$base", substr($whole, 0, length($whole) / 2));
$result = backup($root, 200, 1, qw(--compress lzo --fullbackup 7));
like(
    $result->{out}, qr/WARN: full backup: .* cannot serve .*truncated/,
    'half a base ends in a full backup'
);
unlink glob("$root/var/lib/vz/dump/*");

# 6. A single file that an upgrade brought back.
for my $file ('Storage.pm', 'LXC/Create.pm') {
    my $path = "$root/usr/share/perl5/PVE/$file";
    my $ours = read_file($path);
    write_file($path, join('', grep { !/pve-diff-backup:/ } split(/^/, $ours)));
    set_guests($root, 1);
    backup($root, 100, 0, qw(--compress zstd));
    $result = backup($root, 100, 1, qw(--compress zstd --fullbackup 7));
    like(
        $result->{out},
        qr/WARN: no differential backup is possible: PVE\/\Q$file\E is not patched any more/,
        "$file: warned"
    );
    is(
        scalar(grep { /differential/ } archives($root)), 0,
        '... and nothing that could not be restored'
    );
    write_file($path, $ours);
}
unlink glob("$root/var/lib/vz/dump/*");

# 7. Two backups within one second.
my $now = $T0 + 20 * $DAY;
for (1 .. 2) {
    $result =
        host($root, 'bin/vzdump', 100, '--backup-time', $now, qw(--compress zstd --fullbackup 7));
    ok($result->{ok}, 'backup in the same second') or diag($result->{out});
}
is(scalar(archives($root)), 2, '... does not replace the first');
unlink glob("$root/var/lib/vz/dump/*");

# 8. Folders with odd names, and streams to standard output.
chdir($root) or die;
my $odd_dir = "$root/it's \$(touch pwned) `touch pwned` ; \"x\" & 100%\xc3\xa9";
mkdir $odd_dir;
for my $day (0, 1) {
    set_guests($root, $day);
    for my $id (100, 200) {
        $result = host(
            $root, 'bin/vzdump', $id, '--dumpdir', $odd_dir, '--remove', 0,
            '--backup-time', $T0 + $day * $DAY, qw(--compress zstd --fullbackup 7)
        );
        ok($result->{ok}, "odd folder: backup of $id on day $day") or diag($result->{out});
    }
}
opendir(my $dh, $odd_dir) or die;
my ($odd_ct, $odd_vm) = sort grep { /vcdiff\.zst\z/ } readdir($dh);
closedir($dh);
$result = host($root, 'sbin/pct', 'restore', 103, "$odd_dir/$odd_ct");
ok($result->{ok}, 'odd folder: container restored') or diag($result->{out});
is(read_file("$root/var/lib/lxc/103/rootfs/var/today"), random(20_000, 'day 1'), '... the same');
$result = host($root, 'sbin/qmrestore', "$odd_dir/$odd_vm", "$root/guests/out");
ok($result->{ok}, 'odd folder: VM restored') or diag($result->{out});
ok(read_file("$root/guests/out") eq read_file("$root/guests/200.vma"), '... the same');
ok(!-e 'pwned', 'nothing was run by a shell');
chdir('/');

backup($root, 200, 0, qw(--compress zstd --fullbackup 7));
my $stdout = qx{'$^X' -T '$root/usr/bin/vzdump' 200 --stdout 1 --fullbackup 7 2>/dev/null};
ok($stdout eq read_file("$root/guests/200.vma"), 'standard output carries the plain stream');
unlink glob("$root/var/lib/vz/dump/*");

# 9. Archives of the original scripts: xdelta3 against the decompressed full, which its header names, then lzop.
SKIP: {
    my @tools = grep { !run('sh', '-c', "command -v $_")->{ok} } qw(xdelta3 lzop);
    skip "not installed: @tools", 4 if @tools;

    for my $guest (['qemu', 200, 'vma'], ['lxc', 100, 'tar']) {
        my ($type, $id, $format) = @$guest;
        my $name = "vzdump-$type-$id-2013_12_01-00_00_01.$format.lzo";
        my $differential = "$name--differential-2013_12_02-00_00_01.vcdiff.lzo";
        for my $day (0, 1) {
            set_guests($root, $day);
            my $plain = qx{'$^X' -T '$root/usr/bin/vzdump' $id --stdout 1 2>/dev/null};
            write_file("$root/guests/day$day", $plain);
        }
        run(
            'sh', '-c',
            'cd "$0"; lzop -c day0 >"$1/$2"; xdelta3 -e -c "-A=-//$2/L" -s day0 <day1 | lzop -c >"$1/$3"',
            "$root/guests", $dump, $name, $differential
        );
        my $list = host($root, 'sbin/pvesm', 'list', 'local', '--vmid', $id);
        like(
            $list->{out}, qr/\Q$differential\E vcdiff\.lzo/,
            "original $type differential: listed"
        );
        if ($type eq 'qemu') {
            host($root, 'sbin/qmrestore', "local:backup/$differential", "$root/guests/out");
            ok(read_file("$root/guests/out") eq read_file("$root/guests/day1"), '... and restored');
        } else {
            $result = host($root, 'sbin/pct', 'restore', 104, "local:backup/$differential");
            ok($result->{ok}, '... and restored') or diag($result->{out});
        }
    }
}

# 10. What docs/task-log.md promises was said.
my %placeholders = (
    FULL => "[^']+", FILE => "[^']+", TEXT => '.+', N => '[0-9]+', DATE => '[0-9_-]{19}',
    AGE => '(?:[0-9]+ [a-z]+|less than a minute)', SIZE => '[0-9.]+ (?:[KMGT]i)?B',
    PERCENT => '[0-9.]+%', RATIO => '[0-9.]+',
);
# (What is read of running VMs takes a QEMU to ask: tests/host/changed.sh.)
my $docs = read_file("$here/../../docs/task-log.md");
$docs =~ s/^## Whether only what changed is read\n.*?(?=^## )//ms or die 'a section is missing';
my @phrases = $docs =~ /^((?:INFO|WARN): .*)$/mg;
cmp_ok(scalar(@phrases), '>', 15, 'phrases are promised');
for my $phrase (@phrases) {
    my $pattern = quotemeta($phrase);
    $pattern =~ s/\b([A-Z]+)\b/$placeholders{$1} \/\/ $1/eg;
    like($logs, qr/^$pattern/m, "said: $phrase");
}

# 11. And all of it goes away again.
ok(patch($root, 'revert')->{ok}, 'revert');
is(
    run('diff', '-r', "$here/../tree/usr", "$root/usr")->{out},
    "Only in $root/usr/bin: pve-xdelta3\n", 'the tree is what it was'
);

# The dpkg database of the tree fits its files.
my $fresh = new_tree();
unlink "$fresh/usr/bin/pve-xdelta3";
ok(run("$here/../make-tree-dpkg", $fresh)->{ok}, 'make-tree-dpkg');
my $differ = run('diff', '-r', "$here/../tree/var", "$fresh/var/lib/..")->{out};
$differ =~ s/^Only in .*(?:vz|lxc)\n//mg;
is($differ, '', 'tests/tree has the dpkg database that tests/make-tree-dpkg makes');

done_testing();
