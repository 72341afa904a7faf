package PVE::VZDump;

# A small stand-in for Proxmox VE's module of this name, written for the tests of pve-diff-backup.
# A task runs through the same steps with the same variables as the real one.

use strict;
use warnings;

use File::Basename qw(basename);
use File::Path qw(remove_tree);
use POSIX qw(strftime);

use PVE::Storage;
use PVE::Tools;
use PVE::VZDump::Common;
use PVE::VZDump::LXC;
use PVE::VZDump::QemuServer;

sub debugmsg {
    my ($mtype, $msg, $logfd) = @_;

    chomp $msg;
    my $level = { info => 'INFO', err => 'ERROR', warn => 'WARN' }->{$mtype} // 'UNKNOWN';
    for my $line (split(/\n/, $msg)) {
        print STDERR "$level: $line\n";
        print {$logfd} "$level: $line\n" if $logfd;
    }
    return;
}

# Command line options win over /etc/vzdump.conf, which wins over the schema.
sub new {
    my ($class, $opts) = @_;

    my %merged = map { $_->[0] => $_->[1] } _read_config(PVE::Tools::root() . '/etc/vzdump.conf');
    my $desc = PVE::VZDump::Common::get_confdesc();
    for my $key (keys %$desc) {
        $merged{$key} = $opts->{$key} // $merged{$key} // $desc->{$key}->{default};
    }
    my $keep = $merged{'prune-backups'} // 'keep-all=1';
    $merged{'prune-backups'} = { map { split(/=/, $_, 2) } split(/,/, $keep) };
    $merged{backup_time} = $opts->{backup_time};
    if (!$merged{dumpdir}) {
        $merged{storage} //= 'local';
        my $cfg = PVE::Storage::config();
        $merged{dumpdir} = PVE::Storage::storage_config($cfg, $merged{storage})->{path} . '/dump';
    }
    return bless { opts => \%merged }, $class;
}

sub _read_config {
    my ($path) = @_;

    open(my $fh, '<', $path) or return;
    my @pairs;
    while (defined(my $line = <$fh>)) {
        next if $line !~ /\A([a-z-]+):\s*(\S+)\s*\z/;
        push @pairs, [$1, PVE::VZDump::Common::check_value($1, $2)];
    }
    close($fh);
    return @pairs;
}

sub compressor_info {
    my ($opts) = @_;

    my $compress = $opts->{compress} || '0';
    my $threads = $opts->{zstd} || 1;
    my %known = (
        0 => [],
        1 => ['lzop', 'lzo'],
        lzo => ['lzop', 'lzo'],
        gzip => ['gzip --rsyncable', 'gz'],
        zstd => ["zstd --threads=$threads", 'zst'],
    );
    return @{ $known{$compress} // die "unknown compression option '$compress'\n" };
}

sub get_backup_file_list {
    my ($dir, $bkname) = @_;

    my @list;
    for my $path (sort glob("$dir/$bkname-*")) {
        my $info = eval { PVE::Storage::archive_info($path) } // {};
        next if !$info->{is_std_name};
        my $entry = { path => "$dir/$info->{filename}", ctime => $info->{ctime} };
        $entry->{mark} = 'protected' if -e PVE::Storage::protection_file_path($entry->{path});
        push @list, $entry;
    }
    return \@list;
}

sub option_exists {
    my ($key) = @_;

    return defined(PVE::VZDump::Common::get_confdesc()->{$key});
}

sub verify_vzdump_parameters {
    my ($param) = @_;

    PVE::VZDump::Common::check_value($_, $param->{$_}) for grep { $_ ne 'schedule' } keys %$param;
    return;
}

sub exec_backup {
    my ($self, @tasks) = @_;

    $self->exec_backup_task($_) for @tasks;
    return;
}

sub exec_backup_task {
    my ($self, $task) = @_;

    my $opts = $self->{opts};
    my $cfg = PVE::Storage::config();
    my $vmid = $task->{vmid};
    my $plugin = $task->{plugin};
    my $logfd;

    $task->{backup_time} = $opts->{backup_time} // time();

    eval {
        my $vmtype = $plugin->type();
        my $bkname = "vzdump-$vmtype-$vmid";
        my $basename = $bkname . strftime('-%Y_%m_%d-%H_%M_%S', localtime($task->{backup_time}));
        $task->{logfile} = "$opts->{dumpdir}/$basename.log";

        my $ext = $vmtype eq 'qemu' ? '.vma' : '.tar';
        my ($comp, $comp_ext) = compressor_info($opts);
        $ext .= ".$comp_ext" if $comp && $comp_ext;

        if ($opts->{stdout}) {
            $task->{target} = '-';
        } else {
            $task->{target} = $task->{tmptar} = "$opts->{dumpdir}/$basename$ext";
            $task->{tmptar} =~ s/\.[^\.]+$/\.dat/;
            unlink $task->{tmptar};
        }

        $task->{vmtype} = $vmtype;

        $task->{tmpdir} = "$opts->{dumpdir}/$basename.tmp";
        remove_tree($task->{tmpdir});
        mkdir $task->{tmpdir} or die "unable to create temporary directory '$task->{tmpdir}'";

        open($logfd, '>', "$task->{tmpdir}.log") or die "unable to create log file - $!\n";
        $task->{tmplog} = "$task->{tmpdir}.log";

        debugmsg('info', "Starting Backup of VM $vmid ($vmtype)", $logfd);
        debugmsg('info', "ionice priority: $opts->{ionice}", $logfd);

        if ($opts->{stdout}) {
            debugmsg('info', 'sending archive to stdout', $logfd);
            bless({ vzdump => $self }, $plugin)->archive($task, $vmid, undef, $comp);
            return;
        }

        debugmsg('info', "creating vzdump archive '$task->{target}'", $logfd);
        bless({ vzdump => $self }, $plugin)->archive($task, $vmid, $task->{tmptar}, $comp);
        rename($task->{tmptar}, $task->{target})
            or die "unable to rename '$task->{tmptar}' to '$task->{target}'\n";

        # determine size
        $task->{size} = -s $task->{target};
        debugmsg('info', "archive file size: $task->{size}", $logfd);

        if ($opts->{protected}) {
            open(my $fh, '>', PVE::Storage::protection_file_path($task->{target}))
                or die "unable to set protected flag - $!\n";
            close($fh);
        }

        if ($opts->{remove}) {
            my $keep = $opts->{'prune-backups'};
            if (!defined($opts->{storage})) {
                my $list = get_backup_file_list($opts->{dumpdir}, $bkname);
                PVE::Storage::prune_mark_backup_group($list, $keep);
                for my $entry (grep { $_->{mark} eq 'remove' } @$list) {
                    debugmsg('info', "delete old backup '$entry->{path}'", $logfd);
                    PVE::Storage::archive_remove($entry->{path});
                }
            } else {
                my $log = sub { debugmsg($_[0], $_[1], $logfd) };
                PVE::Storage::prune_backups($cfg, $opts->{storage}, $keep, $vmid, $vmtype, 0, $log);
            }
        }
    };
    my $err = $@;

    unlink $task->{tmptar} if $task->{tmptar} && -f $task->{tmptar};
    debugmsg('err', "Backup of VM $vmid failed - $err", $logfd) if $err;
    close($logfd) if $logfd;
    rename($task->{tmplog}, $task->{logfile}) if $task->{tmplog} && !$opts->{stdout};
    remove_tree($task->{tmpdir}) if $task->{tmpdir};
    die "job errors\n" if $err;
    return $task;
}

1;
