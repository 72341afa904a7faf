#!/usr/bin/perl

# The configuration is read from the start of a tar stream without running tar.

use strict;
use warnings;

use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use Test::More;

use lib dirname(__FILE__) . '/lib', dirname(__FILE__) . '/../../patches/payload';

use HostTree qw(run read_file write_file random);
use PVE::VZDump::Differential;

my $CONFIG_RE = qr!^(\./etc/vzdump/(pct|vps)\.conf)$!;
my $dir = tempdir(CLEANUP => 1);
write_file("$dir/in/etc/vzdump/pct.conf", "memory: 512\nhostname: ct\n");
write_file("$dir/in/big", random(300_000, 'big'));
write_file("$dir/in/" . 'long' x 50, 'x');

sub find {
    my ($tar) = @_;

    open(my $fh, '<', \$tar) or die;
    my ($raw, $file) = eval { PVE::VZDump::Differential::Helper::find_in_tar($fh, $CONFIG_RE) };
    return { raw => $raw, file => $file, error => $@, read => tell($fh) };
}

sub make {
    my (@arguments) = @_;

    run('tar', 'cpf', "$dir/out.tar", @arguments)->{ok} or die "tar failed\n";
    return read_file("$dir/out.tar");
}

for my $format (qw(gnu ustar posix v7 oldgnu)) {
    my $tar = make("--format=$format", "--directory=$dir/in", './etc/vzdump/pct.conf', './big');
    my $got = find($tar);
    is($got->{raw}, "memory: 512\nhostname: ct\n", "$format: content");
    is($got->{file}, './etc/vzdump/pct.conf', "$format: name");
    cmp_ok($got->{read}, '<', 5000, "$format: only the start was read");
}
for my $format (qw(gnu posix)) {
    my $tar = make(
        "--format=$format", "--directory=$dir/in", './' . 'long' x 50, './big',
        './etc/vzdump/pct.conf'
    );
    is(
        find($tar)->{raw}, "memory: 512\nhostname: ct\n",
        "$format: behind a long name and a large file"
    );
}

my $tar = make("--directory=$dir/in", './big');
is_deeply(
    find($tar), { raw => undef, file => undef, error => '', read => find($tar)->{read} },
    'no configuration'
);

write_file("$dir/in/etc/vzdump/pct.conf", '');
is(find(make("--directory=$dir/in", './etc/vzdump/pct.conf'))->{raw}, '', 'an empty configuration');
write_file("$dir/in/etc/vzdump/pct.conf", 'memory: 512');
$tar = make("--directory=$dir/in", './etc/vzdump/pct.conf', './big');
is(find($tar)->{raw}, "memory: 512\n", 'the last line is ended, as upstream does');

symlink('/etc/passwd', "$dir/in/link");
rename("$dir/in/link", "$dir/in/etc/vzdump/vps.conf");
is(
    find(make("--directory=$dir/in", './etc/vzdump/vps.conf'))->{file}, undef,
    'a link is no configuration'
);

# Damaged and hostile streams.
is(
    find(substr($tar, 0, 515))->{error}, "ERROR: archive ends within './etc/vzdump/pct.conf'\n",
    'cut within the file'
);
is(find(substr($tar, 0, 300))->{file}, undef, 'cut within the header');
is(find('')->{file}, undef, 'nothing at all');
is(find("\0" x 10240)->{file}, undef, 'an empty archive');
like(find(random(5120, 'noise'))->{error}, qr/malformed tar header/, 'noise');

sub with_size {
    my ($size) = @_;

    my $copy = $tar;
    substr($copy, 124, 12, $size);
    return $copy;
}
like(find(with_size("77777777777\0"))->{error}, qr/too large/, '8 GiB of configuration');
like(find(with_size("\x80" . "\xff" x 11))->{error}, qr/too large/, 'a number of 88 bits');
like(find(with_size('-1         '))->{error}, qr/malformed|too large/, 'a negative size');
like(find(with_size('abc        '))->{error}, qr/malformed/, 'a size that is no number');

done_testing();
