package PVE::VZDump::Differential::Jobs;

# Part of pve-diff-backup.  Loaded by lines that it inserted into PVE/VZDump.pm and
# PVE/API2/Backup.pm; `pve-diff-backup revert` removes all of them together with this file.

use strict;
use warnings;

use JSON::PP ();

# No `use` of PVE::Tools: what is loaded here must not change the order in which upstream loads its
# modules.

=head1 NAME

PVE::VZDump::Differential::Jobs - the option of backup jobs where nodes do not know it

=head1 DESCRIPTION

A node without our lines drops C<fullbackup> from all jobs whenever it writes F<jobs.cfg>.  A copy
of ours in the cluster file system remembers the values; C<pve-diff-backup> gives them back.  So an
administrator who removes a value must make the copy forget it, and that is what happens here.

Nothing here stops upstream: who calls turns errors into warnings.

=cut

# Package variables, so that a tree elsewhere can name its own.
our $FILE;
$FILE = '/etc/pve/pve-diff-backup.json' if !defined($FILE);
our $PROGRAM;
$PROGRAM = '/usr/bin/pve-diff-backup' if !defined($PROGRAM);

# The only form of the file that is known here.
my $FORMAT = 1;

# Longer than the program itself waits for the cluster file system.
my $TIMEOUT = 60;

=head1 SUBS

=head2 decided($id, $job)

Remembers what the job C<$id> is to say of C<fullbackup>, or forgets it where it is to say nothing.
To be called with the lock of F<jobs.cfg> held, before that file is written.  Returns true.

=cut

sub decided {
    my ($id, $job) = @_;

    local $@;
    my $days = $job->{fullbackup};
    $days = defined($days) && $days =~ /\A([0-9]{1,3})\z/ ? int($1) : undef;

    return 1 if !-e $FILE && !defined($days);

    my $memory = -e $FILE ? JSON::PP::decode_json(PVE::Tools::file_get_contents($FILE)) : {};
    $memory->{format} //= $FORMAT;
    die "$FILE: unknown form, install the newest pve-diff-backup on all nodes\n"
        if $memory->{format} != $FORMAT;

    my $before = $memory->{jobs}->{$id};
    return 1 if defined($before) ? defined($days) && $before == $days : !defined($days);

    if (defined($days)) {
        $memory->{jobs}->{$id} = $days;
    } else {
        delete $memory->{jobs}->{$id};
    }
    my $json = JSON::PP->new->utf8->canonical->pretty->encode($memory);
    PVE::Tools::file_set_contents($FILE, $json);
    return 1;
}

=head2 sync()

Lets C<pve-diff-backup> look after the jobs: remember new values, give back dropped ones.  Returns
true.

=cut

sub sync {
    return 1 if !-x $PROGRAM;

    local $@;
    local %ENV = (PATH => '/usr/sbin:/usr/bin:/sbin:/bin');
    PVE::Tools::run_command(
        [$PROGRAM, 'hook', 'jobs'],
        timeout => $TIMEOUT,
        # standard output may be the backup itself
        outfunc => sub { },
        errfunc => sub { warn "$_[0]\n" },
    );
    return 1;
}

1;
