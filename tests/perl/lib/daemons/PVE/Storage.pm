package PVE::Storage;

# A stand-in for Proxmox VE's module of this name, written for tests/perl/api.t.

use strict;
use warnings;

use PVE::RPCEnvironment;

# The folder of the storage 'local'.
our $DIR;

sub config {
    return {
        ids => {
            local => { type => 'dir', path => $DIR },
            own => { type => 'webtest' },
            server => { type => 'pbs', server => 'x' },
            hidden => { type => 'dir', path => '/x' },
            odd => { type => 'webtest', path => '/y' },
        },
    };
}

sub storage_has_feature {
    my ($cfg, $id, $feature) = @_;

    return $id eq 'odd' && $feature eq 'backup-provider';
}

sub parse_volume_id {
    my ($volid, $noerr) = @_;

    return $noerr && $volid !~ /:/ ? () : split(/:/, $volid, 2);
}

sub activate_storage { return 1 }

sub path {
    my ($cfg, $volid) = @_;

    return $volid =~ m!\Alocal:(backup|snippets)/(.+)\z!s
        ? "$DIR/" . ($1 eq 'backup' ? 'dump' : $1) . "/$2"
        : '/dev/x';
}

sub parse_volname {
    my ($cfg, $volid) = @_;

    return $volid =~ m!\A\w+:(\w+)/([^/]+)\z! ? ($1, $2) : die "no volume name\n";
}

sub volume_list {
    my ($cfg, $id, $vmid, $content) = @_;

    opendir(my $dh, "$DIR/dump") or die;
    my @names = grep { /\Avzdump/ && (!defined($vmid) || /-$vmid-/) } sort readdir($dh);
    closedir($dh);
    return [map { { volid => "$id:$content/$_" } } @names];
}

sub check_volume_access {
    my ($rpcenv, $user, $cfg, $vmid, $volid) = @_;

    my ($owner) = $volid =~ /vzdump-\w+-([0-9]+)-/ or die "no volume\n";
    return if $rpcenv->check($user, '/storage/local', ['Datastore.Allocate'], 1);
    $rpcenv->check($user, "/vms/$owner", ['VM.Backup']);
    return;
}

1;
