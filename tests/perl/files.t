#!/usr/bin/perl

# Files out of containers' backups, as the web interface asks for them: which calls are ours, who may
# ask, what is listed and sent, and what becomes of damage. Proxmox' modules are stand-ins here;
# tests/host/web has the real ones.

use strict;
use warnings;
no warnings qw(once); # variables of the stand-ins

use Cwd qw(abs_path);
use Fcntl qw(:DEFAULT :flock);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use MIME::Base64 qw(encode_base64 decode_base64);
use Test::More;

use lib map { dirname(__FILE__) . $_ } '/lib', '/lib/daemons', '/../../patches/payload';
use HostTree qw(program new_tree run read_file write_file random);

my $here = abs_path(dirname(__FILE__));
my $dir = tempdir(CLEANUP => 1);
plan skip_all => 'no module JSON here' if !eval { require JSON; 1 };
my @missing = grep { !program($_) } qw(pve-diff-backup pve-xdelta3);
plan skip_all =>
    "not built: @missing (cargo build, or name their folder in PVE_DIFF_BACKUP_PROGRAMS)"
    if @missing;
require PVE::Storage;
require PVE::VZDump::Differential;

$PVE::Storage::DIR = $dir;
$PVE::VZDump::Differential::Helper::HELPER = program('pve-xdelta3');
$PVE::VZDump::Differential::Files::LOCKS = $dir;
$PVE::VZDump::Differential::Files::CACHES = "$dir/caches";
mkdir "$dir/$_" or die for qw(dump caches in);

# ---------------------------------------------------------------- the backups of a container

sub helper {
    my ($to, $from, @arguments) = @_;

    my $program = program('pve-xdelta3');
    my $made =
        run('/bin/sh', '-c', "exec $program \"\$@\" <\"\$0\" >$dir/dump/$to", $from, @arguments);
    BAIL_OUT($made->{out}) if !$made->{ok};
    return;
}

my $ODD = "n\xe4 <b>\n";
my $big = random(3_000_000, 'big');
write_file("$dir/in/etc/hosts", "127.0.0.1 localhost\n");
write_file("$dir/in/etc/$ODD", 'odd');
write_file("$dir/in/big", $big);
symlink('/etc/shadow', "$dir/in/etc/link") or die;
link("$dir/in/etc/hosts", "$dir/in/etc/other") or die;
my @tar = ('tar', '-C', "$dir/in", '--numeric-owner', '-cf', "$dir/one.tar", '.');
run(@tar)->{ok} or die;
my $FULL = 'vzdump-lxc-105-2026_11_20-01_00_00.tar.zst';
my $STOCK = 'vzdump-lxc-106-2026_11_20-01_00_00.tar.zst';
my $DIFFERENTIAL = "$FULL--differential-2026_11_21-01_00_00.vcdiff.zst";
helper($FULL, "$dir/one.tar", qw(full --compress zstd));
run('zstd', '-q', "$dir/one.tar", '-o', "$dir/dump/$STOCK")->{ok} or die;
write_file("$dir/in/etc/hosts", "127.0.0.1 changed\n");
run(@tar)->{ok} or die;
helper($DIFFERENTIAL, "$dir/one.tar", 'diff', "--base=$dir/dump/$FULL", qw(--compress zstd));
write_file("$dir/dump/vzdump-qemu-101-2026_11_20-01_00_00.vma.zst", 'x');

# Who may do what, by path and privilege.
my $allowed = \%PVE::RPCEnvironment::ALLOWED;
%$allowed = map { ("/vms/$_" => { 'VM.Backup' => 1 }) } 101, 105, 106, 107;

sub takes {
    my ($sub, %param) = @_;

    return PVE::VZDump::Differential::takes("file_$sub", {%param});
}

sub ask {
    my ($sub, $volume, $path, %more) = @_;

    my %param = (storage => 'local', volume => $volume, %more);
    my $own = takes($sub, %param) or return "upstream's";
    my $got = eval { $own->(\%param, $path) };
    return $got // $@;
}

