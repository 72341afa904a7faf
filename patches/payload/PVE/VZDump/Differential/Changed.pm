package PVE::VZDump::Differential::Changed;

# Part of pve-diff-backup.

use strict;
use warnings;

use Digest::SHA ();
use Fcntl qw(SEEK_SET);
use File::Basename qw(basename);

use PVE::VZDump::Differential::Access
    qw(can_access drive_nodes add_bitmap remove_bitmap begin_access
    end_access is_left release);
use PVE::VZDump::Differential::Audit qw(keep_notes audit);
use PVE::VZDump::Differential::Chain qw(parse_name encode_path format_size percent shown);
use PVE::VZDump::Differential::Helper qw(settings backup_files run_into);

=head1 NAME

PVE::VZDump::Differential::Changed - differentials of running VMs that read only what changed

=head1 DESCRIPTION

QEMU notes in a dirty bitmap what a guest writes.  A differential can be made of that, the differential
before it and the full they share: C<pve-xdelta3 compose>.  Upstream's C<archive_external>, meant for
backup providers, sets up a snapshot of the disks to read from; here its provider is this module.

A bitmap alone does not say since when it counts, so a I<marker> lies beside it: an empty bitmap that
never changes, whose name holds a digest of the backup that the bitmap counts from.  It comes and goes
with the bitmap, in live migrations and in snapshots with RAM too.  The rule:

=over

=item * A bitmap is laid before a backup that reads all begins: it has all that changed after the
backup's instant, and may have more.

=item * Markers are removed before the bitmaps are cleared, and laid when the backup has its name.

=item * Only what is in the bitmaps is read if each disk has one that notes what is written, beside a
marker of the newest backup, a file that is as it was.  All is read otherwise.

=back

So nothing has to be kept on disk, and whatever happens in between leaves no marker, or one that is
not the newest backup's.

=cut

# QEMU's own choice would be 4 MiB; what is read and compared here are clusters of this size.
my $GRANULARITY = 64 << 10;

# A marker has nothing to note.
my $COARSE = 1 << 30;

# Migration does not know longer names.
my $MAX_NAME = 255;

# How much of a backup's end tells it from others: there are the checksums.
my $TAIL = 64 << 10;

# Storages that store only what is written.
my %THIN = map { $_ => 1 } qw(btrfs dir lvmthin rbd);

# The exit status of the helper where nothing is wrong, except that all must be read.
my $READ_ALL = 3;

=head1 FUNCTIONS

=head2 concerns($self, $task, $vmid)

Whether a call of C<PVE::VZDump::QemuServer::archive> is for us.

=cut

sub concerns {
    my ($self, $task, $vmid) = @_;

    return PVE::VZDump::Differential::planned($task) || is_left($vmid);
}

=head2 archive($self, $task, $vmid, $filename, $comp)

Makes a backup as upstream's sub of this name does, and reads no more than is needed.

=cut

