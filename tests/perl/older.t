#!/usr/bin/perl

# The same as tree.t on small trees in the shapes of Proxmox VE 5 and 3: hunks that newer releases do
# not need, and our versions of the subs they ask about.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use Test::More;

use lib dirname(__FILE__) . '/lib';
use HostTree qw(program old_tree run read_file write_file vma random);

my @missing = grep { !program($_) } qw(pve-diff-backup pve-xdelta3);
plan skip_all =>
    "not built: @missing (cargo build, or name their folder in PVE_DIFF_BACKUP_PROGRAMS)"
    if @missing;

my $here = abs_path(dirname(__FILE__));
my $DAY = 86400;
my $T0 = 1_490_000_000;
my $big = random(1_500_000, 'container');
my $disk = random(2_000_000, 'disk');

sub patch {
    my ($root, @command) = @_;

    return run(
        program('pve-diff-backup'),
        '--root', $root, '--patches', "$here/../../patches", @command
    );
}

# Runs Perl code on the tree's modules, as root's daemons do.
sub perl {
    my ($root, $code, @arguments) = @_;

    my $use = "use lib '$root/usr/share/perl5'; use PVE::Storage; use PVE::VZDump;"
        . ' use PVE::LXC::Create; use PVE::QemuServer; my $cfg = PVE::Storage::config(); ';
    return run($^X, '-e', $use . $code, @arguments);
}

sub archives {
    my ($root) = @_;

    opendir(my $dh, "$root/var/lib/vz/dump") or die;
    my @names = sort grep { /\Avzdump/ && !/\.log\z/ } readdir($dh);
    closedir($dh);
    return @names;
}

sub logs {
    my ($root) = @_;

    return scalar(() = glob("$root/var/lib/vz/dump/*.log"));
}

sub set_guests {
    my ($root, $day) = @_;

    write_file("$root/var/lib/lxc/100/rootfs/usr/big", $big);
    write_file("$root/var/lib/lxc/100/rootfs/var/today", random(20_000, "day $day"));
    write_file("$root/etc/pve/lxc/100.conf", "memory: $day\n");
    my $now = $disk;
    substr($now, 65536 * ($_ + $day), 5000, random(5000, "$day/$_")) for 1 .. 3;
    my $stream = vma("memory: $day\n", $now, "day $day");
    write_file("$root/guests/200.vma", $stream);
    write_file("$root/etc/pve/qemu-server/200.conf", "stream: $root/guests/200.vma\n");
    return $stream;
}

my $BACKUP =
      'my ($vmid, $time, %opts) = @ARGV;'
    . ' my $plugin = $vmid == 100 ? "PVE::VZDump::LXC" : "PVE::VZDump::QemuServer";'
    . ' PVE::VZDump->new({ %opts, backup_time => $time })'
    . '->exec_backup_task({ vmid => $vmid, plugin => $plugin })';

sub backup {
    my ($root, $id, $day, @options) = @_;

    return perl($root, $BACKUP, $id, $T0 + $day * $DAY, @options);
}

# 1. Proxmox VE 5: every compression it knows.
my %five = (
    'pve-manager' => '5.4-10',
    'libpve-storage-perl' => '5.0-44',
    'libpve-common-perl' => '5.0-55',
    'libpve-guest-common-perl' => '2.0-20',
    'pve-container' => '2.0-42',
    'qemu-server' => '5.0-56',
);
my $root = old_tree(\%five);
my $applied = patch($root, 'apply');
ok($applied->{ok}, 'apply') or BAIL_OUT($applied->{out});
like(
    $applied->{out},
    qr/unverified: libpve-storage-perl 5\.0-44: .* never tried with exactly these/,
    '... made-up files are known not to be those that were tried'
);
like(
    perl($root, 'print PVE::VZDump::option_exists("fullbackup") ? "known" : "unknown"')->{out},
    qr/\Aknown/, 'the option is known'
);

