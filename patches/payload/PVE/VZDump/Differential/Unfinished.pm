package PVE::VZDump::Differential::Unfinished;

# Part of pve-diff-backup.

use strict;
use warnings;

use Digest::MD5 qw(md5_hex);
use Errno qw(EEXIST ENOENT ESRCH);
use Exporter qw(import);
use Fcntl qw(O_CREAT O_EXCL O_NOFOLLOW O_NONBLOCK O_RDONLY O_WRONLY);
use File::Basename qw(basename);
use POSIX ();

use PVE::VZDump::Differential::Chain qw(parse_folder parse_unfinished);

our @EXPORT_OK = qw(claim mark_folder forget_folder left_folders names_in unfinished_name states);

=head1 NAME

PVE::VZDump::Differential::Unfinished - files of backups that are being made, and what killed ones left

=head1 DESCRIPTION

vzdump writes a backup into a file that ends in C<.dat> and renames it at the end. The name of ours
also says who writes it: a node's name, and the start of a hash of its machine ID.

    vzdump-qemu-101-2026_11_21-01_00_00.vma.pve1-0badcafe.dat
    FULL--differential-2026_11_22-01_00_00.vcdiff.pve1-0badcafe.dat

The file is there from the plan of a backup to its end, so that everybody sees that its full is in
use. It counts while a process of that node has it open for writing, which ends with the process.
Locks would not do: a network file system may not know them or hang, and with CIFS a lock of one
process keeps the others from writing. What another node writes cannot be known here, so it counts.

vzdump also makes a folder for each backup, where it keeps the guest's configuration. A file of ours in it
holds the name of the unfinished file, so that the folder counts as long as that does. (A file in the folder
that is held open would not do: over NFS the folder could not be removed while it is.)

F<src/backup/unfinished.rs> has the same rule for the Rust side.

=cut

# Where a node's identity is found: for good, and until the next boot.
my @IDENTITIES = ('/etc/machine-id', '/proc/sys/kernel/random/boot_id');

# The file in a backup's folder that says for which unfinished file the folder is there.
my $MARK = 'pve-diff-backup.unfinished';

=head1 FUNCTIONS

=head2 unfinished_name($stem)

The name of the file for a backup that this node makes.

=cut

sub unfinished_name {
    my ($stem) = @_;

    return "$stem." . _node() . '.dat';
}

=head2 claim($path)

Makes the file and returns a handle that must be kept until the backup has its name; undef where
there is such a file.

=cut

sub claim {
    my ($path) = @_;

    my $fh;
    return $fh if sysopen($fh, $path, O_WRONLY | O_CREAT | O_EXCL);
    return if $! == EEXIST;
    die "cannot make '$path' - $!\n";
}

=head2 mark_folder($folder, $file)

Notes in a folder for which unfinished file it is there. Without the note nobody but an administrator removes
it, so what goes wrong here costs no backup.

=cut

sub mark_folder {
    my ($folder, $file) = @_;

    return if -l $folder || !-d _;
    my $path = "$folder/$MARK";
    my $fh;
    if (!sysopen($fh, $path, O_WRONLY | O_CREAT | O_EXCL)) {
        # a second job works in the same folder: whose end is the folder's is not known
        unlink($path) if $! == EEXIST;
        return;
    }
    my $is_written = syswrite($fh, basename($file) . "\n");
    my $is_closed = close($fh);
    unlink($path) if !$is_written || !$is_closed;
    return;
}

=head2 forget_folder($folder)

Removes the note, before the unfinished file gets its name.

=cut

sub forget_folder {
    my ($folder) = @_;

    unlink("$folder/$MARK") if !-l $folder && -d _;
    return;
}

=head2 left_folders($type, $vmid, $present, @parents)

The folders of a guest's backups that killed jobs have left, as a list of a path and a state: C<left>, or
C<unknown> where nothing proves that. C<$present>, the folder of this very job, is not among them.

=cut

