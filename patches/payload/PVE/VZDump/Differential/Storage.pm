package PVE::VZDump::Differential::Storage;

# Part of pve-diff-backup.

use strict;
use warnings;

use File::Basename qw(basename dirname);
use File::Path ();
use POSIX ();

use PVE::VZDump::Differential::Chain qw(parse_name parse_unfinished full_forms encode_path
    decode_path split_restorable mark_stranded keep_needed shown kept_text);
use PVE::VZDump::Differential::Helper qw(run_helper decoder_command open_decoder close_decoder
    find_in_tar probe check_base check_archive backup_files existing_dependants);
use PVE::VZDump::Differential::Unfinished qw(left_folders states);

# No `use` of PVE::Storage and PVE::VZDump: they load us.

=head1 NAME

PVE::VZDump::Differential::Storage - what stands in for upstream's subs about backups on a storage

=head1 DESCRIPTION

Each has the name and the arguments of upstream's, which it calls through
L<PVE::VZDump::Differential/upstream($sub, @arguments)> where it can.

=cut

# So many dependants of a full are named; of the others there is the count.
my $NAMED = 3;

# Names that the last prune marked for removal: a full may go with those that need it, not before.
my %condemned;

# The process that has told of stranded differentials in a task's log.
my $told = 0;

# Paths of differentials that were removed together with their full.
my %gone;

sub _upstream { return PVE::VZDump::Differential::upstream(@_) }

=head1 NAMES

=head2 archive_info($archive)

As C<PVE::Storage::archive_info>, for a differential.  C<compression> is C<vcdiff:> and the
encoded path of the full, which L</decompressor_info($format, $compression)> understands: a
decompressor that reads from a pipe does not learn the archive's name.

=cut

sub archive_info {
    my ($archive) = @_;

    my $info = parse_name(basename($archive))
        or die "ERROR: couldn't determine archive info from '" . shown($archive) . "'\n";

    my $word = '';
    if ($archive =~ m!\A/!) {
        my $path = dirname($archive) . "/$info->{base}";
        $path =~ s!\A//!/!;
        $word = encode_path($path);
    }

    return {
        filename => $info->{name},
        type => $info->{type},
        format => $info->{format},
        compression => "vcdiff:$word",
        decompressor => decoder_command($word),
        vmid => $info->{vmid},
        ctime => $info->{ctime},
        logfilename => "$info->{stem}.log",
        notesfilename => "$info->{name}.notes",
        is_std_name => 1,
    };
}

=head2 decompressor_info($format, $compression)

As C<PVE::Storage::decompressor_info>.  Restore of a VM calls it before it touches anything, so
this is where a missing full is reported.

=cut

sub decompressor_info {
    my ($format, $compression) = @_;

    my ($word) = $compression =~ /\Avcdiff:(.*)\z/s;
    check_base(decode_path($word)) if $word ne '';

    return {
        format => $format,
        compression => $compression,
        decompressor => decoder_command($word),
    };
}

=head2 parse_volname($class, $volname)

As C<PVE::Storage::Plugin::parse_volname>: what it says of the full, with the name replaced.

=cut

sub parse_volname {
    my ($class, $volname) = @_;

    my $info = parse_name(basename($volname));
    my ($vtype, undef, @rest) = _upstream('parse_volname', $class, "backup/$info->{base}");
    return ($vtype, $info->{name}, @rest);
}

=head2 path_to_volume_id($cfg, $path)

As C<PVE::Storage::path_to_volume_id>: what it says of the full, with the name replaced.

=cut

sub path_to_volume_id {
    my ($cfg, $path) = @_;

    return _upstream('path_to_volume_id', $cfg, $path) if $path !~ m!\A/!;

    my $info = parse_name(basename($path));
    my ($vtype, $volid) =
        _upstream('path_to_volume_id', $cfg, dirname($path) . "/$info->{base}");
    return ($vtype) if !defined($volid);
    $volid =~ s/\Q$info->{base}\E\z/$info->{name}/;
    return ($vtype, $volid);
}

