#!/usr/bin/perl

# What the web interface asks a node: who may ask what, what the program is started with, and what
# becomes of its answers. Proxmox' modules are stand-ins here; tests/host/web has the real ones.

use strict;
use warnings;
no warnings qw(once); # variables of the stand-ins

use Cwd qw(abs_path);
use Fcntl qw(:flock);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use Test::More;

use lib map { dirname(__FILE__) . $_ } '/lib', '/lib/daemons', '/../../patches/payload';
use HostTree qw(program run write_file vma random);

my $here = abs_path(dirname(__FILE__));
my $dir = tempdir(CLEANUP => 1);
plan skip_all => 'no module JSON here' if !eval { require JSON; 1 };
require PVE::VZDump::Differential::API;
my @missing = grep { !program($_) } qw(pve-diff-backup pve-xdelta3);
plan skip_all =>
    "not built: @missing (cargo build, or name their folder in PVE_DIFF_BACKUP_PROGRAMS)"
    if @missing;

# Who may do what, by path and privilege.
my $allowed = \%PVE::RPCEnvironment::ALLOWED;

my $class = 'PVE::VZDump::Differential::API';

# ---------------------------------------------------------------- what is registered

ok($class->can('mount')->(), 'the calls are made known') for 1 .. 2;
is_deeply(
    $PVE::RESTHandler::REGISTERED{'PVE::API2::Nodes::Nodeinfo'},
    { 'SUBCLASS pve-diff-backup' => { subclass => $class, path => 'pve-diff-backup' } },
    '... once, under a word of ours',
);
my %calls = %{ $PVE::RESTHandler::REGISTERED{$class} };
is_deeply(
    [sort keys %calls],
    [
        'GET ', 'GET status', 'GET storages', 'GET verified', 'POST apply', 'POST consolidate',
        'POST verify'
    ],
    'the calls',
);
for my $name (sort keys %calls) {
    my $info = $calls{$name};
    ok(
        $info->{permissions} && $info->{description} && $info->{returns},
        "$name: permissions and a description"
    );
    is($info->{parameters}->{additionalProperties}, 0, "$name: no other parameters");
    is(
        $info->{proxyto} // '', $info->{protected} ? 'node' : '',
        "$name: what root does is done on the node"
    );
}
is_deeply(
    $calls{'POST apply'}->{permissions}, { check => ['perm', '/', ['Sys.Modify']] },
    'apply takes Sys.Modify on /'
);

# ---------------------------------------------------------------- a storage with backups of two guests

$PVE::Storage::DIR = $dir;
mkdir "$dir/dump" or die;
my %names;
for my $vmid (101, 102) {
    my $disk = random(300_000, $vmid);
    my $full = "vzdump-qemu-$vmid-2026_11_20-01_00_00.vma.zst";
    my $differential = "$full--differential-2026_11_21-01_00_00.vcdiff.zst";
    write_file("$dir/stream", vma("name: vm$vmid\n", $disk, 'a'));
    my $helper = program('pve-xdelta3');
    my $make = sub { run('/bin/sh', '-c', "exec $helper \"\$@\" <$dir/stream >\"\$0\"", @_) };
    my $result = $make->("$dir/dump/$full", "full", "--compress", "zstd");
    BAIL_OUT($result->{out}) if !$result->{ok};
    substr($disk, 70_000, 100) = random(100, 'new');
    write_file("$dir/stream", vma("name: vm$vmid\n", $disk, 'b'));
    $result =
        $make->("$dir/dump/$differential", "diff", "--base=$dir/dump/$full", "--compress", "zstd");
    BAIL_OUT($result->{out}) if !$result->{ok};
    $names{$vmid} = [$full, $differential];
}
write_file("$dir/dump/vzdump-qemu-101-2026_11_20-01_00_00.vma.zst.notes", 'x');

# The program as it is, with a folder in the place of a storage, and its results elsewhere.
my $program = program('pve-diff-backup');
write_file("$dir/program", <<"END");
#!/bin/sh
case \$1 in
chains) exec $program chains --json --results $dir/results -- $dir ;;
verify) shift; exec $program verify --results $dir/results "\$@" ;;
status) exec $program --root $here/../tree "\$@" ;;
*) echo "said \$*"; echo "complained" >&2; exit 3 ;;
esac
END
chmod 0755, "$dir/program";
{
    no warnings qw(once);
    $PVE::VZDump::Differential::API::PROGRAM = "$dir/program";
    $PVE::VZDump::Differential::API::LOCKS = $dir;
}

sub call {
    my ($name, %param) = @_;
    return $calls{$name}->{code}->({ node => 'pve1', %param });
}

sub dies {
    my ($name, %param) = @_;
    return eval { call($name, %param); 1 } ? 'it did not' : $@;
}

# Runs the last task; returns what it printed, and its error.
sub task {
    my ($type, $id, $user, $code) = @{ pop @PVE::RPCEnvironment::WORKERS };
    my $printed = '';
    local *STDOUT;
    open(STDOUT, '>', \$printed) or die;
    my $is_good = eval { $code->("UPID:$type"); 1 };
    return ($printed, $is_good ? '' : $@);
}

# ---------------------------------------------------------------- how the node stands

my $status = call('GET status');
is($status->{overall}, 'unpatched', 'the state of a node');
like($status->{program}, qr/\A[0-9.]+\z/, '... its version');
is(ref($status->{attention}), 'ARRAY', '... what is to be done');

# ---------------------------------------------------------------- storages

