package PVE::Jobs;

# A small stand-in for Proxmox VE's module of this name, written for the tests of pve-diff-backup.
# Like the real one it reads jobs.cfg without options that it does not know, and so drops them when
# it writes.

use strict;
use warnings;

use PVE::Tools;
use PVE::VZDump::Common;

sub file {
    return PVE::Tools::root() . '/etc/pve/jobs.cfg';
}

sub read_config {
    my $known = PVE::VZDump::Common::get_confdesc();
    my ($cfg, $id) = ({ ids => {}, order => [] });
    for my $line (-e file() ? split(/\n/, PVE::Tools::file_get_contents(file())) : ()) {
        if ($line eq '') {
            undef $id;
        } elsif (!defined($id) && $line =~ /\Avzdump:\s*(\S+)\s*\z/) {
            $id = $1;
            push @{ $cfg->{order} }, $id;
            $cfg->{ids}->{$id} = {};
        } elsif (defined($id) && $line =~ /\A\s+(\S+)\s+(.*\S)\s*\z/) {
            my ($key, $value) = ($1, $2);
            if ($key eq 'schedule' || $known->{$key}) {
                $cfg->{ids}->{$id}->{$key} = $value;
            } else {
                warn "jobs.cfg: unable to parse value of '$key': unexpected property\n";
            }
        }
    }
    return $cfg;
}

sub write_config {
    my ($cfg) = @_;

    my $raw = '';
    for my $id (@{ $cfg->{order} }) {
        my $job = $cfg->{ids}->{$id} or next;
        $raw .= "vzdump: $id\n" . join('', map { "\t$_ $job->{$_}\n" } sort keys %$job) . "\n";
    }
    PVE::Tools::file_set_contents(file(), $raw);
    return;
}

# The real one removes the job's state on this node.
sub remove_job {
    my ($id, $type) = @_;

    return;
}

1;
