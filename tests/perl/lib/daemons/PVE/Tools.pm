package PVE::Tools;

# A stand-in for Proxmox VE's module of this name, written for tests/perl/api.t and files.t.

use strict;
use warnings;

use File::Temp qw(tempfile);
use POSIX ();

# The last one that was run.
our $COMMAND;

sub run_command {
    my ($cmd, %param) = @_;

    $COMMAND = $cmd;
    my ($errors, $path) = tempfile(UNLINK => 1);
    my $pid = open(my $out, '-|') // die "cannot fork - $!\n";
    if (!$pid) {
        open(STDERR, '>&', $errors) or die;
        my ($number) = ($param{output} // '') =~ /\A>&(\d+)\z/;
        POSIX::dup2($number, 1) if defined($number);
        exec { $cmd->[0] } @$cmd or die;
    }
    while (my $line = <$out>) {
        chomp $line;
        $param{outfunc}->($line);
    }
    close($out);
    my $code = $? >> 8;
    seek($errors, 0, 0);
    while (my $line = <$errors>) {
        chomp $line;
        $param{errfunc}->($line);
    }
    return $code;
}

1;
