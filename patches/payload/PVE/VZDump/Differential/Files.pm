package PVE::VZDump::Differential::Files;

# Part of pve-diff-backup.

use strict;
use warnings;

use Digest::MD5 qw(md5_hex);
use Fcntl qw(:DEFAULT :flock);
use File::Basename qw(basename);
use File::Temp qw(tempdir);
use MIME::Base64 qw(decode_base64 encode_base64);
use POSIX ();
use Time::HiRes ();

use PVE::VZDump::Differential::Chain qw(parse_name shown);
use PVE::VZDump::Differential::Helper;

# No `use` of what could load PVE::Storage, which loads us.

=head1 NAME

PVE::VZDump::Differential::Files - files out of a container's backup, for the web interface

=head1 DESCRIPTION

Upstream's C<PVE::API2::Storage::FileRestore> lists and sends files of backups on a Proxmox Backup
Server.  These subs answer its calls for containers' backups that are files, full or differential,
ours or vzdump's own.  Who may ask is decided as there.  The archive is read by L<pve-xdelta3(1)>;
where its names are not known yet, a task reads them, and the call says how far that is.

=cut

# Where locks lie, and the folder of caches of what this host reads: only root can write there.
# Package variables so that a tree elsewhere can name its own.
our ($LOCKS, $CACHES);
$LOCKS = '/run' if !defined($LOCKS);
$CACHES = '/var/cache' if !defined($CACHES);

# How long a call waits for the names, and how long it may take in all: pveproxy waits for 30 seconds.
our $WAIT;
$WAIT = 15 if !defined($WAIT);
my $TIMEOUT = 25;

# A file up to this size is read once before it is sent, for so long at most: a stream cannot tell an
# error any more.
my $MAX_CHECKED = 1024 * 1024 * 1024;
my $CHECK = 10;

# How long a download waits for whoever asked for it.
my $OPENED = 30;

# The most entries of a folder that are listed: a browser has to show them.
my $MAX_ENTRIES = 20_000;

# What an answer may hold, and what is passed on of what the program says.
my $MAX_ANSWER = 32 * 1024 * 1024;
my $MAX_SAID = 1000;

# The program's whole environment, apart from its caches.
my $SAFE_PATH = '/usr/sbin:/usr/bin:/sbin:/bin';

=head1 SUBS

=head2 concerns($param)

Whether a call with these parameters is about a container's backup that is a file.

=cut

sub concerns {
    my ($param) = @_;

    return defined(_volume($param)) ? 1 : 0;
}

