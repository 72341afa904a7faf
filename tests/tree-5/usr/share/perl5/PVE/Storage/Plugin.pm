package PVE::Storage::Plugin;

# A small stand-in for Proxmox VE 5's module of this name, written for the tests of pve-diff-backup:
# one kind of storage, a folder with backups in dump/.

use strict;
use warnings;

our @COMMON_TAR_FLAGS = qw(--one-file-system -p --sparse --numeric-owner);

sub parse_volname {
    my ($class, $volname) = @_;

    if ($volname =~ m!^backup/([^/]+(\.(tar|tar\.gz|tar\.lzo|tgz|vma|vma\.gz|vma\.lzo)))$!) {
        my $fn = $1;
        return ('backup', $fn, $2) if $fn =~ m/^vzdump-(openvz|lxc|qemu)-(\d+)-.+/;
        return ('backup', $fn);
    }
    die "unable to parse directory volume name '$volname'\n";
}

sub filesystem_path {
    my ($class, $scfg, $volname) = @_;

    my ($vtype, $name, $vmid) = $class->parse_volname($volname);
    my $path = "$scfg->{path}/dump/$name";
    return wantarray ? ($path, $vmid, $vtype) : $path;
}

sub free_image {
    my ($class, $storeid, $scfg, $volname) = @_;

    my $path = $class->filesystem_path($scfg, $volname);
    unlink($path) or die "unlink '$path' failed - $!\n";
    return;
}

1;
