package PVE::LXC::Create;

# A small stand-in for Proxmox VE 5's module of this name, written for the tests of pve-diff-backup.

use strict;
use warnings;

use PVE::Storage;
use PVE::Tools;

sub restore_archive {
    my ($archive, $rootdir, $conf, $no_unpack_error, $bwlimit) = @_;

    my $tar_input = '<&STDIN';
    my @option;
    my $fh;
    if ($archive ne '-') {
        my %option = ('' => undef, '.gz' => '-z', '.lzo' => '--lzop');
        $archive =~ /\.tar(|\.[^.]+)\z/
            or die "file does not look like a template archive: $archive\n";
        @option = grep { defined } $option{$1};
        open($fh, '<', $archive) or die "failed to open '$archive': $!\n";
        $tar_input = '<&' . fileno($fh);
    }
    my $cmd = ['tar', 'xpf', '-', @option, @PVE::Storage::Plugin::COMMON_TAR_FLAGS, '-C', $rootdir];
    eval { PVE::Tools::run_command($cmd, input => $tar_input) };
    my $err = $@;
    close($fh) if $fh;
    die $err if $err && !$no_unpack_error;
    return;
}

1;
