package PVE::VZDump::Differential::Chain;

# Part of pve-diff-backup.  Pure functions: nothing here touches a file, a clock or a process.

use strict;
use warnings;

use Exporter qw(import);
use Time::Local qw(timelocal);

our @EXPORT_OK = qw(parse_name differential_name encode_path decode_path choose_base dependants
    split_restorable mark_stranded keep_needed);

=head1 NAME

PVE::VZDump::Differential::Chain - names of backups, and which of them belong together

=head1 DESCRIPTION

A I<full> is an ordinary vzdump archive, a I<differential> holds the changes of one backup against
one full, its I<base>.  The name tells all of it:

    vzdump-qemu-101-2026_11_21-01_00_00.vma.zst
    vzdump-qemu-101-2026_11_21-01_00_00.vma.zst--differential-2026_11_22-01_00_00.vcdiff.zst

F<tests/data/names.json> holds the names that this module and the Rust side agree upon.

=cut

my $STAMP_RE = qr/[0-9]{4}_[0-9]{2}_[0-9]{2}-[0-9]{2}_[0-9]{2}_[0-9]{2}/;
my $COMPRESSION_RE = qr/zst|lzo|gz/;
my $FULL_RE = qr/vzdump-(qemu|lxc|openvz)-([1-9][0-9]{2,8})-($STAMP_RE)
    \.(?:(tgz)|(vma|tar)(?:\.($COMPRESSION_RE))?)/x;
my $DIFF_RE = qr/--differential-($STAMP_RE)\.vcdiff(?:\.($COMPRESSION_RE))?/;

# A full is due this much earlier than N whole days after the last one, so that a daily job that
# starts a little earlier or later each day still makes a full every Nth day.
my $SLACK = 12 * 3600;

=head1 FUNCTIONS

=head2 parse_stamp($stamp)

Seconds since the epoch for a local time such as C<2026_11_21-01_00_00>, undef if there is no such
time.

=cut

sub parse_stamp {
    my ($stamp) = @_;

    my ($year, $mon, $day, $hour, $min, $sec) =
        $stamp =~ /\A([0-9]{4})_([0-9]{2})_([0-9]{2})-([0-9]{2})_([0-9]{2})_([0-9]{2})\z/
        or return;
    return if $year < 1970; # timelocal takes small years for two-digit ones

    return eval { timelocal($sec, $min, $hour, $day, $mon - 1, $year) };
}

=head2 parse_name($name)

What the name (without folder) of a full or differential says, as a hash: C<name>, C<type> (qemu,
lxc, openvz), C<vmid>, C<stamp> and C<ctime> of the backup itself, C<format> (vma, tar) of the
stream, C<compression> (zst, lzo, gz or undef) of the file itself, C<base> and C<base_ctime>
(undef for a full), C<stem> (what a log is named after).  All strings are untainted. Undef for any
other name, also for unfinished files, logs and differentials of a differential.

=cut

sub parse_name {
    my ($name) = @_;

    return if !defined($name);

    my ($base, $tail) = $name =~ /\A($FULL_RE)($DIFF_RE)?\z/ ? ($1, $8) : return;
    my ($type, $vmid, $stamp, $tgz, $format, $compression) = ($2, $3, $4, $5, $6, $7);
    my ($diff_stamp, $diff_compression) = ($9, $10);

    if ($tgz) {
        ($format, $compression) = ('tar', 'gz');
    }
    return if $format eq 'vma' && $type ne 'qemu';

    my $ctime = parse_stamp($stamp);
    return if !defined($ctime);

    my $info = {
        name => $base,
        type => $type,
        vmid => int($vmid),
        stamp => $stamp,
        ctime => $ctime,
        format => $format,
        compression => $compression,
        base => undef,
        base_ctime => undef,
        stem => "vzdump-$type-$vmid-$stamp",
    };
    return $info if !defined($tail);

    my $diff_ctime = parse_stamp($diff_stamp);
    return if !defined($diff_ctime);

    return {
        %$info,
        name => $base . $tail,
        stamp => $diff_stamp,
        ctime => $diff_ctime,
        compression => $diff_compression,
        base => $base,
        base_ctime => $ctime,
        stem => "$base--differential-$diff_stamp",
    };
}

=head2 differential_name($base, $stamp, $compression)

The name of a differential; C<$compression> is C<zst>, C<lzo>, C<gz> or undef.

=cut

sub differential_name {
    my ($base, $stamp, $compression) = @_;

    return "$base--differential-$stamp.vcdiff" . ($compression ? ".$compression" : '');
}

=head2 encode_path($path)

The path as one plain word, untainted.  vzdump runs a compressor in three ways (exec of a string,
C<exec:> of vma, splitting at blanks), so the word has no blank, quote or character of the shell.

=cut

sub encode_path {
    my ($path) = @_;

    utf8::encode($path) if utf8::is_utf8($path);
    $path =~ s/([^A-Za-z0-9._\/-])/sprintf('%%%02X', ord($1))/eg;

    return $path =~ m/\A([A-Za-z0-9%._\/-]*)\z/ ? $1 : die "internal error - path not encoded\n";
}

=head2 decode_path($word)

The reverse of L</encode_path($path)>; dies where the word is not of that form.

=cut

sub decode_path {
    my ($word) = @_;

    my ($path) = $word =~ m/\A((?:[A-Za-z0-9._\/-]|%[0-9A-F]{2})*)\z/
        or die "malformed path '$word' of a full backup\n";
    $path =~ s/%([0-9A-F]{2})/chr(hex($1))/eg;
    die "malformed path '$word' of a full backup\n" if $path =~ /\0/;

    return $path;
}

