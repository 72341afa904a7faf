package PVE::RESTHandler;

# A stand-in for Proxmox VE's module of this name, written for tests/perl/api.t.

use strict;
use warnings;

# By class, then by method and path.
our %REGISTERED;

sub register_method {
    my ($class, $info) = @_;

    my $key = ($info->{method} // 'SUBCLASS') . " $info->{path}";
    die "duplicate '$key'" if $REGISTERED{$class}->{$key};
    $REGISTERED{$class}->{$key} = $info;
    return;
}

1;
