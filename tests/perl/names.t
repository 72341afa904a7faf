#!/usr/bin/perl -T

# The names that Perl and Rust agree upon (tests/data/names.json), and the encoding of paths.

use strict;
use warnings;

use File::Basename qw(dirname);
use JSON::PP;
use POSIX qw(strftime);
use Test::More;

use lib map { m!\A(.+)\z! ? "$1/../../patches/payload" : () } dirname(__FILE__);

use PVE::VZDump::Differential::Chain qw(parse_name full_forms differential_name encode_path
    decode_path);

my ($data) = dirname(__FILE__) =~ m!\A(.+)\z!;
open(my $fh, '<', "$data/../data/names.json") or die "cannot read names.json - $!\n";
my $vectors = JSON::PP->new->decode(do { local $/ = undef; <$fh> });
close($fh);

sub iso {
    my ($time) = @_;

    return defined($time) ? strftime('%Y-%m-%dT%H:%M:%S', localtime($time)) : undef;
}

for my $zone ('UTC', 'Europe/Vienna', 'America/St_Johns') {
    local $ENV{TZ} = $zone;
    POSIX::tzset();
    for my $vector (@{ $vectors->{names} }) {
        my $got = parse_name($vector->{name});
        if ($got) {
            $got = {
                (map { $_ => $got->{$_} } qw(type vmid format compression base)),
                time => iso($got->{ctime}),
                base_time => iso($got->{base_ctime}),
            };
        }
        is_deeply($got, $vector->{expect}, "$vector->{why} ($zone)")
            or diag('name: ', JSON::PP->new->ascii->allow_nonref->encode($vector->{name}));
    }
}
delete $ENV{TZ};
POSIX::tzset();

is(parse_name(undef), undef, 'no name at all');
is_deeply([full_forms($_->{name})], $_->{expect}, "forms: $_->{why}") for @{ $vectors->{forms} };

my $differential =
    'vzdump-lxc-100-2026_01_01-00_00_00.tar.gz--differential-2026_01_02-00_00_00.vcdiff';
is(
    differential_name('vzdump-lxc-100-2026_01_01-00_00_00.tar.gz', '2026_01_02-00_00_00', undef),
    $differential,
    'name of an uncompressed differential',
);
is(
    parse_name("$differential.zst")->{stem} . '.log',
    'vzdump-lxc-100-2026_01_01-00_00_00.tar.gz--differential-2026_01_02-00_00_00.log',
    'the log of a differential is its own',
);
is(
    parse_name('vzdump-lxc-100-2026_01_01-00_00_00.tar.gz')->{stem},
    'vzdump-lxc-100-2026_01_01-00_00_00',
    'the log of a full has no extension of the archive',
);

# Paths become one plain word and come back as they were.
my @paths = (
    '/var/lib/vz/dump/x.vma.zst',
    '/mnt/my backups/dump/x',
    "/mnt/it's/\$(reboot)/`id`;&|<>*?[]{}()!#~\\\"",
    "/mnt/\xc3\xa9\xff\n\t/x",
    '/mnt/100%/%41%',
    '',
);
for my $path (@paths) {
    my $word = encode_path($path);
    like($word, qr!\A[A-Za-z0-9%._/-]*\z!, "plain word: $word");
    is(decode_path($word), $path, '... and back');
}
is(encode_path("/mnt/\x{e9}\x{20ac}"), '/mnt/%C3%A9%E2%82%AC', 'characters are encoded as UTF-8');
for my $word ('%4', '%zz', '/a b', '/a$b', "/a\n", '%00') {
    ok(!eval { decode_path($word); 1 }, 'refused: ' . JSON::PP->new->allow_nonref->encode($word));
}

done_testing();
