#!/usr/bin/perl
# tests/host/changed/sequences.pl SEED FIRST COUNT [VMID]   inside in-tree.sh, with the stand-in for kvm that machine.py extends
#
# Random lives of a VM: what a guest writes, what an administrator does to it and to its backups, and backups by Proxmox
# VE's own vzdump, run in this process' children.  Each backup is restored at once and compared with what the disks held
# at its instant.  What must be read is known here by a rule of its own: all, wherever something was not certain.
# Sequence N of a seed takes the same decisions each time; when a kill or a cut connection strikes is a matter of time.
use strict;
use warnings;

our $offset;
BEGIN { $offset = 0; *CORE::GLOBAL::time = sub () { return CORE::time() + $main::offset } }

use File::Path qw(make_path remove_tree);
use IO::Socket::UNIX;
use JSON;
use POSIX ();
use Time::HiRes qw(usleep);

use PVE::Cluster;
use PVE::INotify;
use PVE::QemuServer;
use PVE::QemuServer::Monitor;
use PVE::RPCEnvironment;
use PVE::VZDump;
use PVE::VZDump::Differential::Chain qw(parse_name);

my ($seed, $first, $count, $vmid) = @ARGV;
$vmid //= 200;
my $images = "/var/lib/vz/images/$vmid";
my $work = "/var/tmp/sequences-$vmid";
my $config = "/etc/pve/qemu-server/$vmid.conf";
my %folder = (nas => "/var/nas-$vmid/dump", nas2 => "/var/nas2-$vmid/dump");
my $small = "/var/small-$vmid";
my (%stats, @trouble);

$| = 1;

# --- the VM

my (%disks, %saved); # size by key; what a snapshot with RAM holds
my (%from, %base, %fuzzy); # by storage: since which backup a drive's bitmap counts; the full's disks; unknown after a kill

sub image { return "$images/vm-$vmid-disk-$_[0].raw" }
sub pick { return $_[int(rand(@_))] }
sub qmp { my ($name, %more) = @_; return PVE::QemuServer::Monitor::mon_cmd($vmid, $name, %more, timeout => 60) }

sub write_file {
    my ($path, $text) = @_;
    open(my $fh, '>', $path) or die "$path: $!";
    print {$fh} $text;
    close($fh) or die "$path: $!";
}

