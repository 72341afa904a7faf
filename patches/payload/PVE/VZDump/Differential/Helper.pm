package PVE::VZDump::Differential::Helper;

# Part of pve-diff-backup.

use strict;
use warnings;

use Errno qw(ENOENT);
use Exporter qw(import);
use File::Basename qw(basename dirname);
use IO::Select;
use POSIX ();

use PVE::VZDump::Differential::Chain qw(parse_name full_forms encode_path dependants shown
    parse_settings);
use PVE::VZDump::Differential::Unfinished qw(names_in states);

our @EXPORT_OK =
    qw(run_helper run_into identify content settings guest_config full_config find_in_tar
    decoder_command open_decoder close_decoder probe check_base check_archive backup_files
    existing_dependants);

=head1 NAME

PVE::VZDump::Differential::Helper - folders of backups, and the program that reads and writes them

=cut

# The program that encodes and decodes; a package variable so that a tree elsewhere can name its
# own.
our $HELPER;
$HELPER = '/usr/bin/pve-xdelta3' if !defined($HELPER);

# The administrator's settings, the cluster's file before the node's, and the folder of guests'
# configurations; variables for the same reason.
our (@CONFIGS, $GUESTS);
@CONFIGS = ('/etc/pve/pve-diff-backup.conf', '/etc/pve-diff-backup.conf') if !@CONFIGS;
$GUESTS = '/etc/pve' if !defined($GUESTS);

# What is read of the settings: nobody writes as much.
my $MAX_SETTINGS = 64 * 1024;

# How long the helper may take to look at a base: it reads a few blocks, perhaps from a slow
# network.
my $HELPER_TIMEOUT = 120;

# What the helper says in answer to a question is a line, or a guest's configuration.
my $MAX_ANSWER = 4 * 1024 * 1024;

# What is shown of an error of the helper, which may name two files.
my $MAX_ERROR = 1000;

# The helper's whole environment: nothing that a caller set reaches it, nor is any of it tainted.
my $SAFE_PATH = '/usr/sbin:/usr/bin:/sbin:/bin';

# What the helper finds in a file of each extension, and what unpacks it.
my %FORMS = (zst => ['map', 'zstd'], lzo => ['lzop'], gz => ['gzip'], raw => ['raw']);
my %UNPACK =
    (zst => ['zstd', '-qdc'], lzo => ['lzop', '-qdc'], gz => ['gzip', '-qdc'], raw => ['cat']);

# A guest's configuration is a few KiB, and the first file of a container's archive.
my $MAX_CONFIG = 4 * 1024 * 1024;
my $MAX_START = 1024 * 1024;

=head1 FUNCTIONS

=head2 run_helper(@arguments)

Runs the helper to the end and returns its answer; dies with what it said unless it ends well.
Warnings of its become ours.

=cut

sub run_helper {
    my (@arguments) = @_;

    die "$HELPER is missing\n" if !-x $HELPER;

    my ($text, $told, $is_late) = _output_of([$HELPER, @arguments], $MAX_ANSWER);
    my $status = $?;
    if ($status == 0 && !$is_late) {
        warn shown($_, $MAX_ERROR) . "\n" for split(/\n/, $told);
        return $text;
    }

    my $reason = $is_late ? "no answer in $HELPER_TIMEOUT seconds" : _reason("$told $text");
    die "$HELPER $arguments[0]: " . ($reason || "exit status $status") . "\n";
}

# What the helper said, in one line.
sub _reason {
    my ($said) = @_;

    $said =~ s/\s+/ /g;
    $said =~ s/\A | \z//g;
    $said =~ s/\Apve-xdelta3(?: vma)?: //; # we say so
    return shown($said, $MAX_ERROR);
}

