package HostTree;

# A copy of tests/tree with guests, and what tests do with it.

use strict;
use warnings;

use Cwd qw(abs_path);
use Digest::MD5 qw(md5);
use Exporter qw(import);
use File::Basename qw(dirname);
use File::Path qw(make_path);
use File::Temp qw(tempdir);

our @EXPORT_OK = qw(program new_tree old_tree run host read_file write_file vma random);

my $REPO = abs_path(dirname(__FILE__) . '/../../..');

# `pve-diff-backup apply` has modules loaded by the Perl that runs the test (tests/perls.sh).
$ENV{PATH} = dirname($^X) . ":$ENV{PATH}";

# The path of one of our programs, from $PVE_DIFF_BACKUP_PROGRAMS or the build folders; undef
# without it.
sub program {
    my ($name) = @_;

    my @dirs = ($ENV{PVE_DIFF_BACKUP_PROGRAMS} // (), "$REPO/target/debug", "$REPO/target/release");
    my ($found) = grep { -x } map { "$_/$name" } @dirs;
    return $found;
}

# An unpatched tree in a new folder, with our helper in place.
sub new_tree {
    my $root = tempdir('pve-tree-XXXXXX', TMPDIR => 1, CLEANUP => 1);
    run('cp', '-a', "$REPO/tests/tree/.", $root)->{ok} or die "cannot copy tests/tree\n";
    make_path(map { "$root/$_" }
            qw(var/lib/vz/dump var/lib/lxc etc/pve/lxc etc/pve/qemu-server guests));
    run('cp', program('pve-xdelta3'), "$root/usr/bin/pve-xdelta3")->{ok}
        or die "cannot copy pve-xdelta3\n";
    return $root;
}

# The same in the shape of Proxmox VE 5, with the dpkg database of the given versions; C<$change> may
# edit the files first.
sub old_tree {
    my ($versions, $change) = @_;

    my $root = new_tree();
    run('cp', '-a', "$REPO/tests/tree-5/.", $root)->{ok} or die "cannot copy tests/tree-5\n";
    unlink map { "$root/usr/$_" }
        qw(bin/vzdump sbin/pct sbin/pvesm sbin/qmrestore share/perl5/PVE/VZDump/Common.pm
        share/perl5/PVE/Jobs.pm share/perl5/PVE/API2/Backup.pm);
    $change->($root) if $change;
    rename("$root/usr/bin/pve-xdelta3", "$root/guests/x");
    unlink glob("$root/var/lib/dpkg/info/*");
    my $made =
        run("$REPO/tests/make-tree-dpkg", $root, map { "$_=$versions->{$_}" } keys %$versions);
    die $made->{out} if !$made->{ok};
    rename("$root/guests/x", "$root/usr/bin/pve-xdelta3");
    return $root;
}

# Runs a command (no shell) and returns a hash: ok, out (its output and errors), code.
sub run {
    my (@cmd) = @_;

    my $pid = open(my $fh, '-|') // die "cannot fork - $!\n";
    if (!$pid) {
        open(STDERR, '>&', \*STDOUT) or die;
        open(STDIN, '<', '/dev/null') or die;
        if (!exec { $cmd[0] } @cmd) {
            print "cannot run $cmd[0] - $!\n";
            exit 127;
        }
    }
    my $out = do { local $/ = undef; <$fh> }
        // '';
    close($fh);
    return { ok => $? == 0, code => $? >> 8, out => $out };
}

# Runs a Perl program of a tree, such as C<bin/vzdump>, by the Perl that runs the test.
sub host {
    my ($root, $program, @arguments) = @_;

    my ($switches) = read_file("$root/usr/$program") =~ /\A#!\S+(.*)/;
    return run($^X, split(' ', $switches), "$root/usr/$program", @arguments);
}

sub read_file {
    my ($path) = @_;

    open(my $fh, '<:raw', $path) or die "cannot read '$path' - $!\n";
    my $content = do { local $/ = undef; <$fh> };
    close($fh);
    return $content;
}

sub write_file {
    my ($path, $content) = @_;

    make_path(dirname($path));
    open(my $fh, '>:raw', $path) or die "cannot write '$path' - $!\n";
    print {$fh} $content;
    close($fh) or die "cannot write '$path' - $!\n";
    return;
}

# So many bytes that do not compress, the same for the same seed.
sub random {
    my ($length, $seed) = @_;

    my $data = '';
    for (my $i = 0; length($data) < $length; $i++) {
        $data .= md5("$seed/$i");
    }
    return substr($data, 0, $length);
}

# A VMA stream (vma_spec.txt of pve-qemu) of one disk: a configuration, then 64 KiB clusters.  As
# in real life the stream's UUID is new each time.
sub vma {
    my ($config, $disk, $uuid_seed) = @_;

    my $uuid = md5($uuid_seed);
    my $blobs = "\0";
    my $add = sub {
        my $at = length($blobs);
        $blobs .= pack('v/a', $_[0]);
        return $at;
    };
    my $name = $add->("qemu-server.conf\0");
    my $data = $add->($config);
    my $device = $add->("drive-scsi0\0");
    $blobs .= "\0" x (512 - length($blobs) % 512);

    my $fill = sub { $_[0] . "\0" x ($_[1] - length($_[0])) };
    my $header = pack(
        'a4 N a16 Q> a16 N3', "VMA\0", 1, $uuid, 1_700_000_000, '', 12288,
        length($blobs), 12288 + length($blobs));
    $header = $fill->($header, 2044);
    $header = $fill->($header . pack('N', $name), 3068);
    $header = $fill->($header . pack('N', $data), 4096);
    $header .= "\0" x 32 . pack('N N Q> x16', $device, 0, length($disk));
    $header = $fill->($header, 12288) . $blobs;
    substr($header, 32, 16, md5($header));

    my $stream = $header;
    my $clusters = int((length($disk) + 65535) / 65536);
    for (my $first = 0; $first < $clusters; $first += 59) {
        my ($infos, $blocks, $count) = ('', '', 0);
        for my $cluster ($first .. ($first + 58 < $clusters ? $first + 58 : $clusters - 1)) {
            my $content = $fill->(substr($disk, $cluster * 65536, 65536), 65536);
            my $mask = 0;
            for my $block (0 .. 15) {
                my $part = substr($content, $block * 4096, 4096);
                next if $part !~ /[^\0]/;
                $mask |= 1 << $block;
                $blocks .= $part;
                $count++;
            }
            $infos .= pack('n C C N', $mask, 0, 1, $cluster);
        }
        my $extent = $fill->(pack('a4 n n a16 a16', 'VMAE', 0, $count, $uuid, '') . $infos, 512);
        substr($extent, 24, 16, md5($extent));
        $stream .= $extent . $blocks;
    }
    return $stream;
}

1;
