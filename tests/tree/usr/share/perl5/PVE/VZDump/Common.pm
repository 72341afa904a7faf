package PVE::VZDump::Common;

# A small stand-in for Proxmox VE's module of this name, written for the tests of pve-diff-backup.

use strict;
use warnings;

my $confdesc = {
    storage => { type => 'string', description => 'Store the backup here.', optional => 1 },
    dumpdir =>
        { type => 'string', description => 'Store the backup in this folder.', optional => 1 },
    compress => {
        type => 'string',
        description => 'Compress the archive.',
        enum => ['0', '1', 'gzip', 'lzo', 'zstd'],
        optional => 1,
        default => '0',
    },
    zstd => {
        type => 'integer', description => 'Threads of zstd.', minimum => 0, optional => 1,
        default => 1
    },
    ionice => {
        type => 'integer', description => 'Priority.', minimum => 0, maximum => 8, optional => 1,
        default => 7
    },
    'prune-backups' =>
        { type => 'string', description => 'Retention, keep-last=N.', optional => 1 },
    remove =>
        { type => 'boolean', description => 'Prune older backups.', optional => 1, default => 1 },
    protected => { type => 'boolean', description => 'Protect the backup.', optional => 1 },
    stdout => { type => 'boolean', description => 'Write to standard output.', optional => 1 },
};

sub get_confdesc {
    return $confdesc;
}

# Adds the options to a schema.
sub json_config_properties {
    my ($prop) = @_;

    $prop->{$_} = $confdesc->{$_} for keys %$confdesc;
    return $prop;
}

# Dies unless the value is one that the schema allows.
sub check_value {
    my ($key, $value) = @_;

    my $desc = $confdesc->{$key} // die "unknown option '$key'\n";
    if ($desc->{type} eq 'integer' || $desc->{type} eq 'boolean') {
        die "$key: type check ('$desc->{type}') failed - got '$value'\n"
            if $value !~ /\A-?[0-9]+\z/;
        my ($min, $max) =
            $desc->{type} eq 'boolean' ? (0, 1) : @$desc{qw(minimum maximum)};
        die "$key: value must have a minimum value of $min\n" if defined($min) && $value < $min;
        die "$key: value must have a maximum value of $max\n" if defined($max) && $value > $max;
    }
    die "$key: value '$value' does not have a value in the enumeration\n"
        if $desc->{enum} && !grep { $_ eq $value } @{ $desc->{enum} };
    return $value;
}

1;