# The first bytes that a command says, what it says of errors, and whether it kept silent for too
# long.  C<$?> has its status.  It runs to its end only if that comes within these bytes.
sub _output_of {
    my ($cmd, $limit) = @_;

    local %ENV = (PATH => $SAFE_PATH);
    local $SIG{CHLD} = 'DEFAULT';
    pipe(my $errors, my $stderr) or die "cannot make a pipe - $!\n";
    my $pid = open(my $answer, '-|') // die "cannot start $cmd->[0] - $!\n";
    if (!$pid) {
        # whatever happens here, two processes must not run on with the backup
        eval {
            open(STDERR, '>&', $stderr) or die "$!\n";
            open(STDIN, '<', '/dev/null') or die "$!\n";
            exec { $cmd->[0] } @$cmd or die "$!\n";
        };
        syswrite(STDOUT, "cannot be started - $@");
        POSIX::_exit(127);
    }

    close($stderr);
    my ($said, $told, $is_late) = ('', '', 0);
    my $select = IO::Select->new($answer, $errors);
    while ($select->count() && length($said) < $limit && length($told) < $limit) {
        local $! = 0;
        my @ready = $select->can_read($HELPER_TIMEOUT);
        if (!@ready) {
            next if $!{EINTR};
            $is_late = 1;
            last;
        }
        for my $fh (@ready) {
            my $text = $fh == $answer ? \$said : \$told;
            my $count = sysread($fh, $$text, 65536, length($$text));
            next if !defined($count) && $!{EINTR};
            $select->remove($fh) if !$count;
        }
    }
    if ($select->count()) { # a modifier would taint the process ID
        kill 9, $pid;
    }
    close($answer);
    return ($said, $told, $is_late);
}

=head2 run_into($path, @command)

Runs a command, with the file as its output where one is given.  Returns its exit status and what it
says; dies where it does not end by itself.

=cut

sub run_into {
    my ($path, @command) = @_;

    my $out;
    if (defined($path)) {
        open($out, '>', $path) or die "cannot write '$path' - $!\n";
    }
    @command = map { m/\A(.*)\z/s ? $1 : () } @command; # each a word of its own
    my $said = '';
    my $is_done = eval {
        local %ENV = (PATH => $SAFE_PATH);
        PVE::Tools::run_command(
            \@command,
            $out ? (output => '>&' . fileno($out)) : (),
            errfunc => sub { $said .= "$_[0] " if length($said) < 2 * $MAX_ERROR },
        );
        1;
    };
    my $err = $@;
    if ($out) {
        close($out) or die "cannot write '$path' - $!\n";
    }
    my $status = $is_done ? 0 : $err =~ /exit code ([0-9]+)/ ? $1 : die $err;
    $said =~ s/ \z//;
    $said =~ s/\Apve-xdelta3: //;
    return ($status, $said ne '' ? shown($said, $MAX_ERROR) : $status ? "exit status $status" : '');
}

=head2 identify($path)

Dies unless the file can serve as base: what is in it must be what its name says.  Returns a hash:
C<id>, C<has_map>, and C<from_start> if it can only be read from its start.

=cut