=head2 abs_filesystem_path($cfg, $volid)

As C<PVE::Storage::abs_filesystem_path>.  Those who ask are going to restore: where nothing else
reads the archive before the old guest is removed, this is the place to refuse.

=cut

sub abs_filesystem_path {
    my ($cfg, $volid) = @_;

    my $path = _upstream('abs_filesystem_path', $cfg, $volid);
    probe($path);
    return $path;
}

=head2 list($storeid, $path, $vmid)

A volume as C<template_list> and C<list_volumes> describe it.

=cut

sub list {
    my ($storeid, $path) = @_;

    my $info = parse_name(basename($path));
    my $entry = {
        volid => "$storeid:backup/$info->{name}",
        format => 'vcdiff' . ($info->{compression} ? ".$info->{compression}" : ''),
        size => (lstat($path))[7] // 0,
        ctime => $info->{ctime},
        vmid => $info->{vmid},
    };
    my $notes = "$path.notes";
    $entry->{notes} = PVE::Tools::file_read_firstline($notes) // '' if !-l $notes && -f $notes;
    $entry->{protected} = 1 if -e "$path.protected";
    return $entry;
}

=head1 CONFIGURATIONS

=head2 extract_vzdump_config($cfg, $volid)

As C<PVE::Storage::extract_vzdump_config>, where that knows archives by their extension alone.

=cut

sub extract_vzdump_config {
    my ($cfg, $volid) = @_;

    my $archive = PVE::Storage::abs_filesystem_path($cfg, $volid);
    my $info = parse_name(basename($archive));
    return extract_vzdump_config_tar($archive, qr!^(\./etc/vzdump/(pct|vps)\.conf)$!)
        if $info->{format} eq 'tar';

    check_base(dirname($archive) . "/$info->{base}");
    check_archive($archive);
    my $raw = run_helper('vma', 'config', dirname($archive) . "/$info->{name}");
    return wantarray ? ($raw, undef) : $raw;
}

=head2 extract_vzdump_config_tar($archive, $conf_re)

As C<PVE::Storage::extract_vzdump_config_tar>.  The configuration is at the start of an archive
and only that much is decoded.  Restore of a container calls it before it touches anything.

=cut

sub extract_vzdump_config_tar {
    my ($archive, $conf_re) = @_;

    die "ERROR: file '" . shown($archive) . "' does not exist\n" if !-e $archive && !-l $archive;

    my $stream = open_decoder($archive);
    my ($raw, $file) = find_in_tar($stream, $conf_re);
    if (!defined($file)) {
        close_decoder($stream, $archive);
        die "ERROR: archive contains no configuration file\n";
    }
    close($stream); # decoding stops here, so its status says nothing

    return wantarray ? ($raw, $file) : $raw;
}

=head1 REMOVAL

=head2 prune_mark_backup_group(\@group, \%keep)

As C<PVE::Storage::prune_mark_backup_group>, then a full that another backup needs is kept: one that
is kept or protected, that is being made, or that the caller does not know.  Differentials without
their full are kept, and do not count for the retention rules.

=cut