# The last task: its type, its guest, what it printed, its error.
sub task {
    my ($type, $id, $user, $code) = @{ pop @PVE::RPCEnvironment::WORKERS };
    my $printed = '';
    local *STDOUT;
    open(STDOUT, '>', \$printed) or die;
    my $is_good = eval { $code->("UPID:$type"); 1 };
    return ($type, $id, $printed, $is_good ? '' : $@);
}

my %in = map { $_ => encode_base64("/$_", '') } qw(etc big etc/hosts etc/link etc/other no);

# ---------------------------------------------------------------- which calls are ours

for my $volume ("local:backup/$FULL", "backup/$FULL", $FULL, $DIFFERENTIAL, $STOCK) {
    ok(takes('list', storage => 'local', volume => $volume), "ours: $volume");
}
ok(takes('list', storage => 'local', volume => 'vzdump-lxc-1-x.tar.gz'), 'ours: another name');
ok(!takes('list', storage => $_->[0], volume => $_->[1]), "not ours: $_->[1] on $_->[0]")
    for ['local', 'local:backup/vzdump-qemu-101-2026_11_20-01_00_00.vma.zst'],
    ['local', "other:backup/$FULL"], ['server', $FULL], ['odd', $FULL], ['none', $FULL],
    ['local', "local:snippets/$FULL"], ['local', 'local:backup/ct/x/2026-11-20T01:00:00Z'];
ok(!takes('list', storage => 'local'), 'not ours: nothing');

# ---------------------------------------------------------------- who may ask

delete $allowed->{'/vms/105'};
like(ask('list', $FULL, '/'), qr/Permission check failed/, 'no list without the privilege');
like(ask('download', $FULL, $in{big}), qr/Permission check failed/, '... and no file');
is_deeply(\@PVE::RPCEnvironment::WORKERS, [], '... and nothing is begun');
$allowed->{'/vms/105'} = { 'VM.Backup' => 1 };

# ---------------------------------------------------------------- names must be read first

# Tasks do not run by themselves here: a call tells to come back.
$PVE::VZDump::Differential::Files::WAIT = 0;
for my $name ($FULL, $STOCK, $DIFFERENTIAL) {
    my $answer = ask('list', $name, '/');
    is(ref($answer) && $answer->{code}, 503, "$name: come back later");
    like("$answer", qr/names in this backup are being read: 0 %, try again/, '... in words');
    is(scalar(@PVE::RPCEnvironment::WORKERS), 1, '... a task does it');
    ask('list', $name, '/');
    is(scalar(@PVE::RPCEnvironment::WORKERS), 1, '... once');
    my ($type, $id, $printed, $error) = task();
    is("$type $error", 'diffindex ', "... and ends well: $printed");
    is($id, ($name =~ /-(10[56])-/)[0], '... it is the guest\'s');
}

# ---------------------------------------------------------------- what is listed