=head2 choose_base(\@files, %want)

Which full serves as base.  C<@files> are hashes with C<name>, C<size> and C<readable> of the
files of one folder; C<%want> has C<type>, C<vmid>, C<format>, C<days> (a full is due every so
many days) and C<now>. Returns C<($name, $reason, $is_odd)>: the full to use (untainted) or undef,
a text for people, and whether they should look into it.

The newest full decides: if it cannot serve, a full backup is due rather than a difference to an
older one. Fulls dated in the future (a wrong clock) are left out.

=cut

sub choose_base {
    my ($files, %want) = @_;

    my @fulls;
    my $future = 0;
    for my $file (@$files) {
        my $info = parse_name($file->{name});
        next if !$info || defined($info->{base});
        next if $info->{type} ne $want{type} || $info->{vmid} != $want{vmid};
        if ($info->{ctime} >= $want{now}) {
            $future++;
        } else {
            push @fulls, { file => $file, info => $info };
        }
    }
    my $except = $future ? " ($future dated in the future left out)" : '';
    return (undef, "there is no full backup of this guest yet$except", $future) if !@fulls;

    my ($newest) = sort {
        $b->{info}->{ctime} <=> $a->{info}->{ctime} || $b->{info}->{name} cmp $a->{info}->{name}
    } @fulls;
    my ($file, $info) = @$newest{qw(file info)};
    my $age = $want{now} - $info->{ctime};
    my $old = format_age($age) . " old$except";

    return (undef, "the last one, '$info->{name}', is $old")
        if $age >= $want{days} * 86400 - $SLACK;
    return (undef, "'$info->{name}' is in another format than this guest's backups now", 1)
        if $info->{format} ne $want{format};
    return (undef, "'$info->{name}' is empty", 1) if !$file->{size};
    return (undef, "'$info->{name}' cannot be read", 1) if !$file->{readable};

    return ($info->{name}, "'$info->{name}' is $old");
}

=head2 format_age($seconds)

Such as C<3 days>, C<5 hours>, C<1 minute>, for people.

=cut

sub format_age {
    my ($seconds) = @_;

    for my $unit ([day => 86400], [hour => 3600], [minute => 60]) {
        my ($name, $length) = @$unit;
        my $count = int($seconds / $length);
        return "$count $name" . ($count == 1 ? '' : 's') if $count;
    }
    return 'less than a minute';
}

=head2 dependants($full, @names)

Those of C<@names> that need the full: differentials, and unfinished ones that are being written.

=cut

sub dependants {
    my ($full, @names) = @_;

    my $needs = qr/\A\Q$full\E--differential-$STAMP_RE\.(?:vcdiff|dat)/;
    my @needing = sort grep { $_ =~ $needs && !/\.(?:notes|protected)\z/ } @names;
    return @needing;
}

=head2 split_restorable(\@group)

Splits what upstream's prune is about to mark (hashes with C<volid> or C<path>) into two lists:
backups that can be restored, and differentials whose full is not among them.  The latter must not
count for a retention rule, or they would push out good backups.

=cut

sub split_restorable {
    my ($group) = @_;

    my %present = map { _entry_name($_) => 1 } @$group;
    my (@good, @stranded);
    for my $entry (@$group) {
        my $info = parse_name(_entry_name($entry));
        my $is_stranded = $info && defined($info->{base}) && !$present{ $info->{base} };
        push @{ $is_stranded ? \@stranded : \@good }, $entry;
    }
    return (\@good, \@stranded);
}

=head2 keep_needed(\@group)

After upstream has marked the entries of a group: every full that an entry needs which stays (kept
or protected) stays as well, and C<needed-by> says how many need it, for who asks why it stays.
Returns the names of the fulls that were saved by this.

=cut

sub keep_needed {
    my ($group) = @_;

    my %needed;
    for my $entry (@$group) {
        next if ($entry->{mark} // '') eq 'remove';
        my $info = parse_name(_entry_name($entry));
        $needed{ $info->{base} }++ if $info && defined($info->{base});
    }

    my @saved;
    for my $entry (@$group) {
        my $name = _entry_name($entry);
        next if !$needed{$name} || ($entry->{mark} // '') ne 'remove';
        $entry->{mark} = 'keep';
        $entry->{'needed-by'} = $needed{$name};
        push @saved, $name;
    }
    return @saved;
}

=head2 mark_stranded(\@stranded, \@good, \%keep)

Marks the stranded differentials after upstream has marked the good backups: they go when a
retention rule is in force and every kept backup is newer, otherwise they stay.

=cut

sub mark_stranded {
    my ($stranded, $good, $keep) = @_;

    my $has_rule = !$keep->{'keep-all'} && grep { $keep->{$_} } keys %$keep;
    my ($oldest) = sort { $a <=> $b }
        map { $_->{ctime} } grep { ($_->{mark} // '') eq 'keep' } @$good;
    for my $entry (@$stranded) {
        my $is_past = $has_rule && defined($oldest) && $entry->{ctime} < $oldest;
        $entry->{mark} //= $is_past ? 'remove' : 'keep';
    }
    return;
}

sub _entry_name {
    my ($entry) = @_;

    my ($name) = ($entry->{volid} // $entry->{path} // '') =~ m!([^/]*)\z!;
    return $name;
}

1;
