package PVE::VZDump;

# A small stand-in for Proxmox VE 5's module of this name, written for the tests of pve-diff-backup:
# it has the options itself, and keeps as many backups as maxfiles says.

use strict;
use warnings;

use File::Path qw(remove_tree);
use POSIX qw(strftime);
use Time::Local qw(timelocal);

use PVE::Storage;
use PVE::Tools;
use PVE::VZDump::LXC;
use PVE::VZDump::QemuServer;

my $confdesc = {
    storage => { type => 'string', optional => 1 },
    compress => { type => 'string', enum => ['0', '1', 'gzip', 'lzo'], optional => 1 },
    ionice => { type => 'integer', minimum => 0, maximum => 8, optional => 1, default => 7 },
    maxfiles => { type => 'integer', minimum => 1, optional => 1, default => 1 },
    remove => { type => 'boolean', optional => 1, default => 1 },
};

sub option_exists {
    my ($key) = @_;

    return defined($confdesc->{$key});
}

sub debugmsg {
    my ($mtype, $msg, $logfd) = @_;

    chomp $msg;
    my $level = { info => 'INFO', err => 'ERROR', warn => 'WARN' }->{$mtype} // 'UNKNOWN';
    print STDERR "$level: $msg\n";
    print {$logfd} "$level: $msg\n" if $logfd;
    return;
}

sub new {
    my ($class, $opts) = @_;

    my %merged =
        map { $_ => $opts->{$_} // $confdesc->{$_}->{default} } keys %$confdesc;
    $merged{backup_time} = $opts->{backup_time};
    $merged{storage} //= 'local';
    my $cfg = PVE::Storage::config();
    $merged{dumpdir} = PVE::Storage::storage_config($cfg, $merged{storage})->{path} . '/dump';
    return bless { opts => \%merged }, $class;
}

sub compressor_info {
    my ($opts) = @_;

    my %known =
        (0 => [], 1 => ['lzop', 'lzo'], lzo => ['lzop', 'lzo'], gzip => ['gzip --rsyncable', 'gz']);
    return @{ $known{ $opts->{compress} || '0' } // die "unknown compression option\n" };
}

sub get_backup_file_list {
    my ($dir, $bkname, $exclude_fn) = @_;

    my $bklist = [];
    foreach my $fn (glob("$dir/${bkname}-*")) {
        next if $exclude_fn && $fn eq $exclude_fn;
        next if $fn !~ m!/(${bkname}-([0-9_]+)-([0-9_]+)\.(tgz|((tar|vma)(\.(gz|lzo))?)))$!;
        my ($name, @date) = ($1, split(/_/, $2), split(/_/, $3));
        push @$bklist,
            ["$dir/$name", timelocal(@date[5, 4, 3, 2], $date[1] - 1, $date[0])];
    }
    return $bklist;
}

sub exec_backup_task {
    my ($self, $task) = @_;

    my $opts = $self->{opts};
    my ($vmid, $plugin) = @$task{qw(vmid plugin)};
    my $logfd;

    eval {
        my $vmtype = $plugin->type();
        my $bkname = "vzdump-$vmtype-$vmid";
        my $time = $opts->{backup_time} // time();
        my $basename = $bkname . strftime('-%Y_%m_%d-%H_%M_%S', localtime($time));
        my $maxfiles = $opts->{maxfiles};

        if ($maxfiles && !$opts->{remove}) {
            my $bklist = get_backup_file_list($opts->{dumpdir}, $bkname);
            die "only $maxfiles backup(s) allowed\n" if scalar(@$bklist) >= $maxfiles;
        }

        $task->{logfile} = "$opts->{dumpdir}/$basename.log";
        my $ext = $vmtype eq 'qemu' ? '.vma' : '.tar';
        my ($comp, $comp_ext) = compressor_info($opts);
        $ext .= ".$comp_ext" if $comp && $comp_ext;
        $task->{tarfile} = $task->{tmptar} = "$opts->{dumpdir}/$basename$ext";
        $task->{tmptar} =~ s/\.[^\.]+$/\.dat/;

        $task->{vmtype} = $vmtype;

        $task->{tmpdir} = "$opts->{dumpdir}/$basename.tmp";
        mkdir $task->{tmpdir} or die "unable to create temporary directory '$task->{tmpdir}'";
        $task->{tmplog} = "$task->{tmpdir}.log";
        open($logfd, '>', $task->{tmplog}) or die "unable to create log file - $!\n";

        debugmsg('info', "Starting Backup of VM $vmid ($vmtype)", $logfd);
        debugmsg('info', "ionice priority: $opts->{ionice}", $logfd);

        debugmsg('info', "creating archive '$task->{tarfile}'", $logfd);
        bless({ vzdump => $self }, $plugin)->archive($task, $vmid, $task->{tmptar}, $comp);
        rename($task->{tmptar}, $task->{tarfile})
            or die "unable to rename '$task->{tmptar}' to '$task->{tarfile}'\n";

        # determine size
        $task->{size} = -s $task->{tarfile};

        # purge older backup
        if ($maxfiles && $opts->{remove}) {
            my $bklist = get_backup_file_list($opts->{dumpdir}, $bkname, $task->{tarfile});
            $bklist = [sort { $b->[1] <=> $a->[1] } @$bklist];
            while (scalar(@$bklist) >= $maxfiles) {
                my $d = pop @$bklist;
                debugmsg('info', "delete old backup '$d->[0]'", $logfd);
                unlink $d->[0];
                (my $logfn = $d->[0]) =~ s/\.(tgz|((tar|vma)(\.(gz|lzo))?))$/\.log/;
                unlink $logfn;
            }
        }
    };
    my $err = $@;

    unlink $task->{tmptar} if $task->{tmptar} && -f $task->{tmptar};
    debugmsg('err', "Backup of VM $vmid failed - $err", $logfd) if $err;
    close($logfd) if $logfd;
    rename($task->{tmplog}, $task->{logfile}) if $task->{tmplog};
    remove_tree($task->{tmpdir}) if $task->{tmpdir};
    die "job errors\n" if $err;
    return;
}

1;
