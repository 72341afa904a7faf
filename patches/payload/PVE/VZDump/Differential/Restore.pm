package PVE::VZDump::Differential::Restore;

# Part of pve-diff-backup.

use strict;
use warnings;

use File::Basename qw(basename dirname);
use File::Path qw(make_path);
use File::Temp qw(tempdir);

use PVE::VZDump::Differential::Helper qw(open_decoder close_decoder probe);

=head1 NAME

PVE::VZDump::Differential::Restore - restore of differentials where upstream reads the archive itself

=head1 DESCRIPTION

All of upstream's subs that unpack an archive read standard input when they are told to restore
C<->: here that is the decoder's output.

=cut

=head1 FUNCTIONS

=head2 restore_tar_archive($archive, $rootdir, $conf, $no_unpack_error, $bwlimit)

As C<PVE::LXC::Create::restore_tar_archive>.

=head2 restore_archive($archive, $rootdir, $conf, $no_unpack_error, $bwlimit)

As C<PVE::LXC::Create::restore_archive> of releases that knew tar alone.

=cut

sub restore_tar_archive { return _restore_container('restore_tar_archive', @_) }
sub restore_archive { return _restore_container('restore_archive', @_) }

sub _restore_container {
    my ($sub, $archive, $rootdir, $conf, $no_unpack_error, @more) = @_;

    return _from_decoder(
        $archive, undef, $no_unpack_error,
        sub {
            PVE::VZDump::Differential::upstream(
                $sub, '-', $rootdir, $conf, $no_unpack_error,
                @more
            );
        },
    );
}

=head2 recover_config($archive)

As C<PVE::LXC::Create::recover_config> of releases that ask tar for the configuration: it gets an
archive that holds nothing else.

=cut

sub recover_config {
    my ($archive) = @_;

    my ($raw, $file) = PVE::VZDump::Differential::Storage::extract_vzdump_config_tar(
        $archive,
        qr!^(\./etc/vzdump/(pct|vps)\.conf)$!,
    );
    my $dir = tempdir('pve-diff-backup-XXXXXX', TMPDIR => 1, CLEANUP => 1);
    make_path(dirname("$dir/$file"));
    open(my $fh, '>', "$dir/$file") or die "cannot write '$dir/$file' - $!\n";
    print {$fh} $raw;
    close($fh) or die "cannot write '$dir/$file' - $!\n";
    PVE::Tools::run_command(['tar', '-cf', "$dir/config.tar", '-C', $dir, $file]);
    return PVE::VZDump::Differential::upstream('recover_config', "$dir/config.tar");
}

=head2 check_openvz($archive), restore_openvz($archive, $cmd)

For C<PVE::API2::OpenVZ>: as L<PVE::VZDump::Differential::Helper/probe($archive)>; runs the command that would unpack the
archive on the decoder's output.

=cut

sub check_openvz {
    my ($archive) = @_;

    return probe($archive);
}

sub restore_openvz {
    my ($archive, $cmd) = @_;

    my @from_stdin = map { $_ eq $archive ? '-' : $_ } @$cmd;
    return _from_decoder(
        $archive, undef, 0,
        sub { PVE::Tools::run_command(\@from_stdin, input => '<&STDIN') },
    );
}

=head2 restore_vma_archive($archive, $vmid, $user, $opts)

As C<PVE::QemuServer::restore_vma_archive> of releases that do not ask C<decompressor_info>.  As
there, the storage's limit for restores holds.

=cut

sub restore_vma_archive {
    my ($archive, $vmid, $user, $opts) = @_;

    return _from_decoder(
        $archive,
        scalar(_read_limit($archive, $opts->{bwlimit})),
        0,
        sub {
            PVE::VZDump::Differential::upstream('restore_vma_archive', '-', $vmid, $user, $opts);
        },
    );
}

# In KiB/s, undef without one; releases before 5.0-24 of qemu-server knew none.
sub _read_limit {
    my ($archive, $override) = @_;

    my $get_limit = PVE::Storage->can('get_bandwidth_limit') or return;
    my (undef, $volid) = PVE::Storage::path_to_volume_id(PVE::Storage::config(), $archive);
    return if !defined($volid);
    my ($storeid) = PVE::Storage::parse_volume_id($volid);
    my $limit = $get_limit->('restore', [$storeid], $override);
    return $limit ? int($limit) : undef;
}

# Runs code with the decoded stream of the differential as standard input.
sub _from_decoder {
    my ($archive, $limit, $no_unpack_error, $code) = @_;

    my $stream = open_decoder($archive, $limit);
    print "decoding differential backup '" . basename($archive) . "'\n";

    # upstream reads the file descriptor 0 when it is told to restore '-'
    my $stdin;
    if (defined(fileno(STDIN))) {
        open($stdin, '<&', \*STDIN) or die "cannot save standard input - $!\n";
    }
    open(STDIN, '<&', $stream) or die "cannot redirect standard input - $!\n";
    my $ok = eval { $code->(); 1 };
    my $err = $@;
    close(STDIN);
    if ($stdin) {
        open(STDIN, '<&', $stdin) or die "cannot restore standard input - $!\n";
        close($stdin);
    }

    # both may have failed; the decoder's reason is the better one unless it only lost its reader
    eval { close_decoder($stream, $archive) };
    if (my $decoder_err = $@) {
        die $decoder_err if !$no_unpack_error && ($ok || $decoder_err !~ /signal 13$/);
        warn $decoder_err;
    }
    die $err if !$ok;
    return;
}

1;