for my $compress (qw(lzo gzip 0)) {
    my @streams;
    for my $day (0, 1) {
        push @streams, set_guests($root, $day);
        for my $id (100, 200) {
            my $made =
                backup($root, $id, $day, compress => $compress, fullbackup => 7, maxfiles => 9);
            ok($made->{ok}, "$compress: backup of $id on day $day") or diag($made->{out});
            like($made->{out}, $day ? qr/INFO: differential/ : qr/INFO: full/, '... as planned');
        }
    }
    my ($full_ct, $diff_ct, $full_vm, $diff_vm) = my @all = archives($root);
    is(scalar(@all), 4, "$compress: four archives");

    my $list = perl(
        $root,
        'print map { "$_->{volid} $_->{format} $_->{size}\n" }'
            . ' @{ PVE::Storage::template_list($cfg, undef, "backup")->{local} }'
    )->{out};
    like($list, qr/\Q$diff_ct\E vcdiff\S* [1-9]/, "$compress: listed");
    is(scalar(() = $list =~ /^local:backup/mg), 4, '... each once');
    my $volid = perl(
        $root, 'print join(" ", PVE::Storage::path_to_volume_id($cfg, $ARGV[0]))',
        "$root/var/lib/vz/dump/$diff_vm"
    )->{out};
    is($volid, "iso local:backup/$diff_vm", '... found by its path');

    my $show = 'print scalar(PVE::Storage::extract_vzdump_config($cfg, $ARGV[0]))';
    for my $name ($diff_ct, $diff_vm) {
        my $config = perl($root, $show, "local:backup/$name")->{out};
        like($config, qr/\Amemory: 1$/m, "... $name: its configuration");
    }

    my $restored = perl(
        $root,
        'mkdir $ARGV[1]; PVE::LXC::Create::restore_archive('
            . 'PVE::Storage::abs_filesystem_path($cfg, $ARGV[0]), $ARGV[1], {}, 0)',
        "local:backup/$diff_ct", "$root/guests/ct"
    );
    ok($restored->{ok}, '... container restored') or diag($restored->{out});
    is(read_file("$root/guests/ct/var/today"), random(20_000, 'day 1'), '... the same');
    run('rm', '-r', "$root/guests/ct");
    for my $limit (0, 200_000) {
        $restored = perl(
            $root,
            'PVE::QemuServer::restore_archive(PVE::Storage::abs_filesystem_path($cfg, $ARGV[0]),'
                . ' 201, "root\@pam", { bwlimit => $ARGV[1] })',
            "local:backup/$diff_vm", $limit
        );
        ok($restored->{ok}, "... VM restored, limit $limit") or diag($restored->{out});
        ok(read_file("$root/guests/201.restored") eq $streams[1], '... the same byte for byte');
    }
    unlink glob("$root/var/lib/vz/dump/*");
}

# 2. Without its full nothing is touched; deleting takes the right log.
set_guests($root, $_) && backup($root, 200, $_, compress => 'lzo', fullbackup => 7, maxfiles => 9)
    for 0, 1;
my ($full, $differential) = archives($root);
my $delete =
    'require PVE::API2::Storage::Content; PVE::API2::Storage::Content::delete_volume($cfg, $ARGV[0])';
my $deleted = perl($root, $delete, "local:backup/$full");
ok(!$deleted->{ok}, 'a needed full is not deleted by hand');
like($deleted->{out}, qr/\Q$differential\E/, '... and who needs it is said');
rename("$root/var/lib/vz/dump/$full", "$root/guests/full");
my $refused =
    perl($root, 'PVE::Storage::abs_filesystem_path($cfg, $ARGV[0])', "local:backup/$differential");
ok(!$refused->{ok}, 'a restore without its full is refused at once');
like($refused->{out}, qr/the full backup '\Q$full\E' is needed/, '... and says what is missing');
write_file("$root/var/lib/vz/dump/$full", substr(read_file("$root/guests/full"), 0, 100_000));
$refused =
    perl($root, 'PVE::Storage::abs_filesystem_path($cfg, $ARGV[0])', "local:backup/$differential");
ok(!$refused->{ok}, '... so is one with half a full');
like(
    $refused->{out}, qr/decoding .* failed - .* full backup \S+ cannot be read: lzop .*truncated/,
    '... and says that it is'
);
rename("$root/guests/full", "$root/var/lib/vz/dump/$full");
ok(perl($root, $delete, "local:backup/$differential")->{ok}, 'a differential is deleted');
is(logs($root), 1, '... with its own log');
(my $log = $full) =~ s/\.vma.*/.log/;
ok(-e "$root/var/lib/vz/dump/$log", '... not the log of its full');
ok(perl($root, $delete, "local:backup/$full")->{ok}, 'then the full');
is(logs($root), 0, '... with its log');

