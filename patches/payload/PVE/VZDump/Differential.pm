package PVE::VZDump::Differential;

# Part of pve-diff-backup.  Loaded by lines that it inserted into PVE/Storage.pm, PVE/VZDump.pm
# and PVE/LXC/Create.pm; `pve-diff-backup revert` removes all of them together with this file.

use strict;
use warnings;

use Fcntl ();
use File::Basename qw(basename dirname);
use IO::Select;
use POSIX ();
use Scalar::Util qw(tainted);

use PVE::VZDump::Differential::Chain qw(parse_name differential_name encode_path decode_path
    choose_base dependants split_restorable mark_stranded keep_needed);

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

# The program that encodes and decodes; a package variable so that a tree elsewhere can name its
# own.
our $HELPER;
$HELPER = '/usr/bin/pve-xdelta3' if !defined($HELPER);

# How long the helper may take to look at a base: it reads a few blocks, perhaps from a slow
# network.
my $HELPER_TIMEOUT = 120;

# A guest configuration is a few KiB; what claims more in an archive is none.
my $MAX_CONFIG = 4 * 1024 * 1024;

# The helper's whole environment: nothing that a caller set reaches it, nor is any of it tainted.
my $SAFE_PATH = '/usr/sbin:/usr/bin:/sbin:/bin';

# Our words for the extension of an archive: as an argument of the helper, and as it names what it
# finds.
my %COMPRESS_WORD = (zst => 'zstd', lzo => 'lzo', gz => 'gzip');
my %FORMS = (zst => ['map', 'zstd'], lzo => ['lzop'], gz => ['gzip'], raw => ['raw']);

# Set (with local) while we call the original of a sub from our version of it.
my %inside;

# Names that the last prune marked for removal: a full may go with those that need it, not before.
my %condemned;

