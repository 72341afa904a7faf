package PVE::QemuServer;

# A small stand-in for Proxmox VE's module of this name, written for the tests of pve-diff-backup:
# a restored VM is the plain VMA stream in a file.

use strict;
use warnings;

use PVE::Storage;
use PVE::Tools;

sub restore_file_archive {
    my ($archive, $target, $opts) = @_;

    my $info = PVE::Storage::archive_info($archive);
    return restore_vma_archive($archive, $target, $opts, $info->{compression});
}

sub restore_vma_archive {
    my ($archive, $target, $opts, $comp) = @_;

    my @commands;
    my $readfrom = $archive;
    if ($opts->{bwlimit}) {
        push @commands, ['cstream', '-t', $opts->{bwlimit} * 1024, '--', $readfrom];
        $readfrom = '-';
    }
    if ($comp) {
        my $info = PVE::Storage::decompressor_info('vma', $comp);
        push @commands, [@{ $info->{decompressor} }, $readfrom];
        $readfrom = '-';
    }
    push @commands, ['cat', $readfrom, \('>' . PVE::Tools::shellquote($target))];
    PVE::Tools::run_command(\@commands);
    return;
}

1;
