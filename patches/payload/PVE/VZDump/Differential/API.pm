package PVE::VZDump::Differential::API;

# Part of pve-diff-backup.

use strict;
use warnings;

use Fcntl qw(:DEFAULT :flock);
use File::Basename qw(basename dirname);

use PVE::VZDump::Differential::Chain qw(parse_name shown);

# No `use` of what could load PVE::Storage, which loads us: the rest is looked for when somebody
# asks.

our @ISA = ('PVE::RESTHandler');

# A tree for tests may have none of upstream's classes of the API; then there is nobody to ask.
eval {
    require PVE::JSONSchema;
    PVE::JSONSchema->import('get_standard_option');
    require PVE::RESTHandler;
    1;
} or $@ =~ m!\ACan't locate PVE/(?:RESTHandler|JSONSchema)\.pm! or die $@;

=head1 NAME

PVE::VZDump::Differential::API - what the web interface asks a node

=head1 DESCRIPTION

The calls below F</nodes/{node}/pve-diff-backup>.  They tell no more than Proxmox' own calls would,
and do nothing that L<pve-diff-backup(1)> does not do: who may ask is decided by Proxmox' privileges,
for each backup by C<check_volume_access>, and the program is asked or started as a task.

=cut

# The program; a package variable so that a tree elsewhere can name its own.
our $PROGRAM;
$PROGRAM = '/usr/bin/pve-diff-backup' if !defined($PROGRAM);

# Where the calls are found: a class of upstream, and a word that no release of Proxmox has taken.
my ($PARENT, $PATH) = ('PVE::API2::Nodes::Nodeinfo', 'pve-diff-backup');

# How long the program may take to answer, less than pveproxy waits for a node.
my $TIMEOUT = 25;

# What an answer may hold: that of 10000 backups.  Once read it takes a worker ten times as much memory.
my $MAX_ANSWER = 8 * 1024 * 1024;

# What is kept of a line in a task's log, and of a text that is passed on.
my $MAX_LINE = 2000;

# How many backups one task verifies: their names must fit on a command line.
my $MAX_FILES = 5000;

# Where the lock of each storage that is verified lies: only root can write there.  A package variable
# like that of the program.
our $LOCKS;
$LOCKS = '/run' if !defined($LOCKS);

=head1 SUBS

=head2 mount()

Makes the calls known, once for each process.  It works by the name of upstream's class, which need
not be there yet.  Returns true.

=cut

my $is_mounted;

sub mount {
    return 1 if $is_mounted++ || !__PACKAGE__->can('register_method');
    PVE::RESTHandler::register_method($PARENT, { subclass => __PACKAGE__, path => $PATH });
    return 1;
}

# The program's answer to a question, from JSON.  Some answers come with an exit code other than 0.
sub _answer {
    my (@arguments) = @_;

    require JSON;
    require PVE::Tools;
    die "$PROGRAM is missing\n" if !-x $PROGRAM;
    my ($text, $told, $length) = ('', '', 0);
    PVE::Tools::run_command(
        [$PROGRAM, @arguments],
        timeout => $TIMEOUT,
        noerr => 1,
        outfunc => sub {
            $length += length($_[0]) + 1;
            die "its answer is too long\n" if $length > $MAX_ANSWER;
            $text .= "$_[0]\n";
        },
        errfunc => sub { $told .= "$_[0]\n" if length($told) < $MAX_LINE },
    );
    my $answer = eval { JSON->new->utf8->decode($text) };
    die "$PROGRAM $arguments[0]: " . (_line($told) || 'no answer that can be read') . "\n"
        if !defined($answer);
    return $answer;
}

# A text of the program in one line that is safe to show, and not too long.
sub _line {
    my ($text) = @_;

    $text //= '';
    $text =~ s/\s+/ /g;
    $text =~ s/\A | \z//g;
    return shown($text, $MAX_LINE);
}