sub prune_mark_backup_group {
    my ($group, $keep) = @_;

    my ($good, $stranded) = split_restorable($group);
    _upstream('prune_mark_backup_group', $good, $keep);
    mark_stranded($stranded);
    _keep_used($group);
    my $text = stranded_text(map { basename($_->{volid} // $_->{path}) } @$stranded);
    warn "$text\n" if defined($text) && $told != $$;

    # somebody reads it on a terminal, in a task's log or in a file; what asks for a preview has the mark
    if (POSIX::isatty(2) || -p STDERR || -f STDERR) {
        print STDERR "INFO: $_\n" for _kept_texts($group);
    }

    for my $entry (@$group) {
        my $name = basename($entry->{volid} // $entry->{path});
        if (($entry->{mark} // '') eq 'remove') {
            $condemned{$name} = 1;
        } else {
            delete $condemned{$name};
        }
    }
    return;
}

# What is said of the fulls that stay only because others need them.
sub _kept_texts {
    my ($group) = @_;

    return map { kept_text(basename($_->{volid} // $_->{path}), $_->{'needed-by'}) }
        grep { $_->{'needed-by'} } @$group;
}

# Changes the marks of fulls that are needed.  A dry run must say what the real one does, so the
# folder is looked at here and not only when something is removed.
sub _keep_used {
    my ($group) = @_;

    keep_needed($group);
    my %known = map { basename($_->{volid} // $_->{path}) => 1 } @$group;
    for my $entry (grep { ($_->{mark} // '') eq 'remove' } @$group) {
        my $name = basename($entry->{volid} // $entry->{path});
        my $info = parse_name($name);
        next if !$info || defined($info->{base});
        my ($path) = $entry->{path}
            // eval { PVE::Storage::path(PVE::Storage::config(), $entry->{volid}) };
        if (!defined($path)) {
            $entry->{mark} = 'keep';
            next;
        }
        my @unseen = grep { !$known{$_} } existing_dependants($path) or next;
        @$entry{qw(mark needed-by)} = ('keep', scalar(@unseen));
    }
    return;
}

=head2 stranded_text(@names)

What people should know of stranded differentials, undef if there are none.

=cut

sub stranded_text {
    my (@names) = @_;

    return if !@names;
    my %fulls = map { parse_name($_)->{base} => 1 } @names;
    my @shown = sort(keys(%fulls));
    my $more = @shown > 3 ? ' and ' . (@shown - 3) . ' more' : '';
    return
          scalar(@names)
        . " differential backup(s) cannot be restored, as their full backup is not there: "
        . join(', ', splice(@shown, 0, 3))
        . "$more. They are kept until it is back, or until somebody deletes them";
}

=head2 look_after($dir, $type, $vmid, $tmpdir)

Removes what killed backups of the guest have left in a folder, and beside C<$tmpdir>, where this one
keeps its temporary files, and tells of what is not as it should be there: returns pairs of a level
and a text.  The guest is locked: no other job backs it up.

=cut

sub look_after {
    my ($dir, $type, $vmid, $tmpdir) = @_;

    $told = $$;
    my @said;
    my @files = backup_files($dir);
    my %names = map { $_->{name} => 1 } @files;
    my $is_guests = sub { $_[0] && $_[0]->{type} eq $type && $_[0]->{vmid} == $vmid };

    my @stranded =
        grep { $is_guests->(parse_name($_)) && parse_name($_)->{base} } sort keys %names;
    @stranded = grep {
        !grep { $names{$_} }
            full_forms(parse_name($_)->{base})
    } @stranded;
    my $text = stranded_text(@stranded);
    push @said, ['warn', $text] if defined($text);

    my @unfinished = grep { $is_guests->(parse_unfinished($_)) } sort keys %names;
    my %states = states(@unfinished);
    for my $info (map { parse_unfinished($_) } @unfinished) {
        my $name = $info->{name};
        if ($states{$name} eq 'left') {
            push @said,
                unlink("$dir/$name")
                ? ['info', "removed '$name', which a killed backup had left"]
                : ['warn', "cannot remove '$name', which a killed backup left - $!"];
        } elsif ($states{$name} eq 'unknown') {
            my $who = defined($info->{node}) ? "node $info->{node}" : 'an unknown program';
            my $cost = defined($info->{base}) ? ", and its full backup is kept for it" : '';
            push @said,
                [
                defined($info->{base}) ? 'warn' : 'info',
                "'$name' is unfinished, of $who. Whether a backup goes on there cannot be known"
                    . " here$cost. If none does: rm '$dir/$name'",
                ];
        }
    }

    push @said, _clear_folders($dir, $type, $vmid, $tmpdir) if defined($tmpdir);

    for my $name (grep { $is_guests->(parse_name($_)) && $names{"$_.damaged"} } sort keys %names) {
        push @said,
            [
            'warn',
            "the full backup '$name' is damaged (see '$name.damaged'): no more differentials are made"
                . " against it, and those that need it may be lost. Check them: pve-verify-backups '$dir'",
            ];
    }
    return @said;
}

# Removes the folders of killed backups, and tells of those of which that is not sure.
sub _clear_folders {
    my ($dir, $type, $vmid, $tmpdir) = @_;

    my %parents = map { $_ => 1 } $dir, dirname($tmpdir);
    my @said;
    for my $found (left_folders($type, $vmid, $tmpdir, sort(keys(%parents)))) {
        my ($path, $state) = @$found;
        my $name = basename($path);
        if ($state ne 'left') {
            push @said,
                [
                'info',
                "'$name' is the folder of another backup of this guest. Whether one goes on, on another node,"
                    . " cannot be known here. If none does: rm -r '$path'",
                ];
            next;
        }
        File::Path::rmtree($path, { error => \my $errors });
        my ($why) = map { values(%$_) } @{ $errors || [] };
        push @said,
            -d $path
            ? [
            'warn',
            "cannot remove '$path', which a killed backup left" . (defined($why) ? " - $why" : ''),
            ]
            : ['info', "removed '$name', which a killed backup had left"];
    }
    return @said;
}

=head2 removes($path)

Whether L</archive_remove($path)> is for this one: a full that others need, or a differential that
went with its full or has files which upstream does not know.

=cut

sub removes {
    my ($path) = @_;

    my $info = parse_name(basename($path // '')) or return;
    return -e "$path.damaged" || scalar(existing_dependants($path)) if !defined($info->{base});
    return $gone{$path} || !knows_auxiliaries();
}

=head2 archive_remove($path)

As C<PVE::Storage::archive_remove>.  Backups that need a full go before it if they were marked
together with it, otherwise it stays.

=cut

sub archive_remove {
    my ($path) = @_;

    # a prune goes through its list from the oldest on
    return if delete($gone{$path}) && !-e $path;

    my $dir = dirname($path);
    my @needing = existing_dependants($path);
    my @kept = grep { !$condemned{$_} || -e "$dir/$_.protected" } @needing;
    die _needed_message($path, @kept) if @kept;

    for my $differential (map { "$dir/$_" } @needing) {
        PVE::Storage::archive_remove($differential);
        $gone{$differential} = 1;
    }
    # that took its time
    @kept = existing_dependants($path);
    die _needed_message($path, @kept) if @kept;
    _upstream('archive_remove', $path);
    _remove_auxiliaries($path);
    return;
}

=head2 vdisk_free($cfg, $volid)

As C<PVE::Storage::vdisk_free>, but refuses to delete a full that others need.  The log of a
differential goes with it where no code of upstream knows its name.

=cut

sub vdisk_free {
    my ($cfg, $volid) = @_;

    my ($path) = PVE::Storage::path($cfg, $volid);
    if (defined($path) && $path =~ m!\A/!) {
        my @needing = existing_dependants($path);
        die _needed_message($volid, @needing) if @needing;
    }

    my @result = _upstream('vdisk_free', $cfg, $volid);
    _remove_auxiliaries($path) if defined($path) && !-e $path;
    return wantarray ? @result : $result[0];
}

# One line, short whatever needs the full: the web interface reads why a removal failed from the
# last 4 KiB of the task's log.
sub _needed_message {
    my ($full, @needing) = @_;

    my @made = grep { !parse_name($_) } @needing;
    @needing = grep { parse_name($_) } @needing;
    my @reasons;
    push @reasons,
        scalar(@needing)
        . " differential backup(s) need it, remove them first: "
        . join(', ', map { shown($_) } splice(@needing, 0, $NAMED))
        . (@needing ? ' and ' . @needing . ' more' : '')
        if @needing;
    push @reasons,
        'a backup is being made that needs it (unless it was killed on another node, then remove that'
        . ' file): '
        . join(', ', map { shown($_) } @made)
        if @made;
    return "cannot remove full backup '" . shown($full) . "': " . join('; ', @reasons) . "\n";
}

=head2 knows_auxiliaries()

Whether upstream asks C<archive_info> for the names of logs and notes when it deletes a backup.

=cut

sub knows_auxiliaries { return PVE::Storage->can('archive_auxiliaries_remove') ? 1 : 0 }

# What goes with a backup and is unknown to upstream: what we found out about a full, the log and the
# notes of a differential.
sub _remove_auxiliaries {
    my ($path) = @_;

    my $info = parse_name(basename($path)) or return;
    my @names =
          !defined($info->{base}) ? "$info->{name}.damaged"
        : knows_auxiliaries() ? ()
        : ("$info->{stem}.log", "$info->{name}.notes");
    unlink map { dirname($path) . "/$_" } @names;
    return;
}

=head2 get_backup_file_list($dir, $bkname)

As C<PVE::VZDump::get_backup_file_list>, with the differentials: they count for the limit that
C<maxfiles> sets where nothing is removed.

=cut

sub get_backup_file_list {
    my ($dir, $bkname) = @_;

    my $list = _upstream('get_backup_file_list', $dir, $bkname);
    my %known = map { basename(ref($_) eq 'HASH' ? $_->{path} : $_->[0]) => 1 } @$list;
    for my $info (_guest_backups($dir, $bkname)) {
        push @$list, ["$dir/$info->{name}", $info->{ctime}] if !$known{ $info->{name} };
    }
    return $list;
}

=head2 needs_purge($opts, $task, $vmid, $maxfiles)

Whether old backups of the guest must be removed by L</purge($self, $task, $vmid, $maxfiles,
$logfd)> since upstream would remove fulls that differentials need.

=cut

sub needs_purge {
    my ($opts, $task, $vmid, $maxfiles) = @_;

    return if !$maxfiles || !$opts->{remove} || $opts->{pbs} || !defined($opts->{dumpdir});
    return
        grep { defined($_->{base}) }
        _guest_backups($opts->{dumpdir}, "vzdump-$task->{vmtype}-$vmid");
}

=head2 purge($self, $task, $vmid, $maxfiles, $logfd)

Removes all but the newest C<$maxfiles> backups of the guest and the fulls that these need, where
upstream (before C<prune-backups>) would look at fulls alone.  Returns what is left for upstream to
keep: 0, everything is done.

=cut

sub purge {
    my ($self, $task, $vmid, $maxfiles, $logfd) = @_;

    my $dir = $self->{opts}->{dumpdir};
    my @group = map { { path => "$dir/$_->{name}", ctime => $_->{ctime} } }
        _guest_backups($dir, "vzdump-$task->{vmtype}-$vmid");
    my ($good, $stranded) = split_restorable(\@group);
    my @newest_first = sort { $b->{ctime} <=> $a->{ctime} || $b->{path} cmp $a->{path} } @$good;
    for my $at (0 .. $#newest_first) {
        $newest_first[$at]->{mark} =
            $at < $maxfiles || -e "$newest_first[$at]->{path}.protected" ? 'keep' : 'remove';
    }
    mark_stranded($stranded);
    _keep_used(\@group);
    PVE::VZDump::debugmsg('info', $_, $logfd) for _kept_texts(\@group);

    # a full goes after those that need it
    for my $path (
        sort { length($b) <=> length($a) || $a cmp $b }
        map { $_->{path} } grep { $_->{mark} eq 'remove' } @group
    ) {
        PVE::VZDump::debugmsg('info', "delete old backup '$path'", $logfd);
        if (!unlink($path)) {
            PVE::VZDump::debugmsg('warn', "cannot delete '$path' - $!", $logfd);
            next;
        }
        my $info = parse_name(basename($path));
        unlink "$dir/$info->{stem}.log";
        _remove_auxiliaries($path);
    }
    return 0;
}

# What is known of the guest's backups in a folder, from their names.
sub _guest_backups {
    my ($dir, $bkname) = @_;

    return grep { $_ && "vzdump-$_->{type}-$_->{vmid}" eq $bkname }
        map { parse_name($_->{name}) } backup_files($dir);
}

1;
