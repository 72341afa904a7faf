package PVE::API2::Storage::FileRestore;

# A small stand-in for Proxmox VE's module of this name, written for the tests of pve-diff-backup. Files
# are out of backups on a Proxmox Backup Server, of which there is none here.

use strict;
use warnings;

use PVE::Storage;

sub extract_param {
    my ($param, $key) = @_;

    return delete($param->{$key});
}

# Dies for all backups but those of the server.
sub check_kind {
    my ($storeid) = @_;

    my $scfg = PVE::Storage::storage_config(PVE::Storage::config(), $storeid);
    die "Only PBS storages supported for file-restore.\n" if $scfg->{type} ne 'pbs';
    return;
}

sub list {
    my ($param) = @_;

    my $path = extract_param($param, 'filepath') || "/";
    check_kind(extract_param($param, 'storage'));
    return ["upstream's list of '$path'"];
}

sub download {
    my ($param) = @_;

    my $path = extract_param($param, 'filepath');
    check_kind(extract_param($param, 'storage'));
    return "upstream's stream of '$path'";
}

1;
