package PVE::VZDump::Differential::Access;

# Part of pve-diff-backup.

use strict;
use warnings;

use Exporter qw(import);
use POSIX ();

our @EXPORT_OK =
    qw(can_access drive_nodes add_bitmap remove_bitmap copy_bitmap begin_access end_access is_left release
    export_bitmap end_exports);

=head1 NAME

PVE::VZDump::Differential::Access - what a VM's QEMU knows of its disks' changes

=head1 DESCRIPTION

Dirty bitmaps, and the access to a snapshot of the disks that upstream's C<archive_external> sets up.
While there is one, QEMU makes no other backup.  An access of ours is on record in a file, and a
process of its own watches over it: if the backup is killed, that ends the access, and if both are,
the next backup of that VM or C<pve-diff-backup revert> does.

=cut

# Where Proxmox VE keeps its VMs' sockets; it is empty after a boot, as QEMU is.
our $RUN;
$RUN = '/run/qemu-server' if !defined($RUN);

# How often the watcher tries to end an access, with a second between: QEMU may be busy.
my $TRIES = 30;

# Drivers that only pass data on to what is below them.
my %PASSES_ON = (throttle => 1);

=head1 FUNCTIONS

=head2 can_access($vmid)

Whether the QEMU that runs the VM has that access; one that was started before an upgrade may not.
Dies where it does not answer.

=cut

sub can_access {
    my ($vmid) = @_;

    return _command($vmid, 'query-proxmox-support')->{'backup-access-api'};
}

sub _command {
    my ($vmid, $name, %arguments) = @_;

    require PVE::QemuServer::Monitor;
    return PVE::QemuServer::Monitor::mon_cmd($vmid, $name, %arguments);
}

=head2 drive_nodes($vmid)

The block node of each drive on which its bitmaps are, as hashes by the drive's name: C<node>, C<size>
and C<bitmaps>, by their names.  A drive with something unknown in between is left out.

=cut