# 3. maxfiles: the newest ones, and the fulls that these need.
backup($root, 100, $_, compress => 'lzo', fullbackup => 3, maxfiles => 2) for 0 .. 2;
my @kept = archives($root);
is(scalar(@kept), 3, 'two kept, and their full') or diag(join("\n", @kept));
is(logs($root), 3, '... with their logs');
my $limited = backup($root, 100, 2.5, compress => 'lzo', maxfiles => 2, remove => 0);
like($limited->{out}, qr/only 2 backup/, 'where nothing is removed differentials count');
backup($root, 100, $_, compress => 'lzo', fullbackup => 3, maxfiles => 2) for 3, 4;
@kept = archives($root);
is(scalar(@kept), 2, 'the old chain went as a whole') or diag(join("\n", @kept));
is(scalar(grep { /differential/ } @kept), 1, '... the new one stays');
is(logs($root), 2, '... with its logs');
backup($root, 100, $_, compress => 'lzo', maxfiles => 1) for 5;
is(scalar(archives($root)), 1, 'a full backup ends a chain');
unlink glob("$root/var/lib/vz/dump/*");

# 4. A single file that an upgrade brought back.
for my $file ('Storage/Plugin.pm', 'QemuServer.pm') {
    my $path = "$root/usr/share/perl5/PVE/$file";
    my $ours = read_file($path);
    write_file($path, join('', grep { !/pve-diff-backup:/ } split(/^/, $ours)));
    backup($root, 200, 0, compress => 'lzo', maxfiles => 9);
    my $made = backup($root, 200, 1, compress => 'lzo', fullbackup => 7, maxfiles => 9);
    like($made->{out}, qr/WARN: no diff.*PVE\/\Q$file\E is not patched any more/, "$file: warned");
    is(scalar(grep { /differential/ } archives($root)), 0, '... and a full backup made');
    write_file($path, $ours);
    unlink glob("$root/var/lib/vz/dump/*");
}

ok(patch($root, 'revert')->{ok}, 'revert');
my $differ = run('diff', '-r', "$here/../tree-5/usr/share/perl5", "$root/usr/share/perl5")->{out};
$differ =~ s/^Only in \Q$root\E.*\n//mg;
is($differ, '', 'the tree is what it was');

# 5. Proxmox VE 3 and early 4: OpenVZ, vzdump.conf line by line, the page as text in a module, a
# compressor of one word, a configuration that tar is asked for.
my %files = (
    'API2/OpenVZ.pm' => <<'END',
package PVE::API2::OpenVZ;
use PVE::Tools qw(run_command);
my $restore_openvz = sub {
    my ($private, $archive, $vmid, $force) = @_;

    unlink "$private/old";
    my $cmd = ['tar', 'xpf', $archive, '--totals', '--sparse', '-C', $private];

    if ($archive eq '-') {
        run_command($cmd, input => "<&STDIN");
    } else {
        run_command($cmd);
    }
};
sub create_vm { return $restore_openvz->(@_) }
1;
END
    'ExtJSIndex.pm' => <<'END',
package PVE::ExtJSIndex;
sub get_index {
    my $page = <<_EOD;
    <script type="text/javascript" src="/pve2/ext4/pvemanagerlib.js"></script>
    <script type="text/javascript" src="/pve2/ext4/locale.js"></script>
_EOD
    return $page;
}
1;
END
    'VZDump/LXC.pm' => <<'END',
package PVE::VZDump::LXC;
sub type { return 'lxc' }
sub command {
    my ($comp) = @_;

    my $cmd = [['tar']];
    push @$cmd, [ $comp ] if $comp;
    return join('|', map { join(',', @$_) } @$cmd);
}
1;
END
);
my $CONF = <<'END';

sub read_vzdump_defaults {
    my $res = {};
    foreach my $line (@_) {
        next if $line =~ m/^\#/;
        if ($line =~ m/maxfiles:\s*(\d+)\s*$/) {
            $res->{maxfiles} = int($1);
        } elsif ($line =~ m/storage:\s*(\S+)\s*$/) {
            $res->{storage} = $1;
        } else {
            warn "unable to parse '$line'";
        }
    }
    return $res;
}

