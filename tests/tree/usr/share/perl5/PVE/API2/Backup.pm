package PVE::API2::Backup;

# A small stand-in for Proxmox VE's module of this name, written for the tests of pve-diff-backup.

use strict;
use warnings;

use PVE::Jobs;
use PVE::VZDump;

sub create_job {
    my ($id, $param) = @_;

    my $data = PVE::Jobs::read_config();
    die "Job '$id' already exists\n" if $data->{ids}->{$id};

    PVE::VZDump::verify_vzdump_parameters($param, 1);
    $data->{ids}->{$id} = {%$param};
    push @{ $data->{order} }, $id;
    PVE::Jobs::write_config($data);
    return;
}

sub delete_job {
    my ($id) = @_;

    my $jobs_data = PVE::Jobs::read_config();
    die "No such job '$id'\n" if !defined($jobs_data->{ids}->{$id});

    delete $jobs_data->{ids}->{$id};
    PVE::Jobs::remove_job($id, 'vzdump');
    PVE::Jobs::write_config($jobs_data);
    return;
}

sub update_job {
    my ($id, $param, @delete) = @_;

    my $jobs_data = PVE::Jobs::read_config();
    my $job = $jobs_data->{ids}->{$id} or die "no such vzdump job\n";

    for my $k (@delete) {
        die "unknown option '$k'\n" if !PVE::VZDump::option_exists($k);

        delete $job->{$k};
    }
    for my $k (keys %$param) {
        $job->{$k} = $param->{$k};
    }
    PVE::VZDump::verify_vzdump_parameters($job, 1);

    PVE::Jobs::write_config($jobs_data);
    return;
}

1;
