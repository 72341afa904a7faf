#!/usr/bin/perl

# Links, pipes and folders in the place of backups: what Perl asks of a folder that others can write
# to, and of the helper.

use strict;
use warnings;

use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use POSIX qw(mkfifo);
use Test::More;

use lib dirname(__FILE__) . '/lib', dirname(__FILE__) . '/../../patches/payload';

use HostTree qw(program run read_file write_file vma random);
use PVE::VZDump::Differential::Chain qw(choose_base);
use PVE::VZDump::Differential::Helper
    qw(run_helper check_base check_archive backup_files existing_dependants open_decoder);
use PVE::VZDump::Differential::Storage;

my $dir = tempdir('pve-share-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $full = 'vzdump-qemu-100-2026_11_20-01_00_02.vma';
my $differential = "$full--differential-2026_11_21-01_00_02.vcdiff";
my $link = "$full--differential-2026_11_22-01_00_02.vcdiff";
my $pipe = "$full--differential-2026_11_23-01_00_02.vcdiff";

write_file("$dir/away", 'a file');
write_file("$dir/$full", vma("memory: 1\n", random(100_000, 'disk'), 'full'));
write_file("$dir/$differential", 'none yet');
symlink('away', "$dir/$link") or die;
mkfifo("$dir/$pipe", oct(600)) or die;
mkdir("$dir/$full--differential-2026_11_24-01_00_02.vcdiff") or die;

my %odd = map { $_->{name} => $_->{odd} } backup_files($dir);
is_deeply(
    \%odd,
    {
        $full => undef,
        $differential => undef,
        $link => 'a symbolic link',
        $pipe => 'no regular file',
    },
    'what lies there'
);
is(scalar(existing_dependants("$dir/$full")), 3, 'whatever it is, it keeps its full');

for my $case ([$link, qr/is a symbolic link, which is not read/], [$pipe, qr/is no regular file/]) {
    my ($name, $error) = @$case;
    for my $check (\&check_base, \&check_archive) {
        eval { $check->("$dir/$name") };
        like($@, $error, $name);
    }
    eval { open_decoder("$dir/$name") };
    like($@, $error, "$name: not opened");
}
eval { check_base("$dir/vzdump-qemu-1") };
like($@, qr/put it back there first/, 'a full that is not there');
eval { check_base("$dir/$full"); check_archive("$dir/$differential"); };
is($@, '', 'regular files');

# The newest full decides, and a link is none.
my $newest = 'vzdump-qemu-100-2026_11_20-02_00_02.vma';
symlink('away', "$dir/$newest") or die;
my $now = POSIX::mktime(0, 0, 12, 20, 10, 126);
my $look = sub { return { has_map => 1 } };
my %want = (type => 'qemu', vmid => 100, format => 'vma', days => 7, now => $now, look => $look);
my ($base, $reason, $is_odd) = choose_base([backup_files($dir)], %want);
is($base, undef, 'a link is no base');
is($reason, "'$newest' is a symbolic link, and not read", '... and why');
ok($is_odd, '... and somebody should look');
unlink("$dir/$newest");
is((choose_base([backup_files($dir)], %want))[0], $full, 'a file is one');

# The helper's warnings do not get into its answers.
my $helper = program('pve-xdelta3');
plan skip_all => 'pve-xdelta3 is not built' if !$helper;
$PVE::VZDump::Differential::Helper::HELPER = $helper;
write_file("$dir/day", vma("memory: 2\n", random(100_000, 'disk'), 'day'));
my $made =
    run($helper, '-e', '-f', "-A=-//$full/", '-s', "$dir/$full", "$dir/day", "$dir/$differential");
ok($made->{ok}, 'a differential as the originals wrote them') or diag($made->{out});
my @warnings;
my $config = do {
    local $SIG{__WARN__} = sub { push @warnings, @_ };
    run_helper('vma', 'config', "$dir/$differential");
};
is($config, "memory: 2\n", 'the configuration alone');
like("@warnings", qr/not checked beforehand/, 'the warning by itself');

# Names that are no text, in errors: that of a file, and that in a header.
my $evil = "<img src=x>\xe2\x80\xae\x1b[31m" . 'x' x 100;
write_file("$dir/$full--differential-2026_11_25-01_00_02.vcdiff$evil", '');
like(
    PVE::VZDump::Differential::Storage::_needed_message(
        "local:backup/$full", existing_dependants("$dir/$full")
    ),
    qr/\A[^<>\x1b\x80-\xff]{0,2000}\n\z/,
    'names beside a full'
);
my $as_characters = "$dir/$full";
utf8::upgrade($as_characters);
is(scalar(existing_dependants($as_characters)), 4, 'a path of characters, a name of bytes');
write_file("$dir/$evil", 'another base');
run($helper, 'diff', '--base', "$dir/$evil") or die;
my $delta = `'$helper' diff --compress none --base '$dir/$evil' <'$dir/day'`;
write_file("$dir/$differential", $delta);
eval { run_helper('vma', 'config', "$dir/$differential") };
like($@, qr/\A[^<>\x1b\x80-\xff]{0,1200}is not the one[^<>\x1b\x80-\xff]{0,1200}\n\z/, 'a header');

done_testing();
