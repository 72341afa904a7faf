#!/usr/bin/perl -T

# Text of others in messages: what Perl and Rust agree upon (tests/data/shown.json).

use strict;
use warnings;

use File::Basename qw(dirname);
use JSON::PP;
use Test::More;

use lib map { m!\A(.+)\z! ? "$1/../../patches/payload" : () } dirname(__FILE__);

use PVE::VZDump::Differential::Chain qw(shown);

my ($data) = dirname(__FILE__) =~ m!\A(.+)\z!;
open(my $fh, '<', "$data/../data/shown.json") or die "cannot read shown.json - $!\n";
my $vectors = JSON::PP->new->utf8->decode(do { local $/ = undef; <$fh> });
close($fh);

for my $vector (@{ $vectors->{shown} }) {
    my $bytes = $vector->{text};
    if (defined($bytes)) {
        is(shown("$bytes"), $vector->{expect}, "$vector->{why}, as characters")
            if utf8::is_utf8($bytes);
        utf8::encode($bytes);
    } else {
        $bytes = pack('H*', $vector->{bytes});
    }
    my $expect = $vector->{expect};
    utf8::encode($expect);
    my $got = shown($bytes);
    is($got, $expect, $vector->{why});
    ok(!utf8::is_utf8($got), '... bytes stay bytes');
}
is(shown(undef), '', 'undef');
is(length(shown('x' x 1000, 300)), 300, 'another limit');

done_testing();
