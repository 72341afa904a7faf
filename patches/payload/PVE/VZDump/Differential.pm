package PVE::VZDump::Differential;

# Part of pve-diff-backup.  Loaded by lines that it inserted into PVE/Storage.pm, PVE/VZDump.pm
# and PVE/LXC/Create.pm; `pve-diff-backup revert` removes all of them together with this file.

use strict;
use warnings;

use Errno ();
use File::Basename qw(basename dirname);
use POSIX ();
use Scalar::Util qw(tainted);

use PVE::VZDump::Differential::Changed;
use PVE::VZDump::Differential::Chain qw(parse_name differential_name encode_path choose_base
    other_guest shown told_numbers);
use PVE::VZDump::Differential::Files;
use PVE::VZDump::Differential::Helper
    qw(run_helper identify content settings guest_config full_config
    backup_files);
use PVE::VZDump::Differential::Restore;
use PVE::VZDump::Differential::Storage;
use PVE::VZDump::Differential::Unfinished qw(claim mark_folder forget_folder unfinished_name);

# No `use` of PVE::Storage, PVE::VZDump or PVE::VZDump::Common: they load us.

=head1 NAME

PVE::VZDump::Differential - differential backups for vzdump

=head1 DESCRIPTION

vzdump's pipe ends in a compressor.  With the option C<fullbackup> this module lets
L<pve-xdelta3(1)> pose as that compressor: for a full backup it writes an ordinary archive,
otherwise only what differs from the last full one.  On restore it poses as the decompressor.
Upstream's own error checks, limits, hooks, logs and cleanup stay in charge.

Subs of upstream begin with a line that asks L</takes($sub, @arguments)> whether a call is about a
differential; all others run as they are.  A failure before any data flows ends in an ordinary
full backup and a warning, never in a missing backup.

=cut

# Our word for the extension of an archive, as an argument of the helper.
my %COMPRESS_WORD = (zst => 'zstd', lzo => 'lzo', gz => 'gzip');

# The name of the module where our versions of subs are.
my ($STORAGE, $RESTORE, $CHANGED, $FILES) =
    map { "PVE::VZDump::Differential::$_" } qw(Storage Restore Changed Files);

