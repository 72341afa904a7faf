package PVE::VZDump::QemuServer;

# A small stand-in for Proxmox VE's module of this name, written for the tests of pve-diff-backup:
# the stream that QEMU would send comes from the file that the guest's configuration names
# ("stream: FILE").

use strict;
use warnings;

use POSIX ();

use PVE::Tools;

sub type { return 'qemu' }

sub config_file {
    my ($class, $vmid) = @_;

    return PVE::Tools::root() . "/etc/pve/qemu-server/$vmid.conf";
}

sub _stream {
    my ($class, $vmid) = @_;

    my $path = $class->config_file($vmid);
    open(my $fh, '<', $path) or die "cannot open '$path' - $!\n";
    my ($stream) = map { /\Astream: (\/.+)\n?\z/ ? $1 : () } <$fh>;
    close($fh);
    open(my $data, '<', $stream // die "'$path' names no stream\n")
        or die "cannot open '$stream' - $!\n";
    return $data;
}

# The compressor is forked with the archive as standard output; only its exit status tells of
# failure.
sub archive {
    my ($self, $task, $vmid, $filename, $comp) = @_;

    my $opts = $self->{vzdump}->{opts};
    my $stream = $self->_stream($vmid);
    my $out = $opts->{stdout};
    if (!$out) {
        open($out, '>', $filename) or die "unable to open file '$filename' - $!\n";
    }
    $comp //= 'cat';
    my $cpid = fork() // die "unable to fork worker - $!\n";
    if (!$cpid) {
        open(STDIN, '<&', $stream) or POSIX::_exit(1);
        open(STDOUT, '>&', $out) or POSIX::_exit(1);
        exec($comp) or POSIX::_exit(1);
    }
    waitpid($cpid, 0);
    my ($code, $signal) = ($? >> 8, $? & 127);
    die "$comp failed - wrong exit status $code" . ($signal ? " (signal $signal)\n" : "\n")
        if $code || $signal;
    return;
}

# Proxmox VE 8.4 has it; here no VM runs, of which it would be asked.
sub archive_external {
    die "there is no QEMU here\n";
}

1;