for my $name ($FULL, $STOCK, $DIFFERENTIAL) {
    my $list = ask('list', $name, '/');
    BAIL_OUT($list) if !ref($list);
    is_deeply(
        [map { "$_->{text} $_->{type} $_->{leaf} " . ($_->{size} // '-') } @$list],
        ['big f 1 3000000', 'etc d 0 -'],
        "$name: what is at the top",
    );
    is($list->[1]->{filepath}, $in{etc}, '... with its path');
    like($list->[0]->{mtime}, qr/\A\d+\z/, '... and its time');
    $list = ask('list', $name, $in{etc});
    my %types = map { decode_base64($_->{filepath}) => $_->{type} } @$list;
    my $odd = "/etc/$ODD";
    my ($first, $second) = @types{qw(/etc/hosts /etc/other)};
    delete @types{qw(/etc/hosts /etc/other)};
    is_deeply(\%types, { $odd => 'f', '/etc/link' => 'l' }, '... what is in a folder');
    is(join('', sort $first, $second), 'fh', '... a file with two names');
    my ($shown) = map { $_->{text} } grep { decode_base64($_->{filepath}) eq $odd } @$list;
    unlike($shown, qr/[\n\xe4]/, '... a name that is not text is escaped');
    is($shown, 'n\\xe4 <b>\\n', '... as it is elsewhere');
}
like(ask('list', $FULL, $in{no}), qr/there is no file '\/no'/, 'what is not there');
like(ask('list', $FULL, 'a%b'), qr/it is not base64/, 'a path that is none');
like(ask('list', $FULL, encode_base64("a\0b")), qr/not base64|NUL/, '... nor this');
like(
    ask('list', $FULL, encode_base64('/../../../etc/passwd', '')),
    qr/there is no file/, 'nothing is outside'
);

# ---------------------------------------------------------------- what is sent

# What a download sends.
sub sent {
    my ($name, $path, @more) = @_;

    my $answer = ask('download', $name, $path, @more);
    return "no stream: $answer" if ref($answer) ne 'HASH';
    my $fifo = $answer->{download}->{path};
    my $mode = sprintf('%o %o', map { (stat($_))[2] & oct('777') } dirname($fifo), $fifo);
    is($mode, '700 600', 'nobody else reads the stream');
    my $pid = open(my $out, '-|') // die;
    if (!$pid) {
        exec('cat', $fifo) or die;
    }
    my $reader = fork() // die;
    if (!$reader) {
        my ($type, $id, $printed, $error) = task();
        write_file("$dir/task", "$type $id $error");
        require POSIX;
        POSIX::_exit(0);
    }
    pop @PVE::RPCEnvironment::WORKERS;
    my $bytes = do { local $/ = undef; <$out> }
        // '';
    waitpid($reader, 0);
    ok(!-e dirname($fifo), 'nothing is left of the stream');
    return $bytes;
}

SKIP: {
    skip('to give a stream to www-data takes root', 1) if $> || !getpwnam('www-data');
    ok(sent($_, $in{big}) eq $big, "a file of $_") for $FULL, $STOCK, $DIFFERENTIAL;
    is(read_file("$dir/task"), 'diffdownload 105 ', '... by a task of the guest');
    is(sent($FULL, $in{'etc/hosts'}), "127.0.0.1 localhost\n", 'of the full');
    is(sent($DIFFERENTIAL, $in{$_}), "127.0.0.1 changed\n", "of the differential: $_")
        for 'etc/hosts', 'etc/other';
    write_file("$dir/etc.tar.zst", sent($DIFFERENTIAL, $in{etc}, tar => 1));
    mkdir "$dir/out" or die;
    ok(run('sh', '-c', "zstd -qdc $dir/etc.tar.zst | tar -x -C $dir/out")->{ok}, 'a folder as tar');
    ok(run('diff', '-r', '--no-dereference', "$dir/in/etc", "$dir/out/etc")->{ok}, '... is whole');
    write_file("$dir/etc.zip", sent($DIFFERENTIAL, $in{etc}));
    SKIP: {
        skip('no python3', 1) if !run('python3', '--version')->{ok};
        my $read = run(
            'python3', '-c', 'import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); z.testzip();'
                . ' print(z.read("etc/hosts").decode(), sorted(len(n) for n in z.namelist()))',
            "$dir/etc.zip"
        );
        is($read->{out}, "127.0.0.1 changed\n [4, 8, 9, 9, 11]\n", '... and as zip');
    }
    my $begun = ask('download', $FULL, $in{big});
    my $fifo = $begun->{download}->{path};
    unlink($fifo);
    write_file("$dir/victim", 'mine');
    for my $put (sub { symlink("$dir/victim", $fifo) }, sub { link("$dir/victim", $fifo) }) {
        my @kept = @PVE::RPCEnvironment::WORKERS;
        $put->();
        my (undef, undef, undef, $error) = task();
        like($error, qr/cannot open|no stream any more/, 'something in the place of the stream');
        is(read_file("$dir/victim"), 'mine', '... is not written to');
        mkdir dirname($fifo);
        @PVE::RPCEnvironment::WORKERS = @kept;
    }
    @PVE::RPCEnvironment::WORKERS = ();
    rmdir dirname($fifo);
    {
        local $ENV{TMPDIR} = "$dir/caches";
        local $PVE::RPCEnvironment::STARTED = sub { die "no task\n" };
        is(ask('download', $FULL, $in{big}), "no task\n", 'no task, no stream');
        my @left = glob("$dir/caches/pve-diff-backup-*");
        is_deeply(\@left, [], '... and nothing is left');
        @PVE::RPCEnvironment::WORKERS = ();
    }
    like(sent($FULL, $in{'etc/link'}), qr/no stream: .*it is no file/, 'a link is not followed');
}

# ---------------------------------------------------------------- damage, and what is no backup

my $DAMAGED = 'vzdump-lxc-107-2026_11_20-01_00_00.tar.zst';
my $damaged = read_file("$dir/dump/$FULL");
substr($damaged, length($damaged) / 2, 1000) = 'x' x 1000;
write_file("$dir/dump/$DAMAGED", $damaged);
ask('list', $DAMAGED, '/');
my ($type, $id, $printed, $error) = task();
if ($error eq '') { # the names are whole
    my $list = ask('list', $DAMAGED, '/');
    is(ref($list), 'ARRAY', 'damage within a file: the names are shown');
    unlike(ask('list', $DAMAGED, $in{big}), qr/ARRAY/, '... the file is known to be damaged');
    like(
        ask('download', $DAMAGED, $in{big}), qr/\Q$DAMAGED\E.*not written as a whole/,
        '... and is not sent'
    );
} else {
    like($error, qr/\Q$DAMAGED\E/, 'damage where the names are: the task says so');
}

# what the task found is what the next call says
$PVE::VZDump::Differential::Files::WAIT = 5;
my $CUT = 'vzdump-lxc-107-2026_11_22-01_00_00.tar.zst';
write_file("$dir/dump/$CUT", substr(read_file("$dir/dump/$STOCK"), 0, 1_000_000));
$PVE::RPCEnvironment::STARTED = \&task; # runs at once, and its handle of the lock goes
like(
    ask('list', $CUT, '/'),
    qr/\Q$CUT\E.*(?:ends|end|cut|incomplete)/i,
    'a cut backup: the call says so',
);
$PVE::RPCEnvironment::STARTED = undef;
$PVE::VZDump::Differential::Files::WAIT = 0;

symlink("$dir/dump/$FULL", "$dir/dump/vzdump-lxc-107-2026_11_23-01_00_00.tar.zst") or die;
like(
    ask('list', 'vzdump-lxc-107-2026_11_23-01_00_00.tar.zst', '/'),
    qr/symbolic link/, 'a link in the place of a backup is not followed'
);
like(ask('list', 'vzdump-lxc-107-2026_11_24-01_00_00.tar.zst', '/'), qr/No such file/, 'no backup');

# ---------------------------------------------------------------- the lines in upstream's module

my $root = new_tree();
my $patched =
    run(program('pve-diff-backup'), '--root', $root, '--patches', "$here/../../patches", 'apply');
ok($patched->{ok}, 'a tree is patched') or diag($patched->{out});
my $code = <<'END';
    my ($sub, $volume) = @ARGV;
    require PVE::API2::Storage::FileRestore;
    my $got = eval {
        PVE::API2::Storage::FileRestore->can($sub)
            ->({ storage => 'local', volume => $volume, filepath => '/' });
    };
    print $got ? 'got' : $@;
END
my $call = sub {
    my (@arguments) = @_;
    local $ENV{PERL5LIB} = "$root/usr/share/perl5:$here/lib/daemons";
    return run($^X, '-we', $code, @arguments)->{out};
};
for my $sub (qw(list download)) {
    like($call->($sub, $FULL), qr/cannot read '\S+\Q$FULL\E'/, "$sub of a container: ours");
    like($call->($sub, 'vzdump-qemu-1-x.vma'), qr/\AOnly PBS/, "$sub of a VM: upstream's");
}

done_testing();
