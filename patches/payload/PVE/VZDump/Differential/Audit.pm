package PVE::VZDump::Differential::Audit;

# Part of pve-diff-backup.

use strict;
use warnings;

use Exporter qw(import);

use PVE::VZDump::Differential::Access qw(remove_bitmap copy_bitmap begin_access end_access
    export_bitmap end_exports);
use PVE::VZDump::Differential::Chain qw(encode_path);
use PVE::VZDump::Differential::Helper qw(run_into);

our @EXPORT_OK = qw(keep_notes audit);

=head1 NAME

PVE::VZDump::Differential::Audit - whether QEMU noted all that changed

=head1 DESCRIPTION

Now and then a backup reads all although it is certain what changed.  It is compared with the one
before it: where nothing is noted as changed, the two must be equal.  A job is what
L<PVE::VZDump::Differential::Changed> knows of a backup.

=cut

# The exit status of the helper where they are not.
my $MISSED = 5;

# Where the helper finds what was noted.
our $RUN;
$RUN = '/run/qemu-server' if !defined($RUN);

=head1 FUNCTIONS

=head2 keep_notes($job, $bitmap, $granularity)

Before the backup: keeps what is in each disk's bitmap of that name, to compare.

=cut

sub keep_notes {
    my ($job, $bitmap, $granularity) = @_;

    my $copy = _copy($job);
    for my $found (values %{ $job->{drives} }) {
        my ($node, $bitmaps) = @$found{qw(node bitmaps)};
        remove_bitmap($job->{vmid}, $node, $copy) if $bitmaps->{$copy};
        copy_bitmap($job->{vmid}, $node, $bitmap, $copy, $granularity);
    }
    $job->{kept} = 1;
    return;
}

sub _copy {
    my ($job) = @_;

    return "pdb-audit:$job->{storage}";
}

=head2 audit($job, $target, $filename)

After the backup, which is in that file: compares, and says what comes of it.  False where QEMU did not
note all that changed.

=cut

sub audit {
    my ($job, $target, $filename) = @_;

    my ($self, $vmid) = @$job{qw(vzdump vmid)};
    my ($watch, $status, $said);
    my $is_done = eval {
        $watch = begin_access($vmid, $target);
        ($status, $said) = _compare($job, $filename);
        1;
    };
    my $err = $@;
    eval { end_exports($vmid) };
    for my $found (values %{ $job->{drives} }) {
        eval { remove_bitmap($vmid, $found->{node}, _copy($job)) };
    }
    eval { end_access($vmid, $watch) } if $watch;
    if (!$is_done) {
        die $err if $err =~ /^interrupted by signal/;
        chomp $err;
        $self->log('warn', "audit: cannot compare: $err");
    } elsif ($status == $MISSED) {
        $self->log(
            'warn',
            "audit: QEMU did not note all that changed ($said): differentials of this"
                . ' guest may be wrong, back to the last one that read everything; this one has read'
                . ' everything, too, and is right'
        );
        return 0;
    } elsif ($status) {
        $self->log('warn', "audit: cannot compare: $said");
    } else {
        $self->loginfo('audit: nothing changed that was not noted');
    }
    return 1;
}

# What the helper finds: its exit status, and what it says.
sub _compare {
    my ($job, $filename) = @_;

    my ($vmid, $plan) = @$job{qw(vmid plan)};
    my $socket = "$RUN/$vmid.pve-diff-backup.nbd";
    unlink($socket);
    my @disks;
    for my $drive (sort keys %{ $job->{drives} }) {
        export_bitmap($vmid, $job->{drives}->{$drive}->{node}, _copy($job), $drive, $socket);
        push @disks, '--disk', $drive, "nbd+unix:///$drive?socket=$socket", _copy($job);
    }
    my @result = run_into(
        undef, $PVE::VZDump::Differential::Helper::HELPER, 'audit',
        '--base', encode_path("$plan->{dir}/$plan->{base}"), @disks,
        map { encode_path($_) } "$plan->{dir}/$job->{previous}", $filename,
    );
    unlink($socket);
    return @result;
}

1;