sub drive_nodes {
    my ($vmid) = @_;

    my %nodes = map { $_->{'node-name'} => $_ } @{ _command($vmid, 'query-named-block-nodes') };
    my %found;
    for my $block (@{ _command($vmid, 'query-block') }) {
        my $node = $block->{inserted} or next;
        my $device = $block->{device} // '';
        my $drive = $device ne '' ? $device : $node->{'node-name'}; # before Proxmox VE 9, since
        while ($node && $PASSES_ON{ $node->{drv} }) {
            my ($file) = grep { $_->{child} eq 'file' } @{ $node->{children} || [] };
            $node = $file && $nodes{ $file->{'node-name'} };
        }
        next if !$node || ($node->{drv} // '') !~ /\A(?:raw|qcow2)\z/;
        my $bitmaps = $nodes{ $node->{'node-name'} }->{'dirty-bitmaps'} || [];
        $found{$drive} = {
            node => $node->{'node-name'},
            size => $node->{image}->{'virtual-size'},
            bitmaps => { map { $_->{name} => $_ } grep { defined($_->{name}) } @$bitmaps },
        };
    }
    return \%found;
}

=head2 add_bitmap($vmid, $node, $name, $granularity, $is_disabled), remove_bitmap($vmid, $node, $name)

Both die where QEMU does not do so.

=cut

sub add_bitmap {
    my ($vmid, $node, $name, $granularity, $is_disabled) = @_;

    _command(
        $vmid, 'block-dirty-bitmap-add',
        node => $node, name => $name, granularity => $granularity,
        $is_disabled ? (disabled => \1) : (),
    );
    return;
}

sub remove_bitmap {
    my ($vmid, $node, $name) = @_;

    _command($vmid, 'block-dirty-bitmap-remove', node => $node, name => $name);
    return;
}

=head2 copy_bitmap($vmid, $node, $from, $to, $granularity)

A bitmap that has all that another one has, and notes what changes from here on as well.

=cut

sub copy_bitmap {
    my ($vmid, $node, $from, $to, $granularity) = @_;

    add_bitmap($vmid, $node, $to, $granularity); # first, so that nothing comes between
    _command(
        $vmid, 'block-dirty-bitmap-merge', node => $node, target => $to, bitmaps => [$from],
    );
    return;
}

=head2 export_bitmap($vmid, $node, $name, $export, $socket), end_exports($vmid)

Lets a program read a bitmap that notes nothing more from then on, at that socket, which is there from
the first such call on.

=cut

sub export_bitmap {
    my ($vmid, $node, $name, $export, $socket) = @_;

    if (!-e $socket) {
        my $address = { type => 'unix', data => { path => $socket } };
        _command($vmid, 'nbd-server-start', addr => $address);
    }
    _command($vmid, 'block-dirty-bitmap-disable', node => $node, name => $name);
    _command(
        $vmid, 'block-export-add',
        id => "pve-diff-backup-$export", type => 'nbd', 'node-name' => $node, name => $export,
        bitmaps => [{ node => $node, name => $name }],
    );
    return;
}

sub end_exports {
    my ($vmid) = @_;

    _command($vmid, 'nbd-server-stop', timeout => 25);
    return;
}

=head2 begin_access($vmid, $target), end_access($vmid, $watch)

Before an access of that target ID is set up, and after it was ended.  What C<begin_access> returns
is for C<end_access>.

=cut

sub begin_access {
    my ($vmid, $target) = @_;

    my $path = _record($vmid);
    open(my $record, '>', $path) or die "cannot make '$path' - $!\n";
    print {$record} "$target $$ " . (_started($$) // 0) . "\n" or die "cannot write '$path' - $!\n";
    close($record) or die "cannot write '$path' - $!\n";

    pipe(my $worker, my $watch) or die "cannot make a pipe - $!\n";
    local $SIG{CHLD} = 'DEFAULT';
    my $pid = fork() // die "cannot start a process - $!\n";
    if (!$pid) {
        # a child of nobody, so that nobody waits for it, or counts it among the backup's
        my $second = fork();
        _watch($worker, $vmid, $target) if defined($second) && !$second;
        POSIX::_exit(defined($second) ? 0 : 1);
    }
    waitpid($pid, 0);
    die "cannot start a process\n" if $?;
    return $watch;
}

sub end_access {
    my ($vmid, $watch) = @_;

    my $is_over = !_has_access($vmid);
    unlink(_record($vmid)) if $is_over;
    syswrite($watch, '.') if $is_over;
    close($watch);
    return;
}

# Waits for the backup's end, and ends the access if that did not.  Never returns.
sub _watch {
    my ($worker, $vmid, $target) = @_;

    eval {
        local @SIG{qw(HUP INT QUIT TERM PIPE)} = ('IGNORE') x 5;
        POSIX::setsid();
        # what is open tells others that the backup is being made
        my $own = fileno($worker);
        opendir(my $dh, '/proc/self/fd') or die "$!\n";
        my @open = map { /\A([0-9]+)\z/ ? $1 : () } readdir($dh);
        closedir($dh);
        POSIX::close($_) for grep { $_ != $own } @open;
        # 0, 1 and 2 in this order, so that nothing else gets these numbers
        POSIX::open('/dev/null', POSIX::O_RDWR()) for 0 .. 2;

        my $said;
        my $count;
        do { $count = sysread($worker, $said, 1) } while (!defined($count) && $!{EINTR});
        for (1 .. $TRIES) {
            last if $count || eval { release($vmid, $target); 1 };
            sleep 1;
        }
    };
    POSIX::_exit(0);
}

=head2 is_left($vmid)

Whether an access of ours is on record whose backup is no longer there.

=cut

sub is_left {
    my ($vmid) = @_;

    my (undef, $pid, $started) = _recorded($vmid) or return;
    return !defined($pid) || (_started($pid) // 0) != $started;
}

=head2 release($vmid, $target)

Ends what a killed backup has left: what the bitmaps had noted, they keep.  The target's ID is on
record where it is not given.  Dies if it is still there then.

=cut

sub release {
    my ($vmid, $target) = @_;

    $target //= (_recorded($vmid))[0];
    require PVE::QemuServer::Helpers;
    my $is_running = PVE::QemuServer::Helpers::vm_running_locally($vmid);
    eval { end_exports($vmid) } if $is_running;
    if ($is_running && _has_access($vmid)) {
        die "'" . _record($vmid) . "' does not tell which access that was\n" if !defined($target);
        _command(
            $vmid, 'backup-access-teardown',
            'target-id' => $target, success => \0, timeout => 60,
        );
        die "the snapshot of VM $vmid is still there\n" if _has_access($vmid);
    }
    unlink(_record($vmid));
    return;
}

=head2 release_all()

The same for all VMs of this node, for C<pve-diff-backup revert>: nobody else would end it.

=cut

sub release_all {
    my @vmids =
        map { m!/([1-9][0-9]*)\.pve-diff-backup\z! ? $1 : () } glob("$RUN/*.pve-diff-backup");
    my @failed;
    for my $vmid (grep { is_left($_) } @vmids) {
        eval { release($vmid); 1 } or push @failed, "VM $vmid: $@";
    }
    die @failed if @failed;
    return;
}

# The target's ID, the process and its start of the access on record, undef for what is not readable; an
# empty list where there is none.
sub _recorded {
    my ($vmid) = @_;

    open(my $record, '<', _record($vmid)) or return;
    my $line = <$record> // '';
    close($record);
    return $line =~ /\A([\x21-\x7e]{1,255}) ([0-9]+) ([0-9]+)\n\z/
        ? ($1, $2, $3)
        : (undef, undef, undef);
}

# When a process was started, as the kernel counts; undef where there is none.
sub _started {
    my ($pid) = @_;

    open(my $fh, '<', "/proc/$pid/stat") or return;
    my $line = <$fh> // '';
    close($fh);
    return $line =~ /\A.*\) (?:\S+ ){19}([0-9]+)/s ? $1 : undef;
}

sub _record {
    my ($vmid) = @_;

    return "$RUN/$vmid.pve-diff-backup";
}

# Whether QEMU has a snapshot for somebody to read.
sub _has_access {
    my ($vmid) = @_;

    my $nodes = _command($vmid, 'query-named-block-nodes');
    return scalar(grep { ($_->{drv} // '') eq 'snapshot-access' } @$nodes);
}

1;
