package PVE::RPCEnvironment;

# A stand-in for Proxmox VE's module of this name, written for tests/perl/api.t.

use strict;
use warnings;

# What the only user may do, by path and privilege, the tasks that were started, and what is called with
# each, if anything is.
our (%ALLOWED, @WORKERS, $STARTED);

sub get {
    my $self = {};
    return bless $self, __PACKAGE__;
}

sub get_user { return 'u@pve' }

sub check {
    my ($self, $user, $path, $privileges, $noerr) = @_;

    my @lacking = grep { !$ALLOWED{$path}->{$_} } @$privileges;
    die "Permission check failed ($path, @lacking)\n" if @lacking && !$noerr;
    return !@lacking;
}

sub check_any {
    my ($self, $user, $path, $privileges) = @_;

    return scalar(grep { $ALLOWED{$path}->{$_} } @$privileges);
}

sub fork_worker {
    my ($self, @what) = @_;

    push @WORKERS, \@what;
    $STARTED->() if $STARTED;
    return "UPID:$what[0]";
}

1;