sub left_folders {
    my ($type, $vmid, $present, @parents) = @_;

    $present =~ s!/+\z!!;
    my (%file, @found);
    for my $parent (@parents) {
        opendir(my $dh, $parent) or next;
        my $names = names_in($dh) || [];
        closedir($dh);
        for my $name (sort @$names) {
            my $info = parse_folder($name) or next;
            next if $info->{vmid} != $vmid || ($info->{type} // $type) ne $type;
            my $path = "$parent/$info->{name}";
            my @stat = lstat($path);
            next if !-d _ || $path eq $present;

            # where all users may write, no more than our own says anything
            my $is_ours = defined($info->{type}) || $stat[4] == $>;
            my $marked = $is_ours ? _marked($path) : undef;
            my $is_guests = $marked && $marked->{type} eq $type && $marked->{vmid} == $vmid;
            next if !$is_guests && !defined($info->{type}); # not known whose it is
            $file{$path} = $marked->{name} if $is_guests;
            push @found, $path;
        }
    }
    my %states = states(values(%file));
    my @told;
    for my $path (@found) {
        my $state = $file{$path} ? $states{ $file{$path} } : 'unknown';
        push @told, [$path, $state] if $state ne 'written';
    }
    return @told;
}

# What the note in a folder says, as parse_unfinished does.
sub _marked {
    my ($folder) = @_;

    sysopen(my $fh, "$folder/$MARK", O_RDONLY | O_NOFOLLOW | O_NONBLOCK) or return;
    sysread($fh, my $text, 1000) or return;
    close($fh);
    chomp $text;
    return parse_unfinished($text);
}

=head2 names_in($handle)

The names in an opened folder; undef, and C<$!>, where they cannot be read to their end.  Half of a
list would look like a folder in which the other half is not.

=cut

sub names_in {
    my ($handle) = @_;

    my @names;
    while (1) {
        $! = 0; ## no critic (RequireLocalizedPunctuationVars)
        my $name = readdir($handle);
        last if !defined($name);
        push @names, $name;
    }
    return $! ? undef : \@names;
}

=head2 states(@names)

What can be known of unfinished files, as a hash: C<written>, C<left> (nobody will ever finish it)
or C<unknown>.

=cut

sub states {
    my (@names) = @_;

    return if !@names;
    my $here = _node();
    my $written = _open_for_writing(@names);
    my %states;
    for my $name (@names) {
        my $info = parse_unfinished($name);
        my $is_ours = $info && ($info->{node} // '') eq $here;
        $states{$name} =
             !$written ? 'unknown'
            : $written->{$name} ? 'written'
            : $is_ours ? 'left'
            : 'unknown';
    }
    return %states;
}

# This node, untainted.
sub _node {
    my ($host) = (POSIX::uname())[1] =~ /\A([A-Za-z0-9-]{1,63})/;
    my $hash;
    for my $path (@IDENTITIES) {
        open(my $fh, '<', $path) or next;
        my $id = <$fh> // '';
        close($fh);
        chomp $id;
        next if $id !~ /\A[0-9a-f-]{32,36}\z/;
        ($hash) = md5_hex("pve-diff-backup $id") =~ /\A([0-9a-f]{8})/;
        last;
    }
    die "this node has no identity: neither of @IDENTITIES can be read\n" if !defined($hash);
    return ($host // 'node') . "-$hash";
}

# Those of the names that a process of this node has open for writing, in any folder; undef where
# not all processes can be looked at.
sub _open_for_writing {
    my (@names) = @_;

    my %wanted = map { $_ => 1 } @names;
    my %found;
    opendir(my $proc, '/proc') or return;
    my $processes = names_in($proc) or return;

    # not init, which makes no backups and may be out of our sight in a container
    for my $pid (grep { /\A[0-9]+\z/ && $_ != 1 } @$processes) {
        my $dh;
        my $descriptors = opendir($dh, "/proc/$pid/fd") ? names_in($dh) : undef;
        if (!$descriptors) {
            next if _is_gone("/proc/$pid");
            return;
        }
        for my $fd (grep { /\A[0-9]+\z/ } @$descriptors) {
            my $target = readlink("/proc/$pid/fd/$fd");
            if (!defined($target)) {
                next if _is_gone("/proc/$pid/fd/$fd");
                return;
            }
            my ($name) = $target =~ m!([^/]+)\z!;
            next if !defined($name) || !$wanted{$name} || $found{$name};
            $found{$name} = 1 if _is_for_writing($pid, $fd);
        }
    }
    return \%found;
}

# Whether what could not be read just now is no longer there: of a process that has ended the kernel may
# say that access is denied.
sub _is_gone {
    my ($path) = @_;

    return $! == ENOENT || $! == ESRCH || !lstat($path);
}

# Where that cannot be told, it is.
sub _is_for_writing {
    my ($pid, $fd) = @_;

    open(my $fh, '<', "/proc/$pid/fdinfo/$fd") or return 1;
    my ($flags) = map { /\Aflags:\s*([0-7]+)/ ? oct($1) : () } <$fh>;
    return !defined($flags) || ($flags & 3) != 0;
}

1;