# The volume ID of such a backup, as upstream makes it of the parameters; undef for all others.
sub _volume {
    my ($param) = @_;

    my ($storeid, $volume) = @$param{qw(storage volume)};
    return if !defined($storeid) || !defined($volume);
    my ($sid) = PVE::Storage::parse_volume_id($volume, 1);
    return if defined($sid) && $sid ne $storeid;
    my $volid =
          defined($sid) ? $volume
        : $volume =~ m!\Abackup/! ? "$storeid:$volume"
        : "$storeid:backup/$volume";

    my $cfg = PVE::Storage::config();
    my $scfg = $cfg->{ids}->{$storeid};
    return if !$scfg || !defined($scfg->{path}) || $scfg->{type} eq 'pbs';
    my $has_feature = PVE::Storage->can('storage_has_feature');
    return if $has_feature && eval { $has_feature->($cfg, $storeid, 'backup-provider') };

    my ($type, $name) = eval { PVE::Storage::parse_volname($cfg, $volid) };
    return if ($type // '') ne 'backup' || !defined($name);
    my $info = parse_name(basename($name));
    my $is_containers =
          $info
        ? $info->{type} ne 'qemu'
        : $name =~ /\.(?:tar(?:\.(?:gz|lzo|zst|bz2|xz))?|tgz)\z/;
    return $is_containers ? $volid : undef;
}

=head2 file_list($param, $filepath)

As upstream's call C<list>: what is in a folder.  A file is read to its end, as far as there is time,
so that its damage shows before somebody takes it for whole; then it is the only entry.

=cut

sub file_list {
    my ($param, $filepath) = @_;

    my $end = time() + $TIMEOUT;
    my $asked = _asked($param, $filepath);
    my $answer = _look($asked, $end);
    if ($answer->{state} eq 'file') {
        _check($asked, $answer->{entry}, $end);
        my ($folder) = $asked->{path} =~ m!\A(.*)/!s;
        return [_entry($folder, $answer->{entry})];
    }
    die "the folder has $answer->{count} entries, more than can be shown here ($answer->{most}):"
        . " download it as a whole, or see 'pve-xdelta3 tar list' on the node\n"
        if $answer->{state} eq 'many';
    return [map { _entry($asked->{path}, $_) } @{ $answer->{entries} }];
}

# An entry as upstream has it.
sub _entry {
    my ($folder, $entry) = @_;

    my $name = pack('H*', $entry->{name});
    return {
        filepath => encode_base64("$folder/$name", ''),
        text => $entry->{text},
        type => $entry->{type},
        leaf => $entry->{type} eq 'd' ? 0 : 1,
        defined($entry->{size}) ? (size => int($entry->{size})) : (),
        defined($entry->{mtime}) ? (mtime => int($entry->{mtime})) : (),
    };
}

=head2 file_download($param, $filepath)

As upstream's call C<download>: a file, or a folder as zip or, with C<tar>, as tar.zst, as a stream
that a task writes.

=cut

sub file_download {
    my ($param, $filepath) = @_;

    my $end = time() + $TIMEOUT;
    my $asked = _asked($param, $filepath);
    my $answer = _look($asked, $end);
    my $form = $answer->{state} eq 'file' ? 'file' : $param->{tar} ? 'tar.zst' : 'zip';
    _check($asked, $answer->{entry}, $end) if $form eq 'file';

    # for pveproxy, which runs as this user
    my $reader = getpwnam('www-data') // die "there is no user www-data\n";
    my $dir = tempdir('pve-diff-backup-XXXXXX', TMPDIR => 1);
    my $fifo = "$dir/fifo";
    my $remove = sub { unlink($fifo); rmdir($dir) };
    my $is_begun = eval {
        POSIX::mkfifo($fifo, oct('600')) or die "cannot make '$fifo' - $!\n";
        for my $path ($fifo, $dir) {
            chown($reader, -1, $path) or die "cannot give '$path' to www-data - $!\n";
        }
        $asked->{rpcenv}->fork_worker(
            'diffdownload',
            $asked->{vmid},
            $asked->{user},
            sub {
                my $ok = eval { _send($asked, $form, $fifo); 1 };
                my $err = $@;
                $remove->();
                die $err if !$ok;
            },
        );
        1;
    };
    if (!$is_begun) {
        my $err = $@;
        $remove->();
        die $err;
    }
    return {
        download => { path => $fifo, stream => 1, 'content-type' => 'application/octet-stream' },
    };
}

# Writes a file or folder to whoever opened the FIFO.
sub _send {
    my ($asked, $form, $fifo) = @_;

    my $what = shown($asked->{path} || '/');
    utf8::encode($what) if utf8::is_utf8($what);
    print "'$what' of $asked->{volid}, as $form\n";
    my $fh;
    {
        local $SIG{ALRM} = sub { die "nobody takes it\n" };
        alarm($OPENED);
        sysopen($fh, $fifo, O_WRONLY | O_NOFOLLOW) or die "cannot open '$fifo' - $!\n";
        alarm(0);
    }

    # the folder is the reader's, who might have put something else there
    die "'$fifo' is no stream any more\n" if !-p $fh;
    my $code = _run(
        [_pack($asked, $form)], output => '>&' . fileno($fh),
        errfunc => sub { print substr($_[0], 0, $MAX_SAID) . "\n" },
    );
    die "what was sent is not whole, see above\n" if $code;
    return;
}

# The command that writes a file or folder.
sub _pack {
    my ($asked, $form) = @_;

    return (qw(tar pack --quiet --stored --as), $form, '--', @$asked{qw(file path)});
}

# Who asks for what: checks the privileges as upstream does, before anything is read.
sub _asked {
    my ($param, $filepath) = @_;

    require PVE::Exception;
    require PVE::RPCEnvironment;
    my $rpcenv = PVE::RPCEnvironment::get();
    my $user = $rpcenv->get_user();
    my $cfg = PVE::Storage::config();
    my $volid = _volume($param) // die "internal error - not a container's backup\n";
    PVE::Storage::check_volume_access($rpcenv, $user, $cfg, undef, $volid, 'backup');

    my $path = '';
    if (($filepath // '/') ne '/') {
        PVE::Exception::raise_param_exc({ filepath => "it is not base64" })
            if $filepath !~ m!\A[A-Za-z0-9+/]*={0,2}\z!;
        $path = decode_base64($filepath);
    }
    PVE::Exception::raise_param_exc({ filepath => "a name cannot hold a NUL" }) if $path =~ /\0/;
    $path =~ s!/+\z!!;
    $path = "/$path" if $path ne '' && $path !~ m!\A/!;

    PVE::Storage::activate_storage($cfg, $param->{storage});
    my ($file, $vmid) = PVE::Storage::path($cfg, $volid);
    ($file) = ($file // '') =~ m!\A(/.+)\z!s or die "'" . shown($volid) . "' is no file\n";
    $vmid = (parse_name(basename($file)) || {})->{vmid} // $vmid;
    lstat($file) or die "cannot read '" . shown($file) . "' - $!\n";
    return {
        rpcenv => $rpcenv,
        user => $user,
        volid => $volid,
        vmid => $vmid,
        file => $file,
        path => $path,
    };
}

# What the program knows of a path.  Where the names must be read first, that is begun; dies as long
# as it goes on.
sub _look {
    my ($asked, $end) = @_;

    my @question =
        (qw(tar browse --most), $MAX_ENTRIES, '--', $asked->{file}, $asked->{path} || '/');
    my $answer = _answer($end, @question);
    if ($answer->{state} eq 'unread') {
        _read_names($asked, $end);
        $answer = _answer($end, @question);
        die "the backup changes while it is read\n" if $answer->{state} eq 'unread';
    }
    return $answer;
}

# Has a task read the names, if none does, and waits for its end; dies where that does not come soon
# enough, with how far it is, or where it failed.
sub _read_names {
    my ($asked, $end) = @_;

    my $notes = "$LOCKS/pve-diff-backup-files-" . md5_hex($asked->{file}) . '.lock';
    _begin($asked, $notes);

    my $until = time() + $WAIT;
    $until = $end - 5 if $until > $end - 5;
    until (_lock($notes)) {
        _try_again("the names in this backup are being read: " . (_noted($notes) || '0 %'))
            if time() >= $until;
        Time::HiRes::sleep(0.2);
    }
    my ($error) = _noted($notes) =~ /\Aerror: (.+)/;
    die "$error\n" if defined($error);
    return;
}

# Starts that task, where no other holds the lock.  A sub of its own: at its end our handle goes, and the
# task's alone is left.
sub _begin {
    my ($asked, $notes) = @_;

    my $lock = _lock($notes) or return;
    truncate($lock, 0);
    $asked->{rpcenv}->fork_worker(
        'diffindex',
        $asked->{vmid},
        $asked->{user}, sub { _read_names_now($asked, $lock) },
    );
    return;
}

# Reads the names within a task, and notes how far that is in the file that is locked.
sub _read_names_now {
    my ($asked, $lock) = @_;

    print "reading the names of the files in $asked->{volid}\n";
    my ($shown, $said) = (0, '');
    my $note = sub {
        my ($text) = @_;
        sysseek($lock, 0, 0);
        truncate($lock, 0);
        syswrite($lock, $text);
    };
    my $ok = eval {
        my $code = _run(
            [qw(tar browse --build --), $asked->{file}, '/'],
            outfunc => sub {
                my ($text) = $_[0] =~ /\A([0-9]+ (?:%|MiB))\z/ or return;
                $note->($text);
                return if time() < $shown + 10;
                print "$text\n";
                $shown = time();
            },
            errfunc => sub {
                print substr($_[0], 0, $MAX_SAID) . "\n";
                $said = "$said $_[0]" if length($said) < $MAX_SAID;
            },
        );
        die((_line($said) || "exit code $code") . "\n") if $code;
        1;
    };
    my $err = $@;
    $note->($ok ? '' : "error: $err");
    die $err if !$ok;
    return;
}

# The lock of a file, undef where somebody has it.
sub _lock {
    my ($path) = @_;

    sysopen(my $lock, $path, O_RDWR | O_CREAT | O_NOFOLLOW, oct('600'))
        or die "cannot open '$path' - $!\n";
    return $lock if flock($lock, LOCK_EX | LOCK_NB);
    return if $!{EWOULDBLOCK};
    die "cannot lock '$path' - $!\n";
}

# What whoever has the lock has noted.
sub _noted {
    my ($path) = @_;

    open(my $fh, '<', $path) or return '';
    sysread($fh, my $text, 2 * $MAX_SAID);
    close($fh);
    return $text // '';
}

# The web interface asks again by itself where it gets this code, as upstream's own answers have it.
sub _try_again {
    my ($why) = @_;

    PVE::Exception::raise("$why, try again in a moment\n", code => 503);
    return;
}

# Reads a file to its end, as far as there is time; dies where it is damaged.
sub _check {
    my ($asked, $entry, $end) = @_;

    my $time = $end - 5 - time();
    $time = $CHECK if $time > $CHECK;
    return if $time < 1 || ($entry->{size} // 0) > $MAX_CHECKED;
    open(my $null, '>', '/dev/null') or die "cannot open /dev/null - $!\n";
    my $said = '';
    my $code = eval {
        _run(
            [_pack($asked, 'file')],
            timeout => $time,
            output => '>&' . fileno($null),
            errfunc => sub { $said .= "$_[0] " if length($said) < $MAX_SAID },
        );
    };
    if (my $err = $@) {
        return if $err =~ /got timeout/;
        die $err;
    }
    die((_line($said) || "exit code $code") . "\n") if $code;
    return;
}

# The program's answer to a question.
sub _answer {
    my ($end, @arguments) = @_;

    require JSON;
    my ($text, $said) = ('', '');
    my $time = $end - time();
    my $code = _run(
        \@arguments,
        timeout => $time < 1 ? 1 : $time,
        outfunc => sub {
            die "its answer is too long\n" if length($text) > $MAX_ANSWER;
            $text .= "$_[0]\n";
        },
        errfunc => sub { $said .= "$_[0] " if length($said) < $MAX_SAID },
    );
    my $answer = $code ? undef : eval { JSON->new->utf8->decode($text) };
    die((_line($said) || "$arguments[0] $arguments[1]: no answer that can be read") . "\n")
        if ref($answer) ne 'HASH';
    return $answer;
}

# Runs the program; its exit code.
sub _run {
    my ($arguments, %options) = @_;

    require PVE::Tools;
    my $program = $PVE::VZDump::Differential::Helper::HELPER;
    die "$program is missing\n" if !-x $program;
    my @command = map { m/\A(.*)\z/s ? $1 : () } $program, @$arguments; # each a word of its own
    local %ENV = (PATH => $SAFE_PATH, XDG_CACHE_HOME => $CACHES);
    return PVE::Tools::run_command(\@command, noerr => 1, %options);
}

# What the program says of an error, in one line.
sub _line {
    my ($said) = @_;

    $said =~ s/\s+/ /g;
    $said =~ s/\A | \z//g;
    $said =~ tr/"/'/; # which is not escaped
    $said =~ s/\Apve-xdelta3(?: tar)?: //;
    return shown($said, $MAX_SAID);
}

1;