# Runs the program within a task, whose log gets what it says.
sub _run {
    my (@arguments) = @_;

    require PVE::Tools;
    die "$PROGRAM is missing\n" if !-x $PROGRAM;
    my $print = sub { print substr($_[0], 0, $MAX_LINE) . "\n" };
    my $code = PVE::Tools::run_command(
        [$PROGRAM, @arguments],
        noerr => 1,
        outfunc => $print,
        errfunc => $print,
    );
    die "$PROGRAM $arguments[0] ended with exit code $code\n" if $code;
    return;
}

# Who asks, and the storages.
sub _context {
    require PVE::RPCEnvironment;
    require PVE::Storage;
    my $rpcenv = PVE::RPCEnvironment::get();
    return ($rpcenv, $rpcenv->get_user(), PVE::Storage::config());
}

# Whether who asks may see a backup, which Proxmox decides by its storage and guest.
sub _may_see {
    my ($volid) = @_;

    my ($rpcenv, $user, $cfg) = _context();
    return eval { PVE::Storage::check_volume_access($rpcenv, $user, $cfg, undef, $volid); 1 };
}

# Dies unless who asks may do with a backup what reads all of it or replaces it: the privileges that
# removing it takes.
sub _check_owner {
    my ($volid) = @_;

    my ($rpcenv, $user, $cfg) = _context();
    PVE::Storage::check_volume_access($rpcenv, $user, $cfg, undef, $volid);
    my ($storeid) = PVE::Storage::parse_volume_id($volid);

    # a snippet may have the name of a backup
    my ($type) = PVE::Storage::parse_volname($cfg, $volid);
    die "'" . shown($volid) . "' is no backup\n" if ($type // '') ne 'backup';
    my $info = parse_name(basename($volid)) // die "'" . shown($volid) . "' is no backup\n";
    $rpcenv->check($user, "/storage/$storeid", ['Datastore.AllocateSpace']);
    $rpcenv->check($user, "/vms/$info->{vmid}", ['VM.Backup']);
    return;
}

# Where a backup lies.  Only what is named like a backup of ours is handed to a program.
sub _file_of {
    my ($volid) = @_;

    my ($path) = PVE::Storage::path(PVE::Storage::config(), $volid);
    my ($dir) = dirname($path // '') =~ m!\A(/.+)\z!s;
    my $info = parse_name(basename($path // ''));
    die "'" . shown($volid) . "' is no file of a backup\n" if !$info || !defined($dir);
    return "$dir/$info->{name}";
}

# The lock of a storage, held as long as the handle is: each verification reads all of it.
sub _lock {
    my ($storeid) = @_;

    my ($name) = $storeid =~ /\A([\w.-]+)\z/ or die "'" . shown($storeid) . "' is no storage\n";
    my $path = "$LOCKS/pve-diff-backup-verify-$name.lock";
    sysopen(my $lock, $path, O_RDWR | O_CREAT, oct('600')) or die "cannot open '$path' - $!\n";
    return $lock if flock($lock, LOCK_EX | LOCK_NB);
    die "cannot lock '$path' - $!\n" if !$!{EWOULDBLOCK};
    die "backups on '$name' are being verified already: wait for that task, or stop it\n";
}

return 1 if !__PACKAGE__->can('register_method');

my $node = get_standard_option('pve-node');
my $storage = get_standard_option('pve-storage-id');
my $task = { type => 'string', description => "The task." };

=head1 CALLS

=head2 GET (nothing)

The calls that there are.

=cut

__PACKAGE__->register_method({
        name => 'index',
        path => '',
        method => 'GET',
        permissions => { user => 'all' },
        description => "Differential backups: index.",
        parameters => { additionalProperties => 0, properties => { node => $node } },
        returns => {
            type => 'array',
            items => { type => 'object', properties => {} },
            links => [{ rel => 'child', href => '{name}' }],
        },
        code => sub {
            return [map { { name => $_ } } qw(apply consolidate status storages verified verify)];
        },
    });

=head2 GET status

How the node stands: what C<pve-diff-backup status> says, and C<doctor>.

=cut

__PACKAGE__->register_method({
        name => 'status',
        path => 'status',
        method => 'GET',
        protected => 1,
        proxyto => 'node',
        permissions => { check => ['perm', '/nodes/{node}', ['Sys.Audit']] },
        description => "Differential backups: how the node stands.",
        parameters => { additionalProperties => 0, properties => { node => $node } },
        returns => {
            type => 'object',
            properties => {
                overall => {
                    type => 'string',
                    description => "'patched', 'unpatched', 'mixed' or 'unsupported'.",
                },
                program => { type => 'string', description => "Version of the program." },
                set => {
                    type => 'integer', optional => 1, description => "Version of the patch set."
                },
                verified => {
                    type => 'boolean',
                    optional => 1,
                    description => "Whether the set was tried with exactly these files.",
                },
                attention => {
                    type => 'array',
                    description => "What is not as it should be, and what to do.",
                    items => { type => 'string' },
                },
            },
        },
        code => sub {
            my $status = _answer(qw(status --json));
            my $set = $status->{set};
            my @texts = map { [split(/\n/, $_)] } @{ $status->{attention} // [] };
            return {
                overall => _line($status->{overall}),
                program => _line($status->{program}),
                $set
                ? (set => int($set->{version} // 0), verified => $set->{verified} ? 1 : 0)
                : (),
                # a text has few lines, each for itself
                attention => [
                    map {
                        join("\n", map { _line($_) } @$_)
                    } @texts
                ],
            };
        },
    });

=head2 GET storages

The storages that who asks may see, and whether differential backups are made there.

=cut

__PACKAGE__->register_method({
        name => 'storages',
        path => 'storages',
        method => 'GET',
        permissions => {
            user => 'all',
            description => "Only storages with 'Datastore.Audit' or 'Datastore.AllocateSpace'.",
        },
        description => "Differential backups: the storages that can hold them.",
        parameters => { additionalProperties => 0, properties => { node => $node } },
        returns => {
            type => 'array',
            items => {
                type => 'object',
                properties => {
                    storage => $storage,
                    differential => {
                        type => 'boolean',
                        description => "Whether backups are files there, made by vzdump itself.",
                    },
                },
            },
        },
        code => sub {
            my ($rpcenv, $user, $cfg) = _context();
            my $has_feature = PVE::Storage->can('storage_has_feature');
            my @privileges = qw(Datastore.Audit Datastore.AllocateSpace);
            my @found;
            for my $id (sort keys %{ $cfg->{ids} }) {
                next if !$rpcenv->check_any($user, "/storage/$id", \@privileges, 1);
                my $scfg = $cfg->{ids}->{$id};
                my $is_provider =
                    $has_feature && eval { $has_feature->($cfg, $id, 'backup-provider') };
                push @found,
                    {
                    storage => $id,
                    differential => defined($scfg->{path})
                        && $scfg->{type} ne 'pbs'
                        && !$is_provider ? 1 : 0,
                    };
            }
            return \@found;
        },
    });

=head2 GET verified

The results of the last verifications of a storage's backups that were made on the node and still
hold.

=cut

__PACKAGE__->register_method({
        name => 'verified',
        path => 'verified',
        method => 'GET',
        protected => 1,
        proxyto => 'node',
        permissions => {
            description => "Only backups that the user could read.",
            check => [
                'perm', '/storage/{storage}', ['Datastore.Audit', 'Datastore.AllocateSpace'],
                any => 1,
            ],
        },
        description => "Differential backups: what the last verifications on the node found.",
        parameters => {
            additionalProperties => 0,
            properties => { node => $node, storage => $storage },
        },
        returns => {
            type => 'array',
            items => {
                type => 'object',
                properties => {
                    volid => { type => 'string', description => "Volume identifier." },
                    at => { type => 'integer', description => "When, in seconds since 1970." },
                    good => { type => 'boolean', description => "Whether it can be restored." },
                },
            },
        },
        code => sub {
            my ($param) = @_;

            my $storeid = $param->{storage};
            my ($place) = @{ _answer('chains', '--json', '--', $storeid) };
            die _line($place->{error}) . "\n" if defined($place->{error});
            my @found;
            for my $guest (@{ $place->{guests} // [] }) {
                my @chains = @{ $guest->{chains} // [] };
                my @backups = grep { $_->{verified} }
                    (map { ($_->{full}, @{ $_->{differentials} }) } @chains),
                    @{ $guest->{stranded} // [] };
                # access is decided by the guest, which all of them have in common
                next if !@backups || !_may_see("$storeid:backup/$backups[0]->{file}");
                push @found,
                    map {
                    {
                        volid => "$storeid:backup/$_->{file}",
                        at => int($_->{verified}->{at}),
                        good => $_->{verified}->{good} ? 1 : 0,
                    }
                    } @backups;
            }
            return \@found;
        },
    });

=head2 POST verify

Verifies the backups of a guest, or all that who asks may touch, on a storage.

=cut

__PACKAGE__->register_method({
        name => 'verify',
        path => 'verify',
        method => 'POST',
        protected => 1,
        proxyto => 'node',
        permissions => {
            description => "Only backups that the user could remove.",
            check => ['perm', '/storage/{storage}', ['Datastore.AllocateSpace']],
        },
        description =>
            "Differential backups: verify that those of a guest, or all, can be restored.",
        parameters => {
            additionalProperties => 0,
            properties => {
                node => $node,
                storage => $storage,
                vmid => get_standard_option(
                    'pve-vmid', { optional => 1, description => "Only backups of this guest." },
                ),
            },
        },
        returns => $task,
        code => sub {
            my ($param) = @_;

            my ($storeid, $vmid) = @$param{qw(storage vmid)};
            my ($rpcenv, $user, $cfg) = _context();
            my $volumes = PVE::Storage::volume_list($cfg, $storeid, $vmid, 'backup');
            my @files =
                map { _file_of($_->{volid}) }
                grep {
                my $volid = $_->{volid};
                parse_name(basename($volid)) && eval { _check_owner($volid); 1 }
                } @$volumes;
            die "there are no backups that you could verify\n" if !@files;
            die scalar(@files) . " backups are too many for one task: choose a guest\n"
                if @files > $MAX_FILES;
            _lock($storeid); # only to refuse at once: the task takes it for as long as it runs
            return $rpcenv->fork_worker(
                'diffverify',
                defined($vmid) ? $vmid : $storeid,
                $user,
                sub {
                    my $lock = _lock($storeid);
                    _run('verify', '--all', '--quiet', '--', @files);
                },
            );
        },
    });

=head2 POST consolidate

Makes a full backup of a differential.

=cut

__PACKAGE__->register_method({
        name => 'consolidate',
        path => 'consolidate',
        method => 'POST',
        protected => 1,
        proxyto => 'node',
        permissions => {
            description => "'Datastore.AllocateSpace' on the storage, 'VM.Backup' for the guest.",
            user => 'all',
        },
        description => "Differential backups: make a full backup of a differential one.",
        parameters => {
            additionalProperties => 0,
            properties => {
                node => $node,
                volume => {
                    type => 'string',
                    format => 'pve-volume-id',
                    maxLength => 1024,
                    description => "The differential backup.",
                },
            },
        },
        returns => $task,
        code => sub {
            my ($param) = @_;

            my $volid = $param->{volume};
            my ($rpcenv, $user) = _context();
            _check_owner($volid);
            my $info = parse_name(basename($volid));
            die "'" . shown($volid) . "' is a full backup already\n" if !defined($info->{base});
            my $file = _file_of($volid);
            die "'" . shown($volid) . "' does not exist\n" if !-f $file;
            return $rpcenv->fork_worker(
                'diffconsolidate',
                $info->{vmid},
                $user, sub { _run('consolidate', '--', $file) },
            );
        },
    });

=head2 POST apply

Brings the node's lines of ours up to date.

=cut

__PACKAGE__->register_method({
        name => 'apply',
        path => 'apply',
        method => 'POST',
        protected => 1,
        proxyto => 'node',
        permissions => { check => ['perm', '/', ['Sys.Modify']] },
        description => "Differential backups: patch the node, or bring it up to date.",
        parameters => { additionalProperties => 0, properties => { node => $node } },
        returns => $task,
        code => sub {
            my ($rpcenv, $user) = _context();
            return $rpcenv->fork_worker('diffapply', undef, $user, sub { _run('apply') });
        },
    });

1;