my %handlers = (
    archive_info => sub {
        my ($archive) = @_;
        return is_differential($archive) ? \&archive_info : undef;
    },
    decompressor_info => sub {
        my ($format, $compression) = @_;
        return ($compression // '') =~ /\Avcdiff:/ ? \&decompressor_info : undef;
    },
    extract_vzdump_config_tar => sub {
        my ($archive) = @_;
        return is_differential($archive) ? \&extract_vzdump_config_tar : undef;
    },
    prune_mark_backup_group => sub { return \&prune_mark_backup_group },
    archive_remove => sub {
        my ($path) = @_;
        return is_full($path) && existing_dependants($path) ? \&archive_remove : undef;
    },
    vdisk_free => sub {
        my (undef, $volid) = @_;
        return ($volid // '') =~ m!:backup/! && is_full($volid) ? \&vdisk_free : undef;
    },
    restore_tar_archive => sub {
        my ($archive, undef, undef, undef, undef, $untrusted) = @_;
        return is_differential($archive) && !$untrusted ? \&restore_tar_archive : undef;
    },
);

=head1 ENTRY POINTS

=head2 takes($sub, @arguments)

The sub to run instead of upstream's C<$sub>, or undef where upstream's is right.

=cut

sub takes {
    my ($sub, @arguments) = @_;

    return if $inside{$sub};
    my $handler = $handlers{$sub} or return;
    return $handler->(@arguments);
}

=head2 plan_backup($self, $task, $vmid, \$comp, $logfd)

Called by C<PVE::VZDump::exec_backup_task> before data flows.  With C<fullbackup> set it decides
between a full and a differential backup, says why in the task's log and puts the names into
C<$task> and the compressor into C<$comp>.  Both are left alone for stdout, Proxmox Backup Server,
backup providers, and whenever something is not as it should be.

=cut

sub plan_backup {
    my ($self, $task, $vmid, $comp, $logfd) = @_;

    my $opts = $self->{opts};
    return if !$opts->{fullbackup};
    return if $opts->{stdout} || $opts->{pbs} || $self->{'backup-provider'};
    return if !defined($opts->{dumpdir}) || ($task->{target} // '-') eq '-';

    local $@;
    local $SIG{__DIE__} = 'DEFAULT';
    my $plan = eval { _make_plan($opts, $task, $vmid, $$comp) };
    if (my $err = $@) {
        die $err if $err =~ /^interrupted by signal/;
        chomp $err;
        PVE::VZDump::debugmsg('warn', "no differential backup is possible: $err", $logfd);
        PVE::VZDump::debugmsg('warn', "making an ordinary full backup instead", $logfd);
        return;
    }

    PVE::VZDump::debugmsg($plan->{level}, $plan->{reason}, $logfd);
    $task->{$_} = $plan->{$_} for qw(target tmptar logfile);
    $$comp = $plan->{comp};
    return;
}

# What to write where, and with which command; dies where only an ordinary full backup is right.
sub _make_plan {
    my ($opts, $task, $vmid, $comp) = @_;

    my $days = $opts->{fullbackup};
    die "'$days' is not a number of days\n" if $days !~ /\A[0-9]+\z/;

    my $full = parse_name(basename($task->{target}));
    my $dir = $opts->{dumpdir};
    die "the archive's name '$task->{target}' is not understood\n"
        if !$full || "$dir/$full->{name}" ne $task->{target} || $full->{vmid} ne $vmid;

    _check_hooks($full);
    _run_helper('--version');

    # Names have a resolution of one second: never write over a backup that has just been made.
    my $now = $full->{ctime};
    for my $try (1 .. 5) {
        my $plan = _plan_at($now, $dir, $full, $days, $comp);
        return $plan if !-e $plan->{target};
        sleep 1;
        $now = time();
    }
    die "backups with the present time exist already\n";
}

# The plan for a backup at a certain time.
sub _plan_at {
    my ($now, $dir, $full, $days, $comp) = @_;

    my $stamp = POSIX::strftime('%Y_%m_%d-%H_%M_%S', localtime($now));
    my ($base, $reason, $is_odd) = choose_base(
        [_files($dir)],
        type => $full->{type},
        vmid => $full->{vmid},
        format => $full->{format},
        days => $days,
        now => $now,
    );
    if ($base && !eval { _identify("$dir/$base"); 1 }) {
        my $err = $@;
        die $err if $err =~ /^interrupted by signal/;
        chomp $err;
        ($base, $reason, $is_odd) = (undef, "'$base' cannot serve as base ($err)", 1);
    }

    my $compression = $full->{compression};
    my @words = ($HELPER, $base ? 'diff' : 'full');
    my ($name, $stem);
    if ($base) {
        $name = differential_name(
            $base, $stamp, $compression,
        );
        $stem = "$base--differential-$stamp";
        $reason = "differential backup: $reason";
        push @words,
            '--base=' . encode_path("$dir/$base");
    } else {
        $stem = "vzdump-$full->{type}-$full->{vmid}-$stamp";
        $name = $stem . substr($full->{name}, length($full->{stem}));
        $reason = "full backup: $reason";
    }
    push @words, '--compress', $compression ? $COMPRESS_WORD{$compression} : 'none';
    push @words, '--threads', $1 if ($comp // '') =~ /(?:--threads=|-p )([0-9]+)/;

    my $tmp = "$dir/$name";
    $tmp =~ s/\.[^.]+\z/.dat/;
    my $plan = {
        target => "$dir/$name",
        tmptar => $tmp,
        logfile => "$dir/$stem.log",
        # an uncompressed full backup needs no help
        comp => $base || $compression ? join(' ', @words) : $comp,
    };
    # upstream would stop half-way through the task
    die "internal error - unsafe $_\n" for grep { tainted($plan->{$_}) } sort keys %$plan;

    return { %$plan, reason => $reason, level => $is_odd ? 'warn' : 'info' };
}

# Dies unless the file can serve as base: what is in it must be what its name says.
sub _identify {
    my ($path) = @_;

    my ($form) = _run_helper('identify', $path) =~ / form=([a-z0-9]+)/;
    my $compression = parse_name(basename($path))->{compression} // 'raw';
    die "it is not what its name says but '" . ($form // 'unknown') . "'\n"
        if !grep { $_ eq ($form // '') } @{ $FORMS{$compression} };
    return;
}

# A differential that this host could neither list nor restore must not be made: an upgrade may
# have brought back single files of upstream.
sub _check_hooks {
    my ($full) = @_;

    my $sample = differential_name(
        $full->{name}, $full->{stamp}, $full->{compression},
    );
    my $info = eval { PVE::Storage::archive_info("/$sample") } || {};
    die "PVE/Storage.pm is not patched any more, run 'pve-diff-backup apply'\n"
        if !$info->{is_std_name} || ($info->{compression} // '') !~ /\Avcdiff:/;

    return if $full->{type} ne 'lxc';
    my $create =
        dirname($INC{'PVE/Storage.pm'} // '/usr/share/perl5/PVE/Storage.pm') . '/LXC/Create.pm';
    open(my $fh, '<', $create) or die "cannot read '$create' - $!\n";
    my $is_patched = grep { /PVE::VZDump::Differential/ } <$fh>;
    close($fh);
    die "PVE/LXC/Create.pm is not patched any more, run 'pve-diff-backup apply'\n" if !$is_patched;
    return;
}

=head1 SUBS THAT STAND IN FOR UPSTREAM'S

=head2 archive_info($archive)

As C<PVE::Storage::archive_info>, for a differential.  C<compression> is C<vcdiff:> and the
encoded path of the full, which L</decompressor_info($format, $compression)> understands: a
decompressor that reads from a pipe does not learn the archive's name.

=cut

sub archive_info {
    my ($archive) = @_;

    my $info = parse_name(basename($archive))
        or die "ERROR: couldn't determine archive info from '$archive'\n";

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
        decompressor => _decompressor($word),
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
    _check_base(decode_path($word)) if $word ne '';

    return {
        format => $format,
        compression => $compression,
        decompressor => _decompressor($word),
    };
}

=head2 extract_vzdump_config_tar($archive, $conf_re)

As C<PVE::Storage::extract_vzdump_config_tar>.  The configuration is at the start of an archive
and only that much is decoded.  Restore of a container calls it before it touches anything.

=cut

sub extract_vzdump_config_tar {
    my ($archive, $conf_re) = @_;

    die "ERROR: file '$archive' does not exist\n" if !-f $archive;

    my $stream = _open_decoder($archive);
    my ($raw, $file) = _find_in_tar($stream, $conf_re);
    if (!defined($file)) {
        _close_decoder($stream, $archive);
        die "ERROR: archive contains no configuration file\n";
    }
    close($stream); # decoding stops here, so its status says nothing

    return wantarray ? ($raw, $file) : $raw;
}

=head2 prune_mark_backup_group(\@group, \%keep)

As C<PVE::Storage::prune_mark_backup_group>, then a full that a kept or protected backup needs is
kept. Differentials without their full do not count for the retention rules.

=cut

sub prune_mark_backup_group {
    my ($group, $keep) = @_;

    my ($good, $stranded) = split_restorable($group);
    {
        local $inside{prune_mark_backup_group} = 1;
        PVE::Storage::prune_mark_backup_group($good, $keep);
    }
    mark_stranded($stranded, $good, $keep);
    keep_needed($group);

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

=head2 archive_remove($path)

As C<PVE::Storage::archive_remove>, for a full that others need: they go first if they were marked
together with it, otherwise it stays.

=cut

sub archive_remove {
    my ($path) = @_;

    my $dir = dirname($path);
    my @needing = existing_dependants($path);
    my @kept = grep { !$condemned{$_} || -e "$dir/$_.protected" } @needing;
    die _needed_message($path, @kept) if @kept;

    PVE::Storage::archive_remove("$dir/$_") for @needing;

    local $inside{archive_remove} = 1;
    return PVE::Storage::archive_remove($path);
}

=head2 vdisk_free($cfg, $volid)

As C<PVE::Storage::vdisk_free>, but refuses to delete a full that others need.

=cut

sub vdisk_free {
    my ($cfg, $volid) = @_;

    my ($path) = PVE::Storage::path($cfg, $volid);
    if (defined($path) && $path =~ m!\A/!) {
        my @needing = existing_dependants($path);
        die _needed_message($volid, @needing) if @needing;
    }

    local $inside{vdisk_free} = 1;
    return PVE::Storage::vdisk_free($cfg, $volid);
}

=head2 restore_tar_archive($archive, $rootdir, $conf, $no_unpack_error, $bwlimit)

As C<PVE::LXC::Create::restore_tar_archive>: decodes and lets the original read from its standard
input.

=cut

sub restore_tar_archive {
    my ($archive, $rootdir, $conf, $no_unpack_error, $bwlimit) = @_;

    my $info = archive_info($archive);
    my $stream = _open_decoder($archive);
    print "decoding differential backup '$info->{filename}'\n";

    # upstream reads the file descriptor 0 when it is told to restore '-'
    my $stdin;
    if (defined(fileno(STDIN))) {
        open($stdin, '<&', \*STDIN) or die "cannot save standard input - $!\n";
    }
    open(STDIN, '<&', $stream) or die "cannot redirect standard input - $!\n";
    my $ok = eval {
        local $inside{restore_tar_archive} = 1;
        PVE::LXC::Create::restore_tar_archive('-', $rootdir, $conf, $no_unpack_error, $bwlimit);
        1;
    };
    my $err = $@;
    close(STDIN);
    if ($stdin) {
        open(STDIN, '<&', $stdin) or die "cannot restore standard input - $!\n";
        close($stdin);
    }

    # both may have failed; the decoder's reason is the better one unless it only lost its reader
    eval { _close_decoder($stream, $archive) };
    if (my $decoder_err = $@) {
        die $decoder_err if !$no_unpack_error && ($ok || $decoder_err !~ /signal 13$/);
        warn $decoder_err;
    }
    die $err if !$ok;
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

=head2 existing_dependants($path)

The names of the differentials beside the full that need it, unfinished ones included.

=cut

sub existing_dependants {
    my ($path) = @_;

    my ($dir, $name) = $path =~ m!\A(/.*)/([^/]+)\z!s or return;
    my @needing =
        dependants($name, map { $_->{name} } _files($dir));

    # names from a folder are tainted; those of finished differentials are known to the last
    # letter
    return map { (parse_name($_) || { name => $_ })->{name} } @needing;
}

sub _needed_message {
    my ($full, @needing) = @_;

    return
          "cannot remove full backup '$full': "
        . scalar(@needing)
        . " differential backup(s) need it, remove them first: "
        . join(', ', @needing) . "\n";
}

sub _check_base {
    my ($path) = @_;

    return if -f $path;
    my ($name, $dir) = (basename($path), dirname($path));
    die "the full backup '$name' is needed to restore this differential backup, but it is not in"
        . " '$dir' - put it back there first\n";
}

# The entries of a folder that could be backups: name, size, readable.
sub _files {
    my ($dir) = @_;

    opendir(my $dh, $dir) or die "cannot read folder '$dir' - $!\n";
    my @names = grep { /\Avzdump-/ } readdir($dh);
    closedir($dh);

    my @files;
    for my $name (@names) {
        my @stat = stat("$dir/$name");
        next if !@stat || !Fcntl::S_ISREG($stat[2]);
        push @files, { name => $name, size => $stat[7], readable => -r _ };
    }
    return @files;
}

sub _decompressor {
    my ($word) = @_;

    # without a path the helper finds the full beside the file
    return [$HELPER, 'restore', $word eq '' ? () : "--base=$word"];
}

# Runs the helper to the end and returns what it said; dies with that unless it ends well.
sub _run_helper {
    my (@arguments) = @_;

    die "$HELPER is missing\n" if !-x $HELPER;

    local %ENV = (PATH => $SAFE_PATH);
    local $SIG{CHLD} = 'DEFAULT';
    my $pid = open(my $fh, '-|') // die "cannot start $HELPER - $!\n";
    if (!$pid) {
        # whatever happens here, two processes must not run on with the backup
        eval {
            open(STDERR, '>&', \*STDOUT) or die "$!\n";
            open(STDIN, '<', '/dev/null') or die "$!\n";
            exec {$HELPER} $HELPER, @arguments or die "$!\n";
        };
        syswrite(STDOUT, "cannot be started - $@");
        POSIX::_exit(127);
    }

    my ($said, $is_late) = ('', 0);
    my $select = IO::Select->new($fh);
    while (1) {
        if (!$select->can_read($HELPER_TIMEOUT)) {
            next if $!{EINTR};
            kill 9, $pid;
            $is_late = 1;
            last;
        }
        my $count = sysread($fh, my $part, 4096);
        next if !defined($count) && $!{EINTR};
        last if !$count;
        $said .= $part if length($said) < 4096;
    }
    close($fh);
    return $said if $? == 0 && !$is_late;

    $said =~ s/\s+/ /g;
    $said =~ s/\A | \z//g;
    $said = substr($said, 0, 300) . '...' if length($said) > 300;
    die "$HELPER $arguments[0]: "
        . ($is_late ? "no answer in $HELPER_TIMEOUT seconds" : $said || "exit status $?") . "\n";
}

# A handle to read the decoded stream of a differential from.
sub _open_decoder {
    my ($archive) = @_;

    my $info = archive_info($archive);
    my ($dir) = $archive =~ m!\A(/.*)/[^/]+\z!s
        or die "internal error - '$archive' is not an absolute path\n";
    _check_base("$dir/" . parse_name($info->{filename})->{base});

    local %ENV = (PATH => $SAFE_PATH);
    open(my $fh, '-|', @{ $info->{decompressor} }, "$dir/$info->{filename}")
        or die "cannot start $HELPER - $!\n";
    return $fh;
}

# Waits for the decoder; dies unless it ended well.
sub _close_decoder {
    my ($fh, $archive) = @_;

    local $SIG{CHLD} = 'DEFAULT';
    close($fh) and return;
    my $what = $? & 127 ? 'signal ' . ($? & 127) : 'exit status ' . ($? >> 8);
    die "decoding '" . basename($archive) . "' failed - $what\n";
}

# Reads a tar stream up to the first member whose name matches.  Returns its content and its name
# as the pattern's first group has it, as upstream's version does; an empty list at the end of the
# stream.
sub _find_in_tar {
    my ($fh, $name_re) = @_;

    while (defined(my $header = _read_exactly($fh, 512))) {
        last if $header !~ /[^\0]/;

        my ($name, $size, $type, $magic, $prefix) =
            unpack('Z100 x24 a12 x20 a1 x100 a6 x82 Z155', $header);
        my $length = _tar_number($size);
        $name = "$prefix/$name" if $magic eq "ustar\0" && $prefix ne ''; # GNU's has a blank

        my ($file) = $type =~ /[0\0]/ ? "$name\n" =~ $name_re : ();
        if (defined($file)) {
            chomp $file;
            die "ERROR: '$file' is too large for a configuration file\n" if $length > $MAX_CONFIG;
            my $raw = _read_exactly($fh, $length) // die "ERROR: archive ends within '$file'\n";
            $raw .= "\n" if $raw ne '' && $raw !~ /\n\z/;
            return ($raw, $file);
        }

        my $rest = int(($length + 511) / 512) * 512;
        while ($rest > 0) {
            my $part = $rest < 65536 ? $rest : 65536;
            defined(_read_exactly($fh, $part)) or return;
            $rest -= $part;
        }
    }
    return;
}

# A number in a tar header: octal text, or big endian where the first bit is set.
sub _tar_number {
    my ($field) = @_;

    my @bytes = unpack('C*', $field);
    if ($bytes[0] & 0x80) {
        my $value = 0;
        $value = $value * 256 + $_ for @bytes[4 .. $#bytes];
        return $value;
    }
    my ($digits) = $field =~ /\A ?([0-7]+)[ \0]*\z/
        or die "ERROR: malformed tar header in archive\n";
    no warnings qw(portable); # members beyond 4 GiB are common
    return oct($digits);
}

# Exactly so many bytes, or undef at the end of the stream.
sub _read_exactly {
    my ($fh, $length) = @_;

    my $data = '';
    while (length($data) < $length) {
        my $count = read($fh, $data, $length - length($data), length($data));
        return if !$count;
    }
    return $data;
}

1;
