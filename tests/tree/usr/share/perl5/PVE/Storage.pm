package PVE::Storage;

# A small stand-in for Proxmox VE's module of this name, written for the tests of pve-diff-backup.
# The subs have the names, arguments and results of the real ones as far as backups are concerned.

use strict;
use warnings;

use Cwd ();
use Errno qw(ENOENT);
use File::Basename qw(basename dirname);
use Time::Local qw(timelocal);

use PVE::Storage::Plugin;
use PVE::Tools qw(run_command);

# the digit counts the capture groups: extension, compression
our $BACKUP_EXT_RE_2 = qr/\.(tgz|(?:tar|vma)(?:\.(${\PVE::Storage::Plugin::COMPRESSOR_RE}))?)/;

my %DECOMPRESSOR = (
    tar => { gz => ['tar', '-z'], lzo => ['tar', '--lzop'], zst => ['tar', '--zstd'] },
    vma => { gz => ['zcat'], lzo => ['lzop', '-d', '-c'], zst => ['zstd', '-q', '-d', '-c'] },
);

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

sub path {
    my ($cfg, $volid) = @_;

    my ($storeid, $volname) = parse_volume_id($volid);
    return PVE::Storage::Plugin->filesystem_path(storage_config($cfg, $storeid), $volname);
}

sub parse_volname {
    my ($cfg, $volid) = @_;

    my (undef, $volname) = parse_volume_id($volid);
    return PVE::Storage::Plugin->parse_volname($volname);
}

# Everybody may see what is here.
sub check_volume_access { return }
sub activate_storage { return 1 }

sub abs_filesystem_path {
    my ($cfg, $volid) = @_;

    my $path = parse_volume_id($volid, 1) ? scalar(path($cfg, $volid)) : Cwd::abs_path($volid);
    die "can't find file '$volid'\n" if !defined($path) || !-f $path;
    ($path) = $path =~ m!\A(/.+)\z!s;
    return $path;
}

sub volume_list {
    my ($cfg, $storeid, $vmid) = @_;

    return PVE::Storage::Plugin->list_volumes($storeid, storage_config($cfg, $storeid), $vmid);
}

sub vdisk_free {
    my ($cfg, $volid) = @_;

    my ($storeid, $volname) = parse_volume_id($volid);
    return PVE::Storage::Plugin->free_image($storeid, storage_config($cfg, $storeid), $volname);
}

sub decompressor_info {
    my ($format, $comp) = @_;

    ($format, $comp) = ('tar', 'gz') if $format eq 'tgz' && !defined($comp);
    die "ERROR: archive format not defined\n" if !$DECOMPRESSOR{$format};

    my $decompressor = $comp ? $DECOMPRESSOR{$format}->{$comp} : undef;
    return {
        format => $format,
        compression => $comp,
        decompressor => $decompressor && [@$decompressor],
    };
}

sub archive_info {
    my ($archive) = @_;

    my $name = basename($archive);
    my ($filename, $type, $extension, $comp) =
        $name =~ /\A(vzdump-(lxc|openvz|qemu)-.+$BACKUP_EXT_RE_2)\z/
        or die "ERROR: couldn't determine archive info from '$archive'\n";
    my ($format) = $extension =~ /\A([a-z]+)/;

    my $info = decompressor_info($format, $comp);
    @$info{qw(filename type is_std_name)} = ($filename, $type, 0);
    if ($filename =~ /\A(vzdump-$type-([1-9][0-9]{2,8})-([0-9_]+)-([0-9_]+))\.\Q$extension\E\z/) {
        my ($stem, $vmid, @date) = ($1, $2, split(/_/, $3), split(/_/, $4));
        $info->{ctime} = timelocal(@date[5, 4, 3, 2], $date[1] - 1, $date[0]);
        $info->{logfilename} = $stem . PVE::Storage::Plugin::LOG_EXT;
        $info->{notesfilename} = $filename . PVE::Storage::Plugin::NOTES_EXT;
        $info->{vmid} = int($vmid);
        $info->{is_std_name} = 1;
    }
    return $info;
}

sub protection_file_path {
    my ($path) = @_;

    return "$path.protected";
}

sub archive_remove {
    my ($archive_path) = @_;

    die "cannot remove protected archive '$archive_path'\n"
        if -e protection_file_path($archive_path);
    unlink($archive_path) or $! == ENOENT or die "removing archive $archive_path failed: $!\n";
    return archive_auxiliaries_remove($archive_path);
}

sub archive_auxiliaries_remove {
    my ($archive_path) = @_;

    my $info = eval { archive_info($archive_path) } // {};
    for my $name (grep { defined } @$info{qw(logfilename notesfilename)}) {
        my $path = dirname($archive_path) . "/$name";
        unlink($path) or $! == ENOENT or warn "removing '$path' failed - $!\n";
    }
    return;
}

sub extract_vzdump_config_tar {
    my ($archive, $conf_re) = @_;

    my $file;
    my $find = sub { $file //= "$_[0]\n" =~ $conf_re ? $1 : undef };
    run_command(['tar', '-tf', $archive], outfunc => $find);
    die "ERROR: archive contains no configuration file\n" if !defined($file);

    my $raw = '';
    run_command(['tar', '-xpOf', $archive, $file], outfunc => sub { $raw .= "$_[0]\n" });
    return wantarray ? ($raw, $file) : $raw;
}

# The first configuration in the header of a VMA stream (vma_spec.txt of pve-qemu).
sub extract_vzdump_config_vma {
    my ($archive, $comp) = @_;

    my $info = archive_info($archive);
    my $cmd = $info->{decompressor} // ['cat'];
    open(my $fh, '-|', @$cmd, $archive) or die "cannot start '$cmd->[0]' - $!\n";
    my $got = read($fh, my $header, 12288) // 0;
    die "unexpected end of '$archive'\n" if $got < 12288 || $header !~ /\AVMA\0/;
    my ($blobs, $blobs_size) = unpack('x48 N N', $header);
    my $data = unpack('x3068 N', $header) || unpack('x3072 N', $header);
    die "'$archive' holds no configuration\n" if !$data;
    read($fh, $header, $blobs + $blobs_size - 12288, 12288);
    close($fh);

    my ($raw) = unpack('v/a', substr($header, $blobs + $data));
    return wantarray ? ($raw, undef) : $raw;
}

sub extract_vzdump_config {
    my ($cfg, $volid) = @_;

    my $archive = abs_filesystem_path($cfg, $volid);
    my $info = archive_info($archive);
    return $info->{format} eq 'tar'
        ? extract_vzdump_config_tar($archive, qr!^(\./etc/vzdump/pct\.conf)$!)
        : extract_vzdump_config_vma($archive, $info->{compression});
}

# keep-last is the only rule that this stand-in knows.
sub prune_mark_backup_group {
    my ($backup_group, $keep) = @_;

    my $left = $keep->{'keep-all'} || !$keep->{'keep-last'} ? @$backup_group : $keep->{'keep-last'};
    for my $entry (sort { $b->{ctime} <=> $a->{ctime} } @$backup_group) {
        next if $entry->{mark};
        $entry->{mark} = $left-- > 0 ? 'keep' : 'remove';
    }
    return;
}

sub prune_backups {
    my ($cfg, $storeid, $keep, $vmid, $type, $dryrun, $logfunc) = @_;

    $logfunc //= sub { print "$_[1]\n" };
    my $scfg = storage_config($cfg, $storeid);
    return PVE::Storage::Plugin->prune_backups(
        $scfg, $storeid, $keep, $vmid, $type, $dryrun,
        $logfunc
    );
}

1;
