package PVE::Storage;

# A small stand-in for Proxmox VE 5's module of this name, written for the tests of pve-diff-backup:
# each place spells out the names of backups that it knows.

use strict;
use warnings;

use PVE::Storage::Plugin;
use PVE::Tools qw(run_command);

# The one storage is a folder.
sub config {
    return { ids => { local => { type => 'dir', path => PVE::Tools::root() . '/var/lib/vz' } } };
}

sub storage_config {
    my ($cfg, $storeid) = @_;

    return $cfg->{ids}->{$storeid} // die "storage '$storeid' does not exist\n";
}

sub parse_volume_id {
    my ($volid, $noerr) = @_;

    return ($1, $2) if $volid =~ m/\A([a-z][a-z0-9_.-]*):(.+)\z/;
    return if $noerr;
    die "unable to parse volume ID '$volid'\n";
}

sub path_to_volume_id {
    my ($cfg, $path) = @_;

    for my $sid (keys %{ $cfg->{ids} }) {
        my $backupdir = "$cfg->{ids}->{$sid}->{path}/dump";
        return ('iso', "$sid:backup/$1")
            if $path =~ m!^$backupdir/([^/]+\.(tar|tar\.gz|tar\.lzo|tgz|vma|vma\.gz|vma\.lzo))$!;
    }
    return ('');
}

sub path {
    my ($cfg, $volid) = @_;

    my ($storeid, $volname) = parse_volume_id($volid);
    return PVE::Storage::Plugin->filesystem_path(storage_config($cfg, $storeid), $volname);
}

sub abs_filesystem_path {
    my ($cfg, $volid) = @_;

    my $path = parse_volume_id($volid, 1) ? scalar(path($cfg, $volid)) : $volid;
    die "can't find file '$volid'\n" if !-f $path;
    ($path) = $path =~ m!\A(/.+)\z!s;
    return $path;
}

# In KiB/s.
sub get_bandwidth_limit {
    my ($operation, $storeids, $override) = @_;

    return $override;
}

sub template_list {
    my ($cfg, $storeid, $tt) = @_;

    my $res = {};
    foreach my $sid (keys %{ $cfg->{ids} }) {
        my $path = "$cfg->{ids}->{$sid}->{path}/dump";
        foreach my $fn (glob("$path/*")) {
            my $info;
            if ($tt eq 'iso') {
                next;
            } elsif ($tt eq 'backup') {
                next if $fn !~ m!/([^/]+\.(tar|tar\.gz|tar\.lzo|tgz|vma|vma\.gz|vma\.lzo))$!;

                $info = { volid => "$sid:backup/$1", format => $2 };
            }
            $info->{size} = -s $fn;
            push @{ $res->{$sid} }, $info;
        }
    }
    return $res;
}

sub vdisk_free {
    my ($cfg, $volid) = @_;

    my ($storeid, $volname) = parse_volume_id($volid);
    return PVE::Storage::Plugin->free_image($storeid, storage_config($cfg, $storeid), $volname);
}

sub extract_vzdump_config_tar {
    my ($archive, $conf_re) = @_;

    my $file;
    run_command(
        ['tar', '-tf', $archive],
        outfunc => sub { $file //= "$_[0]\n" =~ $conf_re ? $1 : undef });
    die "ERROR: archive contains no configuration file\n" if !defined($file);
    my $raw = '';
    run_command(['tar', '-xpOf', $archive, $file], outfunc => sub { $raw .= "$_[0]\n" });
    return wantarray ? ($raw, $file) : $raw;
}

sub extract_vzdump_config {
    my ($cfg, $volid) = @_;

    my $archive = abs_filesystem_path($cfg, $volid);
    return extract_vzdump_config_tar($archive, qr!^(\./etc/vzdump/(pct|vps)\.conf)$!)
        if $volid =~ /vzdump-(lxc|openvz)-[0-9]+-[0-9_]+-[0-9_]+\.(tgz|(tar(\.(gz|lzo))?))$/;
    die "cannot determine backup guest type for backup archive '$volid'\n";
}

1;
