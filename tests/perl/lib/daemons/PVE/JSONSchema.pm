package PVE::JSONSchema;

# A stand-in for Proxmox VE's module of this name, written for tests/perl/api.t.

use strict;
use warnings;

use Exporter qw(import);

our @EXPORT_OK = qw(get_standard_option);

sub get_standard_option {
    my ($name, $more) = @_;

    return { standard => $name, %{ $more // {} } };
}

1;