sub read_text { open(my $fh, '<', $_[0]) or return ''; local $/ = undef; return scalar(<$fh>) // '' }

sub write_config {
    # where upstream notes what has to be removed yet
    my ($kept) = read_text($config) =~ /^(\[special:.*)/ms;
    write_file($config, join('', "cores: 1\nmemory: 512\nname: vm\nostype: l26\nscsihw: virtio-scsi-pci\n",
        "description: " . ('x' x int(rand(900))) . "\n",
        map { "$_: local:$vmid/vm-$vmid-disk-$_.raw,size=" . ($disks{$_} >> 10) . "K\n" } sort keys %disks) . ($kept ? "\n$kept" : ''));
}

sub run { system(@_) == 0 or die "@_: $?" }

sub start {
    my ($state) = @_;
    local $ENV{FAKE_KVM_STATE} = $state // '';
    delete $ENV{FAKE_KVM_STATE} if !defined($state);
    run('guest', $vmid, 'start');
}
sub stop { run('guest', $vmid, 'stop') if -e "/var/run/qemu-server/$vmid.pid" }

my $guest;
sub guest {
    my ($drive, @commands) = @_;
    my $socket = IO::Socket::UNIX->new(Peer => "/run/qemu-server/$vmid.guest") or die "guest: $!";
    for my $command (@commands) {
        print {$socket} encode_json([$drive, $command]) . "\n";
        $socket->flush;
        my $said = decode_json(scalar(<$socket>));
        die "guest: $drive $command: $said" if $said =~ /failed|error/i;
    }
}

sub work {
    my ($times) = @_;
    for (1 .. $times) {
        my $key = pick(sort keys %disks);
        my $unit = pick(512, 4096, 65536);
        my $at = $unit * int(rand($disks{$key} / $unit));
        my $length = $unit * (1 + int(rand(6)));
        $length = $disks{$key} - $at if $at + $length > $disks{$key};
        my $pattern = 1 + int(rand(255));
        guest($key, pick("write -P $pattern $at $length", "write -P $pattern $at $length", "write -z $at $length",
            "discard $at $length"));
    }
}

sub new_image {
    my ($key, $size) = @_;
    open(my $fh, '>', image($key)) or die;
    for (my $at = 0; $at < $size; $at += 65536) {
        next if rand() < 0.4;
        seek($fh, $at, 0);
        my $length = $size - $at < 65536 ? $size - $at : 65536;
        print {$fh} rand() < 0.5 ? pack('L*', map { int(rand(2**32)) } 1 .. $length / 4) : chr(int(rand(256))) x $length;
    }
    truncate($fh, $size);
    close($fh);
}

# --- backups

sub archives {
    my ($storage) = @_;
    opendir(my $dh, $folder{$storage}) or die;
    my @names = grep { parse_name($_) } readdir($dh);
    return sort { parse_name($a)->{ctime} <=> parse_name($b)->{ctime} || $a cmp $b } @names;
}

# The child that makes a backup: upstream's own code, with what the guest does meanwhile.
sub child {
    my ($storage, $options, $meanwhile) = @_;
    open(STDOUT, '>', "$work/log") or die;
    open(STDERR, '>&', \*STDOUT) or die;
    $| = 1;
    PVE::Cluster::cfs_update(1);
    no warnings qw(redefine once);
    my $resume = \&PVE::VZDump::QemuServer::resume_vm_after_job_start;
    my $is_first = 1;
    *PVE::VZDump::QemuServer::resume_vm_after_job_start = sub {
        $meanwhile->{writes}->() if $meanwhile->{writes} && $is_first;
        $is_first = 0;
        return $resume->(@_);
    };
    # where the other way failed, this is another instant
    my $stock = \&PVE::VZDump::QemuServer::archive_vma;
    *PVE::VZDump::QemuServer::archive_vma = sub { copy_disks("$work/instant"); return $stock->(@_) };
    if ($meanwhile->{cut}) {
        my $run = \&PVE::VZDump::Differential::Changed::run_into;
        *PVE::VZDump::Differential::Changed::run_into = sub {
            my $pid = fork();
            if (!$pid) {
                usleep($meanwhile->{cut});
                # (QEMU before 9.1 hangs where nbd-server-stop meets a client that still negotiates)
                eval { qmp('block-export-del', id => $_->{id}, mode => 'hard') for @{ qmp('query-block-exports') } };
                POSIX::_exit(0);
            }
            my @said;
            my $done = eval { @said = $run->(@_); 1 };
            my $err = $@;
            waitpid($pid, 0);
            die $err if !$done;
            return @said;
        };
    }
    my $rpcenv = PVE::RPCEnvironment->setup_default_cli_env();
    $rpcenv = PVE::RPCEnvironment::get();
    my $param = { storage => $storage, mode => 'snapshot', compress => 'zstd', vmid => $vmid, %$options };
    PVE::VZDump::verify_vzdump_parameters($param, 1);
    $param->{vmids} = [$vmid];
    my $vzdump = PVE::VZDump->new('sequence', $param, []);
    $SIG{$_} = sub { die "interrupted by signal\n" } for qw(INT TERM QUIT HUP PIPE);
    $vzdump->exec_backup($rpcenv, 'root@pam');
}

sub copy_disks {
    my ($to) = @_;
    remove_tree($to);
    make_path($to);
    run('cp', '--sparse=always', image($_), "$to/$_") for sort keys %disks;
}


sub same {
    my (%sizes) = @_;
    return join(' ', map { "$_=$sizes{$_}" } sort keys %sizes);
}

# Whether it is certain what changed, by what was done here.
sub is_certain {
    my ($storage, $options) = @_;
    my @names = archives($storage) or return 0;
    my $newest = $names[-1];
    return 0 if !$options->{fleecing} || !$options->{fullbackup};
    return 0 if parse_name($newest)->{ctime} >= time();
    return 0 if grep { ($from{$storage}->{$_} // '') ne $newest } keys %disks;
    my $base = parse_name($newest)->{base} // $newest;
    return 0 if ($base{$storage}->{$base} // '') ne same(%disks);
    return 1;
}

my $last_log = '';
sub backup {
    my ($storage, $how) = @_;
    $offset += 2 + int(rand(3));
    $offset += int(rand(30 * 3600)) if rand() < 0.3;
    my $options = { fullbackup => 7, fleecing => { enabled => 1, storage => $how eq 'full' ? "small-$vmid" : 'local' } };
    delete $options->{fleecing} if $how eq 'unfleeced';
    $options->{fullbackup} = 0 if $how eq 'stock';
    $options->{bwlimit} = 100000 if rand() < 0.2;
    my %before = map { $_ => 1 } archives($storage);
    my $certain = is_certain($storage, $options);
    my $is_known = !delete $fuzzy{$storage};
    copy_disks("$work/instant");
    my $seeds = int(rand(2**31));
    my $during = $how eq 'full' ? 60 : int(rand(4));
    my $meanwhile = { writes => sub { srand($seeds); work($during) } };
    $meanwhile->{cut} = int(rand(60_000)) if $how eq 'cut';
    my $patience = int(rand(rand() < 0.5 ? 300_000 : 1_200_000));
    my $next = int(rand(2**31));
    my $pid = fork();
    if (!$pid) {
        my $ok = eval { child($storage, $options, $meanwhile); 1 };
        print STDOUT "child: $@" if !$ok;
        close(STDOUT);
        POSIX::_exit($ok ? 0 : 1);
    }
    if ($how eq 'kill') {
        usleep($patience);
        kill 9, $pid;
    }
    waitpid($pid, 0);
    my $code = $?;
    srand($next);
    $last_log = read_text("$work/log");
    if ($code) {
        die "backup failed ($how): $last_log" if $how ne 'kill';
        $stats{killed}++;
        my $record = "/run/qemu-server/$vmid.pve-diff-backup";
        $stats{'killed in access'}++ if -e $record;
        if (rand() < 0.7) {
            for (1 .. 600) { last if !-e $record; usleep(20_000) }
            die "nobody ended the access of a killed backup" if -e $record;
            my @left = grep { ($_->{drv} // '') eq 'snapshot-access' } @{ qmp('query-named-block-nodes') };
            die "an access is left after a kill" if @left;
        }
        run('sed', '-i', '/^lock:/d', $config);
        # upstream makes the fleecing images, and notes them only then: an administrator removes those
        my $noted = read_text($config);
        unlink(grep { my ($name) = m!([^/]+)\z!; index($noted, $name) < 0 } glob("{$images,$small/images/$vmid}/vm-*-fleece-*"));
    }
    my ($new, @more) = grep { !$before{$_} } archives($storage);
    die "more than one new backup: $new @more" if @more;
    if ($code && !defined($new)) {
        $fuzzy{$storage} = 1;
        # the stock job of a killed backup may go on in QEMU for a moment
        for (1 .. 500) { last if (qmp('query-backup')->{status} // '') ne 'active'; usleep(10_000) }
        return;
    }
    die "no new backup: $last_log" if !defined($new);
    my $info = parse_name($new);
    my $is_by_bitmap = $last_log =~ /changed blocks: .*changed since the full backup/ && $last_log !~ /everything is read/;
    my $way = !$info->{base} ? 'full' : $is_by_bitmap ? 'changed only' : 'all read';
    $stats{$way}++;
    if ($is_known && !$certain) {
        $stats{'uncertain'}++ if $info->{base};
        die "it was not certain what changed, and not all was read: $last_log" if $is_by_bitmap;
    }
    if ($is_known && $certain && !$is_by_bitmap && $info->{base} && $how !~ /cut|full|kill/) {
        my ($why) = $last_log =~ /everything is read: (.*)/;
        $why //= $last_log;
        if ($why =~ /backups in a row read only what changed/) {
            $stats{'audit'}++;
            die "the audit is not right: $last_log" if $last_log !~ /audit: nothing changed that was not noted/;
        }
        else { die "it was certain what changed, and all was read: $why" }
    }
    if ($last_log =~ /everything is read: reading only what changed failed/) { $stats{"failed inside ($how)"}++ }
    my ($differential) = $last_log =~ /INFO: differential backup: '/;
    die "a differential has no line: $last_log"
        if $info->{base} && !$is_by_bitmap && $last_log !~ /everything is read: /;
    verify($storage, $new, "$work/instant");
    if ($code) { $fuzzy{$storage} = 1; return }
    if ($options->{fleecing} && $options->{fullbackup}) { $from{$storage} = { map { $_ => $new } keys %disks } }
    $base{$storage}->{$new} = same(%disks) if !$info->{base};
}

sub verify {
    my ($storage, $name, $expected) = @_;
    my $path = "$folder{$storage}/$name";
    my $out = "$work/out";
    remove_tree($out);
    my $info = parse_name($name);
    if ($info->{base} && rand() < 0.1) {
        $stats{"restored by Debian's xdelta3"}++;
        run('bash', '-c', "set -e -o pipefail; zstd -dcqf '$folder{$storage}/$info->{base}' >$work/full.vma;"
            . "zstd -dcq '$path' | xdelta3 -f -d -c -s $work/full.vma >$work/target.vma");
        run('pve-xdelta3', 'vma', 'extract', '-q', "$work/target.vma", $out);
    } else {
        $stats{'restored by us'}++;
        run('pve-xdelta3', 'vma', 'extract', '-q', $path, $out);
    }
    for my $key (sort keys %disks) {
        system('cmp', '-s', "$expected/$key", "$out/disk-drive-$key.raw") == 0
            or die "WRONG BACKUP: $name, $key differs from what it was: $last_log";
    }
    my @got = glob("$out/*.raw");
    die "WRONG BACKUP: $name has @got" if @got != keys %disks;
}

# --- what happens

my %happens = (
    write => sub { work(1 + int(rand(8))) },
    restart => sub { stop(); start(); %from = (); %fuzzy = () },
    migrate => sub { qmp('test-migrate') },
    save => sub {
        remove_tree("$work/saved");
        qmp('test-save', path => "$work/state");
        copy_disks("$work/saved");
        %saved = (disks => {%disks}, from => { map { $_ => { %{ $from{$_} || {} } } } keys %from }, fuzzy => {%fuzzy});
    },
    rollback => sub {
        return if !%saved;
        stop();
        unlink(glob("$images/vm-*-disk-*.raw"));
        %disks = %{ $saved{disks} };
        run('cp', '--sparse=always', "$work/saved/$_", image($_)) for keys %disks;
        write_config();
        %from = map { $_ => { %{ $saved{from}->{$_} } } } keys %{ $saved{from} };
        # what a kill left unknown stays so
        %fuzzy = (%fuzzy, %{ $saved{fuzzy} });
        start("$work/state");
    },
    resize => sub {
        my $key = pick(sort keys %disks);
        $disks{$key} += 65536 * (1 + int(rand(4)));
        qmp('block_resize', 'node-name' => "drive-$key", size => $disks{$key});
        write_config();
    },
    plug => sub {
        return if $disks{scsi2};
        $disks{scsi2} = 65536 * (2 + int(rand(8)));
        new_image('scsi2', $disks{scsi2}) if !-e image('scsi2') || -s image('scsi2') != $disks{scsi2} || rand() < 0.5;
        qmp('test-plug', key => 'scsi2', image => image('scsi2'));
        write_config();
        delete $from{$_}->{scsi2} for keys %from;
    },
    unplug => sub {
        return if !$disks{scsi2};
        qmp('test-unplug', key => 'scsi2');
        delete $disks{scsi2};
        write_config();
        delete $from{$_}->{scsi2} for keys %from;
    },
    replug => sub {
        return if !$disks{scsi2};
        qmp('test-unplug', key => 'scsi2');
        qmp('test-plug', key => 'scsi2', image => image('scsi2'));
        delete $from{$_}->{scsi2} for keys %from;
    },
    delete => sub {
        my $storage = pick(sort keys %folder);
        my @names = archives($storage) or return;
        unlink("$folder{$storage}/$names[-1]");
    },
    rename => sub {
        my $storage = pick(sort keys %folder);
        my @names = grep { parse_name($_)->{base} } archives($storage) or return;
        rename("$folder{$storage}/$names[-1]", "$folder{$storage}/kept-$names[-1]");
    },
    swap => sub { # an older differential under the newest one's name
        my $storage = pick(sort keys %folder);
        my @names = archives($storage);
        return if @names < 3 || !parse_name($names[-1])->{base} || (parse_name($names[-2])->{base} // '') ne parse_name($names[-1])->{base};
        rename("$folder{$storage}/$names[-2]", "$folder{$storage}/$names[-1]");
        delete $from{$storage};
    },
    damage => sub {
        my $storage = pick(sort keys %folder);
        my @names = archives($storage) or return;
        my $path = "$folder{$storage}/$names[-1]";
        my $size = -s $path;
        if (rand() < 0.5 || !parse_name($names[-1])->{base}) {
            truncate($path, int(rand($size)));
        } else {
            open(my $fh, '+<', $path) or die;
            seek($fh, my $at = int(rand($size)), 0);
            read($fh, my $byte, 1);
            seek($fh, $at, 0);
            print {$fh} chr(ord($byte) ^ (1 << int(rand(8))));
            close($fh);
        }
        delete $from{$storage};
    },
    clock => sub { $offset -= int(rand(pick(10, 3600, 3 * 86400))) },
    prune => sub {
        my $storage = pick(sort keys %folder);
        my @names = archives($storage);
        my %needed = map { (parse_name($_)->{base} // '') => 1 } @names;
        unlink("$folder{$storage}/$_") for grep { !$needed{$_} && rand() < 0.4 } @names;
    },
);
my @common = (('write') x 8, qw(migrate save rollback));
my @rare = sort keys %happens;

sub sequence {
    my ($n) = @_;
    srand($seed * 1_000_003 + $n);
    eval { stop() };
    remove_tree($images, $work, values %folder);
    make_path($images, $work, values %folder);
    unlink($config, glob("/run/qemu-server/$vmid.pve-diff-backup"));
    (%disks, %saved, %from, %base, %fuzzy) = ();
    %disks = (scsi0 => 65536 * (20 + int(rand(40))) + 4096 * int(rand(3)), virtio1 => 65536 * (3 + int(rand(10))));
    new_image($_, $disks{$_}) for keys %disks;
    write_config();
    write_file('/etc/pve/pve-diff-backup.conf',
        "changed-blocks: fleecing\nlargest-differential: off\nchanged-blocks-audit: " . pick(2, 5, 'off', 'off') . "\n");
    start();
    my @told;
    my $ok = eval {
        for (1 .. 3 + int(rand(6))) {
            my $storage = rand() < 0.85 ? 'nas' : 'nas2';
            my $how = rand() < 0.6 ? 'plain' : pick(qw(kill kill full full cut cut unfleeced stock));
            push @told, "backup $storage $how";
            backup($storage, $how);
            my $eventful = rand() < 0.6;
            for (1 .. int(rand(4))) {
                my $what = $eventful && rand() < 0.5 ? pick(@rare) : pick(@common);
                push @told, $what;
                $stats{"  $what"}++;
                $happens{$what}->();
                write_config() if $what eq 'write' && rand() < 0.2;
            }
        }
        1;
    };
    if (!$ok) {
        my $err = $@;
        print "FAIL sequence $n of seed $seed: " . join(', ', @told) . "\n$err\n";
        push @trouble, $n;
    } else {
        print "ok $n\n";
    }
}

write_file('/etc/pve/storage.cfg', join("\n", map { "$_\n\tcontent images,backup\n\tprune-backups keep-all=1\n" }
    "dir: local\n\tpath /var/lib/vz", "dir: small-$vmid\n\tpath $small",
    map { "dir: $_\n\tpath " . ($folder{$_} =~ s!/dump!!r) } sort keys %folder));
make_path($small);
run('mount', '-t', 'tmpfs', '-o', 'size=1M', 'tmpfs', $small);
make_path("$small/images");
for my $n ($first .. $first + $count - 1) {
    sequence($n);
}
stop();
printf("%-40s %d\n", $_, $stats{$_}) for sort keys %stats;
print $count - @trouble . " passed, " . @trouble . " failed: @trouble\n";
exit(@trouble ? 1 : 0);
