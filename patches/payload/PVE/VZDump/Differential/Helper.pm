package PVE::VZDump::Differential::Helper;

# Part of pve-diff-backup.

use strict;
use warnings;

use Exporter qw(import);
use Fcntl ();
use File::Basename qw(basename dirname);
use IO::Select;
use POSIX ();

use PVE::VZDump::Differential::Chain qw(parse_name encode_path dependants);

our @EXPORT_OK = qw(run_helper identify decoder_command open_decoder close_decoder probe check_base
    backup_files existing_dependants);

=head1 NAME

PVE::VZDump::Differential::Helper - folders of backups, and the program that reads and writes them

=cut

# The program that encodes and decodes; a package variable so that a tree elsewhere can name its
# own.
our $HELPER;
$HELPER = '/usr/bin/pve-xdelta3' if !defined($HELPER);

# How long the helper may take to look at a base: it reads a few blocks, perhaps from a slow
# network.
my $HELPER_TIMEOUT = 120;

# What the helper says in answer to a question is a line, or a guest's configuration.
my $MAX_ANSWER = 4 * 1024 * 1024;

# The helper's whole environment: nothing that a caller set reaches it, nor is any of it tainted.
my $SAFE_PATH = '/usr/sbin:/usr/bin:/sbin:/bin';

# What the helper finds in a file of each extension.
my %FORMS = (zst => ['map', 'zstd'], lzo => ['lzop'], gz => ['gzip'], raw => ['raw']);

=head1 FUNCTIONS

=head2 run_helper(@arguments)

Runs the helper to the end and returns what it said; dies with that unless it ends well.

=cut

sub run_helper {
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
        $said .= $part if length($said) < $MAX_ANSWER;
    }
    close($fh);
    return $said if $? == 0 && !$is_late;

    $said =~ s/\s+/ /g;
    $said =~ s/\A | \z//g;
    $said = substr($said, 0, 300) . '...' if length($said) > 300;
    die "$HELPER $arguments[0]: "
        . ($is_late ? "no answer in $HELPER_TIMEOUT seconds" : $said || "exit status $?") . "\n";
}

=head2 identify($path)

Dies unless the file can serve as base: what is in it must be what its name says.

=cut

sub identify {
    my ($path) = @_;

    my ($form) = run_helper('identify', $path) =~ / form=([a-z0-9]+)/;
    my $compression = parse_name(basename($path))->{compression} // 'raw';
    die "it is not what its name says but '" . ($form // 'unknown') . "'\n"
        if !grep { $_ eq ($form // '') } @{ $FORMS{$compression} };
    return;
}

=head2 decoder_command($word)

The command that decodes the differential whose path is appended, or C<-> for standard input.
C<$word> is the full's path as L<PVE::VZDump::Differential::Chain/encode_path($path)> makes it;
where it is empty the helper finds the full beside the file.

=cut

sub decoder_command {
    my ($word) = @_;

    return [$HELPER, 'restore', $word eq '' ? () : "--base=$word"];
}

=head2 open_decoder($archive, $limit)

A handle to read the decoded stream of a differential from; C<$limit> in KiB/s is for reading it.

=cut

sub open_decoder {
    my ($archive, $limit) = @_;

    my $info = parse_name(basename($archive));
    my ($dir) = $archive =~ m!\A(/.*)/[^/]+\z!s
        or die "internal error - '$archive' is not an absolute path\n";
    my ($path, $base) = ("$dir/$info->{name}", "$dir/$info->{base}");
    check_base($base);

    local %ENV = (PATH => $SAFE_PATH);
    my @decoder = @{ decoder_command(encode_path($base)) };
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

    my $stream = open_decoder($archive);
    my $count = read($stream, my $start, 512);
    if (!$count) {
        close_decoder($stream, $archive);
        die "'" . basename($archive) . "' is empty\n";
    }
    close($stream); # decoding stops here, so its status says nothing
    return;
}

=head2 check_base($path)

Dies unless the full is there.

=cut

sub check_base {
    my ($path) = @_;

    return if -f $path;
    my ($name, $dir) = (basename($path), dirname($path));
    die "the full backup '$name' is needed to restore this differential backup, but it is not in"
        . " '$dir' - put it back there first\n";
}

=head2 backup_files($dir)

The entries of a folder that could be backups, as hashes: C<name>, C<size>, C<readable>.

=cut

sub backup_files {
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

=head2 existing_dependants($path)

The names of the differentials beside the full that need it, unfinished ones included.

=cut

sub existing_dependants {
    my ($path) = @_;

    my ($dir, $name) = $path =~ m!\A(/.*)/([^/]+)\z!s or return;
    my @needing =
        dependants($name, map { $_->{name} } backup_files($dir));

    # names from a folder are tainted; those of finished differentials are known to the last
    # letter
    return map { (parse_name($_) || { name => $_ })->{name} } @needing;
}

1;
