package PVE::QemuServer;

# A small stand-in for Proxmox VE 5's module of this name, written for the tests of pve-diff-backup:
# a restored VM is the plain VMA stream in a file.

use strict;
use warnings;

use PVE::Storage;
use PVE::Tools;

sub restore_archive {
    my ($archive, $vmid, $user, $opts) = @_;

    my $comp = $archive =~ m/\.vma\.gz$/ ? 'gzip' : $archive =~ m/\.vma\.lzo$/ ? 'lzop' : undef;
    return restore_vma_archive($archive, $vmid, $user, $opts, $comp);
}

sub restore_vma_archive {
    my ($archive, $vmid, $user, $opts, $comp) = @_;

    my $readfrom = $archive;
    my $input = $archive eq '-' ? '<&STDIN' : undef;
    my @commands;
    if ($comp) {
        push @commands, [$comp, '-d', '-c', $readfrom];
        $readfrom = '-';
    }
    my $target = PVE::Tools::root() . "/guests/$vmid.restored";
    push @commands, ['cat', $readfrom, \('>' . PVE::Tools::shellquote($target))];
    PVE::Tools::run_command(\@commands, input => $input);
    return;
}

1;
