package PVE::Storage::Plugin;

# A small stand-in for Proxmox VE's module of this name, written for the tests of pve-diff-backup:
# one kind of storage, a folder with backups in dump/.

use strict;
use warnings;

use constant LOG_EXT => '.log';
use constant NOTES_EXT => '.notes';
use constant COMPRESSOR_RE => 'gz|lzo|zst';

our @COMMON_TAR_FLAGS = qw(--one-file-system -p --sparse --numeric-owner);

# The file name and the guest's number of a volume name such as backup/vzdump-qemu-100-....vma.zst
sub parse_volname {
    my ($class, $volname) = @_;

    if ($volname =~ m!\Abackup/([^/]+$PVE::Storage::BACKUP_EXT_RE_2)\z!) {
        my $file = $1;
        my ($vmid) = $file =~ /\Avzdump-(?:openvz|lxc|qemu)-([0-9]+)-/;
        return ('backup', $file, $vmid);
    }
    die "unable to parse directory volume name '$volname'\n";
}

sub filesystem_path {
    my ($class, $scfg, $volname) = @_;

    my ($vtype, $name, $vmid) = $class->parse_volname($volname);
    my $path = "$scfg->{path}/dump/$name";
    return wantarray ? ($path, $vmid, $vtype) : $path;
}

# All backups, as hashes with volid, format, size, ctime, vmid, protected, notes.
sub list_volumes {
    my ($class, $storeid, $scfg, $vmid) = @_;

    my @list;
    for my $path (sort glob("$scfg->{path}/dump/*")) {
        next if $path !~ m!/([^/]+$PVE::Storage::BACKUP_EXT_RE_2)\z!;
        my ($name, $format) = ($1, $2);
        my $info = eval { PVE::Storage::archive_info($name) } // {};
        next if defined($vmid) && ($info->{vmid} // 0) != $vmid;
        push @list, {
            volid => "$storeid:backup/$name",
            format => $format,
            size => -s $path,
            ctime => $info->{ctime} // (stat($path))[10],
            vmid => $info->{vmid},
            protected => -e PVE::Storage::protection_file_path($path) ? 1 : 0,
        };
    }
    return \@list;
}

sub free_image {
    my ($class, $storeid, $scfg, $volname) = @_;

    my $path = $class->filesystem_path($scfg, $volname);
    die "cannot remove protected volume '$volname' on '$storeid'\n"
        if -e PVE::Storage::protection_file_path($path);
    unlink($path) or die "unlink '$path' failed - $!\n";
    return;
}

sub prune_backups {
    my ($class, $scfg, $storeid, $keep, $vmid, $type, $dryrun, $logfunc) = @_;

    my (%groups, @list);
    for my $backup (@{ $class->list_volumes($storeid, $scfg, $vmid) }) {
        my $info = eval { PVE::Storage::archive_info($backup->{volid}) } // {};
        next if defined($type) && $type ne ($info->{type} // '');
        my $entry = { volid => $backup->{volid}, ctime => $backup->{ctime} };
        if ($info->{is_std_name}) {
            push @{ $groups{"$info->{type}/$info->{vmid}"} }, $entry;
        } else {
            $entry->{mark} = 'renamed';
        }
        $entry->{mark} = 'protected' if $backup->{protected};
        push @list, $entry;
    }
    PVE::Storage::prune_mark_backup_group($_, $keep) for values %groups;

    my $failed;
    for my $entry (grep { $_->{mark} eq 'remove' } @list) {
        last if $dryrun;
        $logfunc->('info', "removing backup '$entry->{volid}'");
        my ($volname) = $entry->{volid} =~ /\A[^:]+:(.*)\z/;
        eval { PVE::Storage::archive_remove($class->filesystem_path($scfg, $volname)) };
        next if !$@;
        $logfunc->('err', "error when removing backup '$entry->{volid}' - $@");
        $failed = 1;
    }
    die "error pruning backups - check log\n" if $failed;
    return \@list;
}

1;
