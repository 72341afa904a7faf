package PVE::Exception;

# A stand-in for Proxmox VE's module of this name, written for tests/perl/files.t.

use strict;
use warnings;

use overload '""' => sub { $_[0]->{msg} };

sub raise {
    my ($msg, %more) = @_;

    my $self = { msg => $msg, %more };
    die bless $self, __PACKAGE__;
}

sub raise_param_exc {
    my ($errors) = @_;

    return raise("Parameter verification failed: @{[%$errors]}\n", code => 400);
}

1;