%$allowed = map { ("/storage/$_" => { 'Datastore.Audit' => 1 }) } qw(local own server odd);
is_deeply(
    { map { $_->{storage} => $_->{differential} } @{ call('GET storages') } },
    { local => 1, own => 0, server => 0, odd => 0 },
    'storages: those that one may see, and which take differentials',
);

# ---------------------------------------------------------------- verifying

%$allowed =
    ('/storage/local' => { 'Datastore.AllocateSpace' => 1 }, '/vms/101' => { 'VM.Backup' => 1 });
is_deeply(call('GET verified', storage => 'local'), [], 'nothing is verified yet');
is(call('POST verify', storage => 'local'), 'UPID:diffverify', 'a task is started');
my ($printed, $err) = task();
is($err, '', '... which ends well');
is_deeply(
    [sort @$PVE::Tools::COMMAND],
    [sort "$dir/program", qw(verify --all --quiet --), map { "$dir/dump/$_" } @{ $names{101} }],
    '... for the backups of those guests that one may back up'
);
is(call('POST verify', storage => 'local'), 'UPID:diffverify', 'another, when that is over');
{
    my $path = "$dir/pve-diff-backup-verify-local.lock";
    open(my $lock, '>>', $path) or die "no lock '$path'\n";
    flock($lock, LOCK_EX | LOCK_NB) or die "'$path' is held\n";
    like(
        dies('POST verify', storage => 'local'),
        qr/verified already/,
        '... but none beside one that runs'
    );
    (undef, $err) = task();
    like($err, qr/verified already/, '... nor does a task that was started at once');
}
is(scalar(@PVE::RPCEnvironment::WORKERS), 0, '... and nothing is started');
like($printed, qr/OK    $_ /, "... and tells: $_") for @{ $names{101} };
my %found = map { $_->{volid} => $_ } @{ call('GET verified', storage => 'local') };
is_deeply([sort keys %found], [map { "local:backup/$_" } @{ $names{101} }], 'what is verified');
ok(!grep({ !$_->{good} || $_->{at} < 1e9 } values %found), '... is good');
$allowed->{'/vms/101'} = {};
$allowed->{'/vms/102'} = { 'VM.Backup' => 1 };
is_deeply(
    call('GET verified', storage => 'local'), [],
    '... is not told to who may not see the guest'
);
like(
    dies('POST verify', storage => 'local', vmid => 101), qr/no backups that you could/,
    '... who can verify nothing of it'
);
$allowed->{'/storage/local'} = { 'Datastore.Allocate' => 1, 'Datastore.AllocateSpace' => 1 };
like(
    dies('POST verify', storage => 'local', vmid => 101),
    qr/no backups/, 'to see a backup is not enough to work on it'
);
is(scalar(@{ call('GET verified', storage => 'local') }), 2, '... but to see its result');

# ---------------------------------------------------------------- consolidating

my $volid = "local:backup/$names{102}->[1]";
is(call('POST consolidate', volume => $volid), 'UPID:diffconsolidate', 'a task is started');
is($PVE::RPCEnvironment::WORKERS[-1]->[1], 102, '... for the guest');
($printed, $err) = task();
is_deeply(
    $PVE::Tools::COMMAND, ["$dir/program", 'consolidate', '--', "$dir/dump/$names{102}->[1]"],
    '... of that file'
);
like($printed, qr/said consolidate.*complained/s, '... its log has what the program says');
like($err, qr/ended with exit code 3/, '... and that it failed');
like(
    dies('POST consolidate', volume => "local:backup/$names{102}->[0]"),
    qr/a full backup already/, 'a full is refused'
);
like(
    dies('POST consolidate', volume => "local:backup/$names{101}->[1]"),
    qr/Permission check failed/, 'another\'s backup too'
);
mkdir "$dir/snippets" or die;
write_file("$dir/snippets/$names{102}->[1]", 'x');
like(
    dies('POST consolidate', volume => $_),
    qr/no access|no volume|no backup|no file|does not exist|Permission/, "refused: $_"
    )
    for 'local:backup/../../etc/passwd', 'local:backup/--help', "$volid/x", '/etc/passwd',
    "other:backup/$names{102}->[1]", "local:snippets/$names{102}->[1]",
    'local:backup/vzdump-qemu-102-2026_11_20-01_00_00.vma.zst--differential-2026_11_29-01_00_00.vcdiff';
is(scalar(@PVE::RPCEnvironment::WORKERS), 0, '... and starts nothing');

# ---------------------------------------------------------------- apply, and answers that are none

is(call('POST apply'), 'UPID:diffapply', 'apply is a task');
task();
is_deeply($PVE::Tools::COMMAND, ["$dir/program", 'apply'], '... of that alone');
for my $case (
    ['garbage', 'echo x; exit 0', qr/no answer that can be read/],
    ['nothing but a complaint', 'echo "so \033[31m<b>" >&2; exit 1', qr/so \\x1b\[31m\\x3cb\\x3e$/],
    [
        'too much',
        'yes 0123456789012345678901234567890123456789012345678901234567890123 | head -n 140000',
        qr/too long/
    ],
) {
    my ($what, $code, $expected) = @$case;
    write_file("$dir/program", "#!/bin/sh\n$code\n");
    my $text = dies('GET status');
    like($text, $expected, "an answer of $what");
    ok(length($text) < 3000, '... is an error of some length');
}
unlink "$dir/program";
like(dies($_), qr/is missing/, "without the program: $_") for 'GET status', 'GET verified';

done_testing();