sub archive {
    my ($self, $task, $vmid, $filename, $comp) = @_;

    if (is_left($vmid)) {
        $self->loginfo('ending what a killed backup left in QEMU');
        eval { release($vmid); 1 } or $self->log('warn', "that failed: $@");
    }
    my $stock = sub {
        PVE::VZDump::Differential::upstream('archive', $self, $task, $vmid, $filename, $comp);
    };
    my $plan = PVE::VZDump::Differential::planned($task) or return $stock->();
    my $storage = $self->{vzdump}->{opts}->{storage};
    my ($settings) = settings($storage);
    my $switch = $settings->{'changed-blocks'};
    return $stock->() if $switch eq 'off' || !@{ $task->{disks} };

    my $job = { vzdump => $self, task => $task, vmid => $vmid, plan => $plan, storage => $storage };
    my $why = _certainly(sub { _obstacle($job, $switch) });
    my $is_odd = $job->{is_odd};
    if (!defined($why)) {
        $why = $plan->{base} ? _certainly(sub { _doubt($job, $settings) }) : '';
        if (!defined($why)) {
            return if eval { _read_changed($job, $filename); 1 };
            my $err = $@;
            die $err
                if $err =~ /^interrupted by signal/
                || !PVE::QemuServer::Helpers::vm_running_locally($vmid);
            chomp $err;
            ($why, $is_odd) = ("reading only what changed failed ($err)", !$job->{is_unfit});
            # so that the backup is of the same instant as it would have been
            eval { $self->suspend_vm($task, $vmid) } if ($task->{mode} // '') eq 'suspend';
        }
        if ($job->{is_audit}) {
            eval { keep_notes($job, _bitmap_name($job), $GRANULARITY); 1 }
                or $self->log('warn', "audit: cannot be made: $@");
        }
        eval { _note_changes($job); 1 }
            or $self->log('warn', "what changes from now on cannot be noted: $@");
    }
    # a full reads all, and has said why
    $self->log($is_odd ? 'warn' : 'info', "everything is read: $why") if $plan->{base};
    $stock->();
    # QEMU is asked again once it was started anew
    delete $plan->{noted} if $job->{kept} && !audit($job, _bitmap_name($job), $filename);
    return;
}

# What the sub answers, or what it died of.
sub _certainly {
    my ($sub) = @_;

    my ($answer, $is_done);
    {
        local $@;
        $is_done = eval { $answer = $sub->(); 1 };
        $answer = $@ if !$is_done;
    }
    return $answer if $is_done;
    die $answer if $answer =~ /^interrupted by signal/;
    chomp $answer;
    return "what changed cannot be asked for ($answer)";
}

# Why what changed is not noted for this job, and what would change that; undef if it can be.
sub _obstacle {
    my ($job, $switch) = @_;

    my ($self, $task, $vmid) = @$job{qw(vzdump task vmid)};
    my $opts = $self->{vzdump}->{opts};
    return 'the backup goes to a folder (give a storage, which can be that folder)'
        if !defined($job->{storage});
    return 'a template does not run, so that nothing notes what changes (it changes but rarely)'
        if PVE::QemuConfig->is_template($self->{vmlist}->{$vmid});
    return "mode 'stop' ends QEMU, and with it what it noted (take mode 'snapshot')"
        if ($task->{mode} // '') eq 'stop' && $self->{vm_was_running};
    return 'the VM does not run, so that nothing notes what changes (back it up while it runs)'
        if !PVE::QemuServer::Helpers::vm_running_locally($vmid);
    return
          'the backup is not compressed with zstd, and only then it tells where its data lies (set'
        . ' compression to ZSTD)'
        if $job->{plan}->{extension} !~ /\.zst\z/;
    my $fleecing = _fleecing($job, $switch);
    return 'the job has no fleecing (switch it on in the job, under Advanced'
        . ($switch eq 'auto' ? ': no storage of these disks is thin)' : ')')
        if !$fleecing;
    return 'the QEMU that runs this VM is too old for it (stop and start the VM, or migrate it)'
        if !can_access($vmid);
    return
        'the name of the storage is too long (255 characters are the limit of what QEMU can note)'
        if length(_bitmap_name($job)) > $MAX_NAME
        || length(_marker($job, 999, '0' x 64)) > $MAX_NAME;

    my $nodes = drive_nodes($vmid);
    $job->{fleecing} = $fleecing;
    $job->{drives} = { map { $_ => $nodes->{$_} } _noting($task) };
    for my $drive (sort keys %{ $job->{drives} }) {
        return
              "QEMU does not tell where it notes what changes of $drive (stop and start the VM, or"
            . ' update Proxmox VE)'
            if !$job->{drives}->{$drive};
    }
    return;
}

# The names of the disks that have bitmaps; a TPM's state, of a few MiB, is read as a whole.
sub _noting {
    my ($task) = @_;

    return map { $_->{qmdevice} } grep { $_->{virtdev} !~ /\Atpmstate/ } @{ $task->{disks} };
}

# The job's fleecing, or ours where it has none and what is set allows that; undef otherwise.
sub _fleecing {
    my ($job, $switch) = @_;

    my ($self, $task) = @$job{qw(vzdump task)};
    my $own = $self->{vzdump}->{opts}->{fleecing};
    return $own if $own && $own->{enabled};
    return if $switch ne 'auto';
    for my $id (grep { defined } map { $_->{storeid} } @{ $task->{disks} }) {
        my $storage = PVE::Storage::storage_config($self->{storecfg}, $id, 1) or next;
        my $is_thin =
            $THIN{ $storage->{type} } || $storage->{type} eq 'zfspool' && $storage->{sparse};
        return { enabled => 1, storage => $id } if $is_thin && $storage->{content}->{images};
    }
    return;
}

# Not one that another program would use: no name of a storage holds a colon.
sub _target {
    my ($job) = @_;

    return "pve-diff-backup:$job->{storage}";
}

sub _bitmap_name {
    my ($job) = @_;

    return 'snapshot-access:' . _target($job); # upstream calls it so
}

# A marker's name: how many backups in a row have read only what changed, and the digest of the last.
sub _marker {
    my ($job, $count, $digest) = @_;

    return "pdb:$job->{storage}:$count:$digest";
}

# Why it is not certain that the bitmaps have all that changed since the newest backup, and what
# would change that; undef if it is.
sub _doubt {
    my ($job, $settings) = @_;

    my ($plan, $drives) = @$job{qw(plan drives)};
    my ($newest, $obstacle) = _newest($plan, $job->{vmid});
    return $obstacle if defined($obstacle);
    my $next = 'the next backup can read only what changed';
    my %counts;
    for my $drive (sort keys %$drives) {
        my $bitmaps = $drives->{$drive}->{bitmaps};
        my $bitmap = $bitmaps->{ _bitmap_name($job) };
        return
            "what changed of $drive was not noted since the last backup, as the VM was started, or the"
            . " disk attached or moved, since ($next)"
            if !$bitmap;
        return "what changed of $drive was not noted as it should be ($next)"
            if !$bitmap->{recording}
            || $bitmap->{busy}
            || $bitmap->{inconsistent}
            || $bitmap->{granularity} != $GRANULARITY;
        my @markers = _markers($job, $bitmaps);
        my ($count, $digest) = @markers == 1 ? @{ $markers[0] }{qw(count digest)} : ();
        return "what was noted of $drive does not count from the newest backup, '$newest' ($next)"
            if ($digest // '') ne _digest($job->{storage}, "$plan->{dir}/$newest");
        $counts{$count} = 1;
        $drives->{$drive}->{noted} = $bitmap->{count};
    }
    return "the disks' notes are not of the same backup ($next)" if keys(%counts) != 1;
    my ($count) = keys %counts;
    my $limit = $settings->{'changed-blocks-audit'};
    @$job{qw(previous count)} = ($newest, $count + 1);
    return if $limit eq 'off' || $count < $limit;
    $job->{is_audit} = 1;
    return
        "$count backups in a row read only what changed (changed-blocks-audit in pve-diff-backup(1))";
}

# The name of the guest's newest backup, or undef and why nothing can be made of it.
sub _newest {
    my ($plan, $vmid) = @_;

    my %files;
    for my $file (backup_files($plan->{dir})) {
        my $info = parse_name($file->{name}) or next;
        next if $info->{type} ne 'qemu' || $info->{vmid} != $vmid;
        $files{ $info->{name} } = { %$info, file => $file };
    }
    my ($newest, $second) = sort { $b->{ctime} <=> $a->{ctime} } values %files;
    return (undef, 'there is no backup') if !$newest;
    my $name = $newest->{name};
    return (undef, "'$name' is as old as '$second->{name}'")
        if $second && $second->{ctime} == $newest->{ctime};
    return (undef, "'$name' cannot be read")
        if $newest->{file}->{odd} || !$newest->{file}->{readable};
    return (undef, "'$name' is dated in the future") if $newest->{ctime} >= time();
    return (undef, "'$name' was found damaged") if -e "$plan->{dir}/$name.damaged";
    return (undef, "the newest backup, '$name', does not need '$plan->{base}'")
        if ($newest->{base} // $name) ne $plan->{base};
    return $name;
}

# What tells a file from all others: its name, its length, its end.
sub _digest {
    my ($storage, $path) = @_;

    open(my $fh, '<:raw', $path) or die "cannot open '" . shown($path) . "' - $!\n";
    my $size = -s $fh // 0;
    my $length = $size < $TAIL ? $size : $TAIL;
    sysseek($fh, $size - $length, SEEK_SET) or die "cannot read '" . shown($path) . "' - $!\n";
    my $tail = '';
    while (length($tail) < $length) {
        my $count = sysread($fh, $tail, $length - length($tail), length($tail));
        die "cannot read '"
            . shown($path) . "' - "
            . (defined($count) ? 'it has shrunk' : $!) . "\n"
            if !$count;
    }
    close($fh);
    return Digest::SHA::sha256_hex(join("\0", $storage, basename($path), $size, $tail));
}

# The markers among a disk's bitmaps, those for this storage: C<name>, C<count>, C<digest>.  One that is
# not as we lay it has neither count nor digest.
sub _markers {
    my ($job, $bitmaps) = @_;

    my @markers;
    for my $name (grep { /\Apdb:\Q$job->{storage}\E:/ } sort keys %$bitmaps) {
        my ($count, $digest) = $name =~ /:([0-9]{1,3}):([0-9a-f]{64})\z/;
        my $is_ours = !$bitmaps->{$name}->{recording} && !$bitmaps->{$name}->{count};
        push @markers, { name => $name, $is_ours ? (count => $count, digest => $digest) : () };
    }
    return @markers;
}

# Begins to note what changes, before a backup that reads all.
sub _note_changes {
    my ($job) = @_;

    my $nodes = drive_nodes($job->{vmid});
    my $name = _bitmap_name($job);
    for my $drive (_noting($job->{task})) {
        my $found = $nodes->{$drive}
            or die "QEMU does not tell where it notes what changes of $drive\n";
        my ($node, $bitmaps) = @$found{qw(node bitmaps)};
        my @old = map { $_->{name} } _markers($job, $bitmaps);
        push @old, $name if $bitmaps->{$name};
        push @old, grep { $_ eq "pdb-audit:$job->{storage}" } $job->{kept} ? () : keys %$bitmaps;
        remove_bitmap($job->{vmid}, $node, $_) for @old;
        add_bitmap($job->{vmid}, $node, $name, $GRANULARITY);
    }
    $job->{plan}->{noted} = { %$job, count => 0 };
    return;
}

# Makes the differential of what was noted; dies where all must be read after all.
sub _read_changed {
    my ($job, $filename) = @_;

    my ($self, $task, $vmid) = @$job{qw(vzdump task vmid)};
    my $opts = $self->{vzdump}->{opts};
    $self->loginfo("reading only what changed since '$job->{previous}'");
    my $provider = bless { %$job, filename => $filename }, __PACKAGE__;
    my $watch = begin_access($vmid, _bitmap_name($job));
    my $is_done = eval {
        local $self->{vzdump}->{'backup-provider'} = $provider;
        local $opts->{storage} = _target($job);
        local $opts->{fleecing} = $job->{fleecing};
        $self->archive_external($task, $vmid);
        1;
    };
    my $err = $@;

    # as upstream would at the end of the task, and now, so that QEMU is free again
    eval { $self->cleanup($task, $vmid); 1 } or $self->log('warn', "cannot clean up - $@");
    delete @$task{qw(cleanup use-fleecing backup-access-root-dir)};
    delete $_->{'fleece-volid'} for @{ $task->{disks} };
    delete $self->{qmeventd_fh};
    eval { end_access($vmid, $watch); 1 } or $self->log('warn', "cannot end the access - $@");
    if (!$is_done) {
        $job->{is_unfit} = $provider->{is_unfit};
        die $err;
    }
    $job->{plan}->{noted} = $job;
    return;
}

=head2 backup_made($plan, $path)

Called when a backup has its name: lays the markers, so that the next one can read only what changes
from here on.

=cut

sub backup_made {
    my ($plan, $path) = @_;

    my $job = delete $plan->{noted} or return;
    my $marker = _marker($job, $job->{count}, _digest($job->{storage}, $path));
    my ($nodes, $name) = (drive_nodes($job->{vmid}), _bitmap_name($job));
    for my $drive (_noting($job->{task})) {
        my $found = $nodes->{$drive};
        die "$drive is not what it was\n" if !$found || !$found->{bitmaps}->{$name};
        add_bitmap($job->{vmid}, $found->{node}, $marker, $COARSE, 1);
    }
    return;
}

=head1 AS A BACKUP PROVIDER

What C<archive_external> asks for.

=cut

sub provider_name { return 'pve-diff-backup' }
sub backup_get_mechanism { return 'nbd' }

sub backup_vm_query_incremental {
    my ($provider, $vmid, $volumes) = @_;

    return { map { $_ => $provider->{drives}->{$_} ? 'use' : 'none' } keys %$volumes };
}

sub backup_vm {
    my ($provider, $vmid, $config, $volumes, $info) = @_;

    my ($self, $task, $plan) = @$provider{qw(vzdump task plan)};
    my $name = _bitmap_name($provider);
    my @disks;
    for my $drive (map { $_->{qmdevice} } @{ $task->{disks} }) {
        my $volume = $volumes->{$drive} or die "there is no snapshot of $drive\n";
        my $is_noted = $provider->{drives}->{$drive};
        die "what was noted of $drive is not there any more\n"
            if $is_noted
            && ($volume->{'bitmap-mode'} ne 'reuse' || ($volume->{'bitmap-name'} // '') ne $name);
        my $uri = "nbd+unix:///$drive?socket=$volume->{'nbd-path'}";
        push @disks, '--disk', $drive, $uri, $is_noted ? $name : '-';
    }

    my $report = "$task->{tmpdir}/pve-diff-backup.changed";
    my @cmd =
        ($PVE::VZDump::Differential::Helper::HELPER, 'compose', '--quiet', '--compress', 'zstd');
    push @cmd, '--threads', $1 if $plan->{comp} =~ / --threads ([0-9]+)/;
    push @cmd, '--stored-base=' . encode_path("$plan->{dir}/$plan->{base}"), '--id', $plan->{id};
    push @cmd, '--previous', encode_path("$plan->{dir}/$provider->{previous}")
        if $provider->{previous} ne $plan->{base};
    push @cmd, '--bandwidth', int($info->{'bandwidth-limit'}) if $info->{'bandwidth-limit'};
    push @cmd, map { ('--config', $_) } grep { -e $_ }
        map { "$task->{tmpdir}/qemu-server.$_" } qw(conf fw);
    push @cmd, '--report', encode_path($report), @disks;
    my ($status, $said) = run_into($provider->{filename}, @cmd);
    $provider->{is_unfit} = $status == $READ_ALL;
    die "$said\n" if $status;
    _tell($provider, $report);

    # from here on the bitmaps count from a backup that is not there yet
    # (on the nodes as they were found: while there is a snapshot, others are in front of them)
    for my $drive (sort keys %{ $provider->{drives} }) {
        my ($node, $bitmaps) = @{ $provider->{drives}->{$drive} }{qw(node bitmaps)};
        remove_bitmap($vmid, $node, $_->{name}) for _markers($provider, $bitmaps);
    }
    return;
}

# Says how much was read of each disk, and of all.
sub _tell {
    my ($provider, $path) = @_;

    open(my $fh, '<', $path) or return;
    my @lines = <$fh>;
    close($fh);
    my ($read, $seconds, $new) =
        shift(@lines) =~ /\Aread=([0-9]+) seconds=([0-9]+\.[0-9]+) new=([0-9]+)\n\z/
        or return;
    my $all = 0;
    for my $line (@lines) {
        my ($of_it, $size, $drive) = $line =~ /\Aread=([0-9]+) size=([0-9]+) (\S+)\n\z/ or next;
        my $noted = ($provider->{drives}->{$drive} || {})->{noted};
        $all += $size;
        $provider->{vzdump}->loginfo("changed blocks: $drive: "
                . format_size($of_it) . ' of '
                . format_size($size) . ' read'
                . (defined($noted) ? ', ' . format_size($noted) . ' noted as changed' : ''));
    }
    $provider->{vzdump}->loginfo('changed blocks: '
            . format_size($read) . ' of '
            . format_size($all)
            . ' read ('
            . percent($read, $all) . '), '
            . format_size($new)
            . ' changed since the full backup'
            . ($seconds > 0 ? ', at ' . format_size(int($read / $seconds)) . '/s' : ''));
    return;
}

1;