# What upstream's calls look like, from Proxmox VE 3 to 9: the sub, whose it is, whose our version
# is, and whether a call (its arguments) is for that.  The patch set says which releases have a line
# that asks for which sub.
my %CALLS = (
    abs_filesystem_path => ['PVE::Storage', $STORAGE, sub { is_differential($_[1]) }],
    archive => [
        'PVE::VZDump::QemuServer', $CHANGED,
        sub { PVE::VZDump::Differential::Changed::concerns(@_) },
    ],
    archive_info => ['PVE::Storage', $STORAGE, sub { is_differential($_[0]) }],
    archive_remove => [
        'PVE::Storage', $STORAGE,
        sub { PVE::VZDump::Differential::Storage::removes($_[0]) },
    ],
    decompressor_info => ['PVE::Storage', $STORAGE, sub { ($_[1] // '') =~ /\Avcdiff:/ }],
    extract_vzdump_config => ['PVE::Storage', $STORAGE, sub { is_differential($_[1]) }],
    extract_vzdump_config_tar => ['PVE::Storage', $STORAGE, sub { is_differential($_[0]) }],
    path_to_volume_id => ['PVE::Storage', $STORAGE, sub { is_differential($_[1]) }],
    prune_mark_backup_group => ['PVE::Storage', $STORAGE, sub { 1 }],
    vdisk_free => ['PVE::Storage', $STORAGE, sub { is_backup_volume($_[1]) }],
    parse_volname => [
        'PVE::Storage::Plugin',
        $STORAGE,
        sub { ($_[1] // '') =~ m!\Abackup/[^/]+\z! && is_differential($_[1]) },
    ],
    get_backup_file_list => ['PVE::VZDump', $STORAGE, sub { !defined($_[2]) }],
    recover_config => ['PVE::LXC::Create', $RESTORE, sub { is_differential($_[0]) }],
    restore_archive => ['PVE::LXC::Create', $RESTORE, sub { is_differential($_[0]) }],
    restore_tar_archive => ['PVE::LXC::Create', $RESTORE, sub { is_differential($_[0]) && !$_[5] }],
    restore_vma_archive => ['PVE::QemuServer', $RESTORE, sub { is_differential($_[0]) }],

    # no subs but places within one
    check_openvz => [undef, $RESTORE, sub { is_differential($_[0]) }],
    restore_openvz => [undef, $RESTORE, sub { is_differential($_[0]) }],
    file_download => [
        undef, $FILES, sub { PVE::VZDump::Differential::Files::concerns($_[0]) },
    ],
    file_list => [undef, $FILES, sub { PVE::VZDump::Differential::Files::concerns($_[0]) }],
    keep_log => [undef, $STORAGE, sub { is_differential($_[0]) }],
    list => [
        undef,
        $STORAGE,
        sub {
            my (undef, $path, $vmid) = @_;
            return is_differential($path)
                && (!defined($vmid) || parse_name(basename($path))->{vmid} == $vmid);
        },
    ],
    purge => [
        undef,
        $STORAGE,
        sub {
            my ($self, @more) = @_;
            return PVE::VZDump::Differential::Storage::needs_purge($self->{opts}, @more);
        },
    ],
);

# Who restores each type of guest, and what that module must hold to be able to.
my %RESTORERS = (
    lxc => ['LXC/Create.pm', qr/PVE::VZDump::Differential/],
    openvz => ['API2/OpenVZ.pm', qr/PVE::VZDump::Differential/],
    qemu => ['QemuServer.pm', qr/PVE::VZDump::Differential|PVE::Storage::decompressor_info/],
);

# The plan of the backup that is being made, with the handle of its file: that is held open from the
# plan on, so that nobody removes the full that is in use.
my $planned;

# Set (with local) while we call upstream's version of a sub.
my %inside;

=head1 ENTRY POINTS

=head2 takes($sub, @arguments)

The sub to run instead of upstream's C<$sub>, or undef where upstream's is right.

=cut

sub takes {
    my ($sub, @arguments) = @_;

    return if $inside{$sub};
    my $call = $CALLS{$sub} or return;
    my (undef, $module, $is_for_us) = @$call;
    return if !$is_for_us->(@arguments);
    return $module->can($sub) // sub { };
}

=head2 upstream($sub, @arguments)

Calls upstream's version of a sub from ours.

=cut

sub upstream {
    my ($sub, @arguments) = @_;

    local $inside{$sub} = 1;
    return $CALLS{$sub}->[0]->can($sub)->(@arguments);
}

=head2 plan_backup($self, $task, $vmid, \$comp, $logfd)

Called by C<PVE::VZDump::exec_backup_task> before data flows.  With C<fullbackup> set it decides
between a full and a differential backup, says why in the task's log and puts the names into
C<$task> and the compressor into C<$comp>.  Both are left alone for stdout, Proxmox Backup Server,
backup providers, and whenever something is not as it should be.

=cut

sub plan_backup {
    my ($self, $task, $vmid, $comp, $logfd) = @_;

    $planned = undef; # of a guest before this one
    my $opts = $self->{opts};
    return if !$opts->{fullbackup};
    return if $opts->{stdout} || $opts->{pbs} || $self->{'backup-provider'};
    my $target = _target_key($task);
    return if !defined($opts->{dumpdir}) || ($task->{$target} // '-') eq '-';

    my ($plan, $err);
    {
        # no further: Perl 5.10 would lose the message of a die below
        local $@;
        local $SIG{__DIE__} = 'DEFAULT';
        $plan = eval { _make_plan($opts, $task, $vmid, $$comp) };
        $err = $@;
    }
    if ($err) {
        die $err if $err =~ /^interrupted by signal/;
        chomp $err;
        PVE::VZDump::debugmsg('warn', "no differential backup is possible: $err", $logfd);
        PVE::VZDump::debugmsg('warn', "making an ordinary full backup instead", $logfd);
        return;
    }

    PVE::VZDump::debugmsg('warn', $_, $logfd) for @{ $plan->{complaints} };
    PVE::VZDump::debugmsg(@$_, $logfd) for @{ $plan->{said} };
    PVE::VZDump::debugmsg($plan->{level}, $plan->{reason}, $logfd);
    my @changed = ($target, qw(tmptar logfile));
    my %stock = (comp => $$comp, map { $_ => $task->{$_} } @changed);
    $planned = { %$plan, stock => \%stock };
    $task->{$target} = $plan->{target};
    $task->{$_} = $plan->{$_} for qw(tmptar logfile);
    $$comp = $plan->{comp};

    # a container that is suspended is copied to that folder, and archived with all that is in it
    mark_folder($task->{tmpdir}, $plan->{tmptar})
        if defined($task->{tmpdir})
        && ($task->{vmtype} eq 'qemu' || ($task->{mode} // '') ne 'suspend');
    return;
}

=head2 planned($task)

The plan of the backup that the task makes, undef where it is not ours.

=cut

sub planned {
    my ($task) = @_;

    return $planned && ($task->{tmptar} // '') eq $planned->{tmptar} ? $planned : undef;
}

=head2 ready_backup($task, \$comp, $logfd)

Called right before data flows.  From here to L</finish_backup($task, $logfd)> the task has the
unfinished file as its target: upstream's rename then changes nothing, and no file has a backup's
name before it was looked at.  The helper may write a full where the base no longer serves.

=cut

sub ready_backup {
    my ($task, $comp, $logfd) = @_;

    my $plan = planned($task) or return;
    my $helper = $PVE::VZDump::Differential::Helper::HELPER;
    if ($plan->{is_helped} && !-x $helper) {
        PVE::VZDump::debugmsg('warn', "$helper is missing: making an ordinary full backup", $logfd);
        unlink($plan->{tmptar});
        $planned = undef;
        my %stock = %{ $plan->{stock} };
        $$comp = delete($stock{comp});
        $task->{$_} = $stock{$_} for keys %stock;
        return;
    }

    $$comp .= " --or-full --id $plan->{id}" if $plan->{base};
    # vzdump removes that folder with all that is in it, whatever happens
    if ($plan->{is_helped} && -d ($task->{tmpdir} // '')) {
        $plan->{report} = "$task->{tmpdir}/pve-diff-backup.report";
        $plan->{report} =~ s!//+!/!g;
        $$comp .= ' --report ' . encode_path($plan->{report});
    }
    $task->{ _target_key($task) } = $task->{tmptar};
    return;
}

=head2 finish_backup($task, $logfd)

Called when all data is written.  Gives the file its name, by what is in it; dies where that is
nothing that could be restored.

=cut

sub finish_backup {
    my ($task, $logfd) = @_;

    my $plan = planned($task) or return;
    $planned = undef; # but the handle stays until the end of this sub

    forget_folder($task->{tmpdir}) if defined($task->{tmpdir});
    my ($target, $base) = @$plan{qw(target base)};
    if ($base && content($plan->{tmptar}) eq 'full') {
        my $stamp = parse_name(basename($target))->{stamp};
        $task->{logfile} = "$plan->{dir}/$plan->{prefix}-$stamp.log";
        $target = "$plan->{dir}/$plan->{prefix}-$stamp$plan->{extension}";
        PVE::VZDump::debugmsg(
            'warn',
            "'$base' could not serve as base any more when the data began to flow: this is an ordinary"
                . ' full backup, '
                . basename($target),
            $logfd,
        );
    } elsif ($base && !-f "$plan->{dir}/$base") {
        die "the full backup '$base' was removed while this differential was made against it\n";
    }
    _warn_of_size($plan, $logfd) if $base && $target eq $plan->{target};
    _give_name($plan->{tmptar}, $target);
    $task->{ _target_key($task) } = $target;
    my $full_size = $base && $target eq $plan->{target} ? -s "$plan->{dir}/$base" : undef;
    my @numbers = told_numbers(scalar(_report($plan->{report})), -s $target // 0, $full_size);
    PVE::VZDump::debugmsg('info', $_, $logfd) for @numbers;
    eval { PVE::VZDump::Differential::Changed::backup_made($plan, $target); 1 }
        or PVE::VZDump::debugmsg('warn', "the next backup will read everything: $@", $logfd);
    return;
}

# Renames the file, but never over another: a node that knows nothing of this one may have made a backup in
# the same second, and differentials may need that by now.
sub _give_name {
    my ($from, $to) = @_;

    my $is_linked = link($from, $to);
    my $is_there = !$is_linked && ($!{EEXIST} || -e $to || -l $to);

    # over NFS a link whose answer is lost is asked for again, and is there already: our own
    if ($is_linked || ($is_there && _is_same($from, $to))) {
        unlink($from) or warn "cannot remove '$from' - $!\n";
        return;
    }
    die
        "'$to' exists already: another node has made a backup of the same second; this one is not kept\n"
        if $is_there;

    # not all file systems know links
    rename($from, $to) or die "unable to rename '$from' to '$to' - $!\n";
    return;
}

# Whether two names are of one file.
sub _is_same {
    my ($one, $other) = map { [lstat($_)] } @_;

    return @$one && @$other && $one->[0] == $other->[0] && $one->[1] == $other->[1];
}

# What the helper noted, undef without it.
sub _report {
    my ($path) = @_;

    return if !defined($path) || -l $path || !-f _ || !open(my $fh, '<', $path);
    read($fh, my $text, 200);
    close($fh);
    return $text;
}

# A differential that takes more than its full saves nothing.
sub _warn_of_size {
    my ($plan, $logfd) = @_;

    my ($size, $full_size) = map { -s $_ } $plan->{tmptar}, "$plan->{dir}/$plan->{base}";
    return if ($size // 0) <= ($full_size // 0);
    my $is_due = defined($plan->{largest}) && $size * 100 > $plan->{largest} * $full_size;
    my $next =
        $is_due ? 'the next backup will be a full one' : 'a full one would have been smaller';
    PVE::VZDump::debugmsg(
        'warn',
        "this differential takes more than its full backup ($size and $full_size bytes): $next",
        $logfd,
    );
    return;
}

# Where a task holds the archive's path: the key had another name before pve-manager 6.2-7.
sub _target_key {
    my ($task) = @_;

    return exists($task->{target}) ? 'target' : 'tarfile';
}

# What to write where, and with which command; dies where only an ordinary full backup is right.
sub _make_plan {
    my ($opts, $task, $vmid, $comp) = @_;

    my $days = $opts->{fullbackup};
    die "'$days' is not a number of days\n" if $days !~ /\A[0-9]+\z/;

    my $target = $task->{ _target_key($task) };
    my $full = parse_name(basename($target));
    my $dir = $opts->{dumpdir};
    die "the archive's name '" . shown($target) . "' is not understood\n"
        if !$full || "$dir/$full->{name}" ne $target || $full->{vmid} ne $vmid;

    _check_hooks($full);
    run_helper('--version');

    my @said = PVE::VZDump::Differential::Storage::look_after(
        $dir, $full->{type}, $vmid, $task->{tmpdir},
    );

    # Names have a resolution of one second: never write over a backup that has just been made.
    my $now = $full->{ctime};
    for my $try (1 .. 5) {
        my $plan = _plan_at($now, $opts, $full, $days, $comp);
        # Nor through a link that somebody put there beforehand.
        if (!-e $plan->{target} && !grep { -l $_ } @$plan{qw(target tmptar logfile)}) {
            $plan->{handle} = claim($plan->{tmptar});
            # before the claim was seen the base may have been removed
            my $is_there = !$plan->{base} || -f "$dir/$plan->{base}";
            return { %$plan, said => \@said } if $plan->{handle} && $is_there;
            unlink($plan->{tmptar}) if $plan->{handle};
        }
        sleep 1;
        $now = time();
    }
    die "backups with the present time exist already\n";
}

# The plan for a backup at a certain time.
sub _plan_at {
    my ($now, $opts, $full, $days, $comp) = @_;

    my ($dir, $storage) = @$opts{qw(dumpdir storage)};
    my $stamp = POSIX::strftime('%Y_%m_%d-%H_%M_%S', localtime($now));
    my $compression = $full->{compression};
    my ($settings, @complaints) = settings($storage);
    my ($largest) = $settings->{'largest-differential'} =~ /\A([0-9]+)/; # undef: off
    my %looked;
    my ($base, $reason, $is_odd) = choose_base(
        [backup_files($dir)],
        type => $full->{type},
        vmid => $full->{vmid},
        format => $full->{format},
        days => $days,
        now => $now,
        # the full that would be made has one
        needs_map => ($compression // '') eq 'zst'
            && $settings->{'base-without-map'} eq 'replace',
        largest => $largest,
        look => sub { $looked{ $_[0] } = _look("$dir/$_[0]") },
    );
    my $id = $base && $looked{$base}->{id};

    my @words = ($PVE::VZDump::Differential::Helper::HELPER, $base ? 'diff' : 'full');
    my $prefix = "vzdump-$full->{type}-$full->{vmid}";
    my $extension = substr($full->{name}, length($full->{stem}));
    my ($name, $stem, $unfinished) =
        ("$prefix-$stamp$extension", "$prefix-$stamp", "$prefix-$stamp.$full->{format}");
    if ($base) {
        $name = differential_name(
            $base, $stamp, $compression,
        );
        $stem = "$base--differential-$stamp";
        $unfinished = "$stem.vcdiff";
        push @words,
            '--stored-base=' . encode_path("$dir/$base");
    }
    push @words, '--compress', $compression ? $COMPRESS_WORD{$compression} : 'none';
    push @words, '--threads', $1 if ($comp // '') =~ /(?:--threads=|-p )([0-9]+)/;

    # an uncompressed full backup needs no help
    my $is_helped = $base || $compression;
    my $plan = {
        dir => $dir,
        base => $base,
        id => $id,
        prefix => $prefix,
        extension => $extension,
        target => "$dir/$name",
        tmptar => "$dir/" . unfinished_name($unfinished),
        logfile => "$dir/$stem.log",
        is_helped => $is_helped,
        comp => $is_helped ? join(' ', @words) : $comp,
        largest => $largest,
        reason => ($base ? 'differential' : 'full') . " backup: $reason",
        level => $is_odd ? 'warn' : 'info',
    };
    # upstream would stop half-way through the task
    die "internal error - unsafe $_\n"
        for grep { $_ ne 'reason' && tainted($plan->{$_}) } sort keys %$plan;

    return { %$plan, complaints => \@complaints };
}

# What choose_base wants to know of a full.
sub _look {
    my ($path) = @_;

    return { error => "it was found damaged, see '" . basename($path) . ".damaged'" }
        if -e "$path.damaged";
    my $found = eval { identify($path) };
    if (my $err = $@) {
        die $err if $err =~ /^interrupted by signal/;
        chomp $err;
        return { error => $err };
    }
    # where a configuration is not there or cannot be read, nothing speaks for another guest
    my $info = parse_name(basename($path));
    my $other = eval {
        my $now = guest_config($info->{type}, $info->{vmid});
        other_guest($info->{type}, full_config($path), $now, $info->{ctime});
    };
    die $@ if $@ =~ /^interrupted by signal/;
    return { %$found, other_guest => $other };
}

# A differential that this host could neither list nor restore must not be made: an upgrade may
# have brought back single files of upstream.
sub _check_hooks {
    my ($full) = @_;

    my $sample = differential_name(
        $full->{name}, $full->{stamp}, $full->{compression},
    );
    if (PVE::Storage->can('archive_info')) {
        my $info = eval { PVE::Storage::archive_info("/$sample") } || {};
        die "PVE/Storage.pm is not patched any more, run 'pve-diff-backup apply'\n"
            if !$info->{is_std_name} || ($info->{compression} // '') !~ /\Avcdiff:/;
    }
    my (undef, $name) = eval { PVE::Storage::Plugin->parse_volname("backup/$sample") };
    die "PVE/Storage/Plugin.pm is not patched any more, run 'pve-diff-backup apply'\n"
        if ($name // '') ne $sample;

    my ($module, $is_patched) = @{ $RESTORERS{ $full->{type} } };
    my $path = dirname($INC{'PVE/Storage.pm'} // '/usr/share/perl5/PVE/Storage.pm') . "/$module";
    open(my $fh, '<', $path) or die "cannot read '$path' - $!\n";
    my $found = grep { $_ =~ $is_patched } <$fh>;
    close($fh);
    die "PVE/$module is not patched any more, run 'pve-diff-backup apply'\n" if !$found;
    return;
}

=head1 HELPERS

=head2 is_differential($archive), is_full($archive)

Whether the path or volume ID names a differential or a full with a standard name.

=cut

sub is_differential {
    my ($archive) = @_;

    return if !defined($archive) || $archive !~ /--differential-/;
    my $info = parse_name(basename($archive));
    return $info && defined($info->{base});
}

sub is_full {
    my ($archive) = @_;

    my $info = parse_name(basename($archive // ''));
    return $info && !defined($info->{base});
}

=head2 is_backup_volume($volid)

Whether the volume ID names either of them.

=cut

sub is_backup_volume {
    my ($volid) = @_;

    return ($volid // '') =~ m!:backup/! && parse_name(basename($volid));
}

# What the web interface asks.  All else works without it, and a tree without the daemons' modules
# has no use for it.
{
    local $@;
    local $SIG{__DIE__} = 'DEFAULT';
    eval {
        require PVE::VZDump::Differential::API;
        PVE::VZDump::Differential::API::mount();
        1;
    } or warn $@;
}

1;
