package PVE::API2::Storage::Content;

# A small stand-in for Proxmox VE 5's module of this name, written for the tests of pve-diff-backup.

use strict;
use warnings;

use PVE::Storage;

sub delete_volume {
    my ($cfg, $volid) = @_;

    my ($path, $ownervm, $vtype) = PVE::Storage::path($cfg, $volid);

    PVE::Storage::vdisk_free($cfg, $volid);

    if (   $vtype eq 'backup'
        && $path =~ /(.*\/vzdump-\w+-\d+-\d{4}_\d{2}_\d{2}-\d{2}_\d{2}_\d{2})[^\/]+$/) {
        my $logpath = "$1.log";
        unlink($logpath) if -e $logpath;
    }
    return;
}

1;
