package PVE::VZDump::LXC;

# A small stand-in for Proxmox VE's module of this name, written for the tests of pve-diff-backup:
# a container is the folder /var/lib/lxc/ID/rootfs.

use strict;
use warnings;

use File::Copy ();
use File::Path ();

use PVE::Storage;
use PVE::Tools;

sub type { return 'lxc' }

sub config_file {
    my ($class, $vmid) = @_;

    return PVE::Tools::root() . "/etc/pve/lxc/$vmid.conf";
}

sub archive {
    my ($self, $task, $vmid, $filename, $comp) = @_;

    my $opts = $self->{vzdump}->{opts};
    my $tmpdir = $task->{tmpdir};
    File::Path::make_path("$tmpdir/etc/vzdump");
    File::Copy::copy($self->config_file($vmid), "$tmpdir/etc/vzdump/pct.conf")
        or die "cannot copy the configuration - $!\n";

    my $tar = ['tar', 'cpf', '-', @PVE::Storage::Plugin::COMMON_TAR_FLAGS];
    push @$tar, "--directory=$tmpdir", './etc/vzdump/pct.conf';
    push @$tar, '--directory=' . PVE::Tools::root() . "/var/lib/lxc/$vmid/rootfs", './';

    my $cmd = [$tar];
    push @$cmd, [split(/\s+/, $comp)] if $comp;
    if ($opts->{stdout}) {
        return PVE::Tools::run_command($cmd, output => '>&' . fileno($opts->{stdout}));
    }
    push @{ $cmd->[-1] }, \('>' . PVE::Tools::shellquote($filename));
    return PVE::Tools::run_command($cmd);
}

1;