1;
END
my $RECOVER = <<'END';

sub tar_archive_search_conf {
    my ($archive) = @_;

    my ($name) = grep { m!\./etc/vzdump/pct\.conf$! } split(/\n/, qx{tar tf '$archive'});
    return $name;
}

sub recover_config {
    my ($archive) = @_;

    my $name = tar_archive_search_conf($archive);
    return scalar(qx{tar -xpOf '$archive' '$name'});
}

1;
END
my %three = (
    'pve-manager' => '3.4-6',
    'libpve-storage-perl' => '5.0-41',
    'pve-container' => '1.0-10',
    'qemu-server' => '3.4-6',
);
my $three = old_tree(
    \%three,
    sub {
        my ($tree) = @_;

        my $lib = "$tree/usr/share/perl5/PVE";
        write_file("$lib/$_", $files{$_}) for keys %files;
        for my $more (['VZDump.pm', $CONF], ['LXC/Create.pm', $RECOVER]) {
            my ($file, $text) = @$more;
            my $module = read_file("$lib/$file");
            $module =~ s/^1;\n\z/$text/m;
            write_file("$lib/$file", $module);
        }
        run('rm', '-r', "$lib/API2/Storage", "$tree/usr/share/pve-manager");
    },
);
run('cp', '-a', "$three/usr", "$three/before");
$applied = patch($three, 'apply');
ok($applied->{ok}, 'Proxmox VE 3: apply') or BAIL_OUT($applied->{out});

my $page = perl($three, 'require PVE::ExtJSIndex; print PVE::ExtJSIndex::get_index()')->{out};
like(
    $page, qr!pvemanagerlib\.js.*\n.*/pve2/js/pve-diff-backup\.js\?ver=\w+".*\n.*locale!,
    'the page'
);
my $conf = 'my $r = PVE::VZDump::read_vzdump_defaults("maxfiles: 2", "fullbackup: 7");'
    . ' print "$r->{maxfiles} $r->{fullbackup}"';
is(perl($three, $conf)->{out}, '2 7', 'vzdump.conf');
is(
    perl($three, 'print PVE::VZDump::LXC::command("helper diff --base=/x")')->{out},
    'tar|helper,diff,--base=/x', 'words of a compressor'
);

# the archives of Proxmox VE 5 under the names of containers here
set_guests($root, 0);
patch($root, 'apply');
my @made = map { set_guests($root, $_); backup($root, 100, $_, qw(compress lzo fullbackup 7)) } 0,
    1;
ok((!grep { !$_->{ok} } @made), 'archives to restore') or diag($made[1]->{out});
($full, $differential) = archives($root);
for my $name ($full, $differential) {
    (my $copy = $name) =~ s/vzdump-lxc/vzdump-openvz/;
    run('cp', "$root/var/lib/vz/dump/$name", "$three/var/lib/vz/dump/$_") for $name, $copy;
}
my $recover = 'print PVE::LXC::Create::recover_config($ARGV[0])';
is(
    perl($three, $recover, "$three/var/lib/vz/dump/$differential")->{out},
    "memory: 1\n", 'the configuration that tar is asked for'
);
my ($gone, $openvz) = map { "$three/var/lib/vz/dump/$_" } $full, $differential;
s/vzdump-lxc/vzdump-openvz/ for $gone, $openvz;
my $create = 'require PVE::API2::OpenVZ; PVE::API2::OpenVZ::create_vm(@ARGV[1, 0], 101, 1)';
write_file("$three/guests/private/old", 'precious');
rename($gone, "$three/guests/full");
ok(
    !perl($three, $create, $openvz, "$three/guests/private")->{ok},
    'OpenVZ: refused without a full'
);
ok(-e "$three/guests/private/old", '... nothing removed');
rename("$three/guests/full", $gone);
# the base is known by what it holds, under whatever name
my $restored = perl($three, $create, $openvz, "$three/guests/private");
ok($restored->{ok}, 'OpenVZ: restored') or diag($restored->{out});
is(read_file("$three/guests/private/var/today"), random(20_000, 'day 1'), '... the same');

ok(patch($three, 'revert')->{ok}, 'revert');
is(run('diff', '-r', "$three/before", "$three/usr")->{out}, '', 'the tree is what it was');

done_testing();