sub identify {
    my ($path) = @_;

    my ($form, $id, $how) =
        run_helper('identify', $path) =~
        / form=([a-z0-9]+) id=([0-9a-f]+) size=\S+ \(([^()]+)\)\s*\z/;
    my $compression = parse_name(basename($path))->{compression} // 'raw';
    die "it is not what its name says but '" . ($form // 'unknown') . "'\n"
        if !grep { $_ eq ($form // '') } @{ $FORMS{$compression} };
    return {
        id => $id, has_map => $form eq 'map',
        from_start => scalar($how =~ /from its start only/) };
}

=head2 content($path)

C<full> or C<differential>: what the helper has written into a file.

=cut

sub content {
    my ($path) = @_;

    return 'full' if eval { run_helper('identify', $path); 1 };
    my $err = $@;
    return 'differential' if $err =~ / is a differential, not a full backup$/;
    die $err;
}

=head2 settings($storage)

The administrator's settings for a storage as a hash, then what is wrong with their files.

=cut

sub settings {
    my ($storage) = @_;

    my (@texts, @told);
    for my $path (@CONFIGS) {
        my ($text, $obstacle) = _settings_of($path);
        push @texts, $text;
        push @told, "cannot read '$path' - $obstacle, so what it sets does not hold"
            if defined($obstacle);
    }
    my ($settings, @complaints) = parse_settings($storage, @texts);
    for my $n (0 .. $#CONFIGS) {
        push @told, map { "'$CONFIGS[$n]', $_" } @{ $complaints[$n] };
    }
    return ($settings, @told);
}

# The text of a file of settings, and why it cannot be read.
sub _settings_of {
    my ($path) = @_;

    my $fh;
    return $!{ENOENT} ? '' : ('', "$!") if !open($fh, '<', $path);
    my $count = read($fh, my $text, $MAX_SETTINGS);
    my $error = "$!";
    close($fh);
    return ('', $error) if !defined($count);
    return $count == $MAX_SETTINGS ? ('', 'it is too long') : $text;
}

=head2 guest_config($type, $vmid), full_config($path)

The configuration that a guest has now, and the one within a full.  Both die without one.

=cut

sub guest_config {
    my ($type, $vmid) = @_;

    my $folder = { qemu => 'qemu-server', lxc => 'lxc' }->{$type}
        or die "guests of type '$type' cannot be told apart\n";
    my $path = "$GUESTS/$folder/$vmid.conf";
    open(my $fh, '<', $path) or die "cannot read '$path' - $!\n";
    read($fh, my $config, $MAX_CONFIG) or die "'$path' is empty\n";
    close($fh);
    return $config;
}

sub full_config {
    my ($path) = @_;

    my $info = parse_name(basename($path));
    return run_helper('vma', 'config', $path) if $info->{format} eq 'vma';

    my $unpack = $UNPACK{ $info->{compression} // 'raw' };
    my ($start) = _output_of([@$unpack, $path], $MAX_START);
    open(my $fh, '<', \$start) or die "cannot read from memory - $!\n";
    my ($config) = find_in_tar($fh, qr!^(\./etc/vzdump/pct\.conf)$!);
    return $config // die "no configuration is at the start of '" . shown($path) . "'\n";
}

=head2 find_in_tar($fh, $name_re)

Reads a tar stream up to the first member whose name matches.  Returns its content and its name as
the pattern's first group has it, as upstream's C<extract_vzdump_config_tar> does; an empty list at
the end of the stream.

=cut

sub find_in_tar {
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

=head2 decoder_command($word)

The command that decodes the differential whose path is appended, or C<-> for standard input.
C<$word> is the full's path as L<PVE::VZDump::Differential::Chain/encode_path($path)> makes it;
where it is empty the helper finds the full beside the file.  Both must be regular files: others can
write to a storage, and could put a link to any file of the host there.

=cut

sub decoder_command {
    my ($word) = @_;

    return [$HELPER, 'restore', $word eq '' ? () : "--stored-base=$word"];
}

=head2 open_decoder($archive, $limit)

A handle to read the decoded stream of a differential from; C<$limit> in KiB/s is for reading it.

=cut

sub open_decoder {
    my ($archive, $limit) = @_;

    my ($path, @decoder) = _decoder_of($archive);
    local %ENV = (PATH => $SAFE_PATH);
    my $fh;
    if (!$limit) {
        open($fh, '-|', @decoder, $path) or die "cannot start $HELPER - $!\n";
        return $fh;
    }

    my $pid = open($fh, '-|') // die "cannot start $HELPER - $!\n";
    if (!$pid) {
        # whatever happens here, two processes must not run on with the restore
        eval {
            open(STDIN, '-|', 'cstream', '-t', $limit * 1024, '--', $path) or die "cstream: $!\n";
            exec { $decoder[0] } @decoder, '-' or die "$HELPER: $!\n";
        };
        warn "cannot be started - $@";
        POSIX::_exit(127);
    }
    return $fh;
}

# A differential's path and the command that decodes it, if its full and it can be read.
sub _decoder_of {
    my ($archive) = @_;

    my $info = parse_name(basename($archive));
    my ($dir) = $archive =~ m!\A(/.*)/[^/]+\z!s
        or die "internal error - '" . shown($archive) . "' is not an absolute path\n";
    my ($path, $base) = ("$dir/$info->{name}", "$dir/$info->{base}");
    check_base($base);
    check_archive($path);
    return ($path, @{ decoder_command(encode_path($base)) });
}

=head2 close_decoder($fh, $archive)

Waits for the decoder; dies unless it ended well.

=cut

sub close_decoder {
    my ($fh, $archive) = @_;

    local $SIG{CHLD} = 'DEFAULT';
    close($fh) and return;
    my $what = $? & 127 ? 'signal ' . ($? & 127) : 'exit status ' . ($? >> 8);
    die "decoding '" . basename($archive) . "' failed - $what\n";
}

=head2 probe($archive)

Dies unless decoding of the differential begins: its full is there, and is the one it was made
against.

=cut

sub probe {
    my ($archive) = @_;

    my ($path, @decoder) = _decoder_of($archive);
    my ($said, $told, $is_late) = _output_of([@decoder, $path], 512);
    my $status = $?;
    return if $said ne ''; # decoding stops here, so its status says nothing

    my $reason = $is_late ? "no answer in $HELPER_TIMEOUT seconds" : _reason($told);
    $reason ||= $status ? "exit status $status" : 'it is empty';
    die "decoding '" . basename($path) . "' failed - $reason\n";
}

=head2 check_base($path)

Dies unless the full is there, or the same in another compression, as a regular file.

=cut

sub check_base {
    my ($path) = @_;

    my ($name, $dir) = (basename($path), dirname($path));
    my @odd;
    for my $form (full_forms($name)) {
        next if !lstat("$dir/$form");
        my $odd = _oddity() // return;
        push @odd, "the full backup '" . shown($form) . "' in '" . shown($dir) . "' is $odd";
    }
    die "$odd[0], which is not read - put the file itself there\n" if @odd;
    ($name, $dir) = map { shown($_) } $name, $dir;
    die "the full backup '$name' is needed to restore this differential backup, but it is not in"
        . " '$dir' - put it back there first\n";
}

=head2 check_archive($path)

Dies unless the differential is there, as a regular file.

=cut

sub check_archive {
    my ($path) = @_;

    my $name = shown($path);
    lstat($path) or die "cannot read '$name' - $!\n";
    my $odd = _oddity() // return;
    die "'$name' is $odd, which is not read - put the file itself there\n";
}

# What the file that was looked at last is, undef for a regular file.
sub _oddity {
    return 'a symbolic link' if -l _;
    return -f _ ? undef : 'no regular file';
}

=head2 backup_files($dir)

The entries of a folder that could be backups, as hashes: C<name>, C<size>, C<readable>, and C<odd>
where it is no regular file (a symbolic link is none).

=cut

sub backup_files {
    my ($dir) = @_;

    # Names are bytes: joined to characters they would become those of another file.
    utf8::encode($dir) if utf8::is_utf8($dir);
    my $dh;
    my $names = opendir($dh, $dir) ? names_in($dh) : undef;
    die "cannot read folder '" . shown($dir) . "' - $!\n" if !$names;
    closedir($dh);

    my @files;
    for my $name (grep { /\Avzdump-/ } @$names) {
        my @stat = lstat("$dir/$name");
        next if @stat ? -d _ : $! == ENOENT;

        # It is there, whatever it is: what it needs must stay.
        my $odd = @stat ? _oddity() : "one that cannot be looked at ($!)";
        push @files,
            {
            name => $name,
            size => $stat[7] // 0,
            readable => !defined($odd) && -r _,
            odd => $odd,
            };
    }
    return @files;
}

=head2 existing_dependants($path)

The names of the differentials beside the full that need it, also of those that are being made; what
a killed backup left needs nothing.  One that also has its full in another compression there needs
this file unless the other is known to do.

=cut

sub existing_dependants {
    my ($path) = @_;

    my ($dir, $name) = $path =~ m!\A(/.*)/([^/]+)\z!s or return;
    my @names = map { $_->{name} } backup_files($dir);
    my @needing = dependants($name, @names);
    my %present = map { $_ => 1 } @names;
    for my $other (grep { $_ ne $name && $present{$_} } full_forms($name)) {
        @needing = grep { !_serves("$dir/$other", $dir, $_) } @needing;
    }

    my %states = states(grep { !parse_name($_) } @needing);
    @needing = grep { ($states{$_} // '') ne 'left' } @needing;

    # names from a folder are tainted; those of finished differentials are known to the last
    # letter
    return map { (parse_name($_) || { name => $_ })->{name} } @needing;
}

# Whether a full is known to be the one that the differential of this name needs.
sub _serves {
    my ($full, $dir, $name) = @_;

    my $differential = parse_name($name) or return;
    return eval { run_helper('identify', '--for', "$dir/$differential->{name}", $full); 1 };
}

1;
