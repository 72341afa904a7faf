package PVE::VZDump::Differential::Chain;

# Part of pve-diff-backup.  Pure functions: nothing here touches a file, a clock or a process.

use strict;
use warnings;

use Exporter qw(import);
use Time::Local qw(timelocal);

our @EXPORT_OK =
    qw(parse_name parse_unfinished parse_folder full_forms differential_name encode_path decode_path
    choose_base other_guest dependants split_restorable mark_stranded keep_needed shown parse_settings
    percent format_size told_numbers kept_text);

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

# What may not come raw to a terminal, a log or a web page: commands, marks that turn the direction
# of text or cannot be seen, and what HTML is made of.  F<tests/data/shown.json> holds what this
# module and the Rust side agree upon.
my $UNSAFE_RE = qr/[\x00-\x1f\x7f-\x9f<>&"\x{ad}\x{61c}\x{180e}\x{200b}-\x{200f}\x{2028}-\x{202e}]
    |[\x{2060}-\x{206f}\x{fe00}-\x{fe0f}\x{feff}\x{fff9}-\x{fffb}\x{e0000}-\x{e0fff}]/x;

# How many characters are shown of a text of others, and what stands for those left out.
my $MAX_SHOWN = 255;
my $CUT = '[...]';

# What a full may be compressed with: what vzdump writes, and what people pack archives with. F<.tgz>
# is another name for F<.tar.gz>.
my @FORMS = ('', '.zst', '.lzo', '.gz', '.xz');
my $FORM_RE = qr/(?:\.(?:zst|lzo|gz|xz))?/;

# A full is due a little earlier than N whole days after the last one, so that a daily job that
# starts earlier or later each day still makes a full every Nth day: half a day at most, and half of
# the time between this guest's backups, since a job that runs more often would make a second full
# on the same day.
my $MAX_SLACK = 12 * 3600;

# What an administrator may set: what each setting may be, in words and as a pattern, and its
# default.
my %SETTINGS = (
    'base-without-map' => ['replace or use', qr/(replace|use)/, 'replace'],
    'changed-blocks' => ['fleecing, auto or off', qr/(fleecing|auto|off)/, 'off'],
    'changed-blocks-audit' =>
        ['a number of backups such as 30, or off', qr/([1-9][0-9]{0,2}|off)/, '30'],
    'largest-differential' => ['a share such as 50%, or off', qr/([1-9][0-9]{0,3}%|off)/, '50%'],
);

=head1 FUNCTIONS

=head2 parse_settings($storage, @texts)

The settings that hold for a storage (undef: for a folder that is none) as a hash, then a list for
each text of what in it is not understood: such a line is left out, so that what else is set, or the
default, holds.  The texts are those of the cluster's file and of the node's, of which the last
counts more.  Below a line C<storage: ID> stands what is set for that storage alone, which counts more
than what is set for all.  F<tests/data/settings.json> holds what this module and the Rust side agree
upon.

=cut

sub parse_settings {
    my ($storage, @texts) = @_;

    my %defaults = map { $_ => $SETTINGS{$_}->[2] } keys %SETTINGS;
    my (@common, @own, @complaints);
    for my $text (@texts) {
        my ($common, $own, $wrong) = _settings_in($text, $storage);
        push @common, %$common;
        push @own, %$own;
        push @complaints, $wrong;
    }
    return ({ %defaults, @common, @own }, @complaints);
}

# What a text sets for all storages, what for that one, and what in it is not understood.
sub _settings_in {
    my ($text, $storage) = @_;

    my (%common, %own, @complaints);
    my $section = '';
    my $number = 0;
    for my $line (split(/\n/, $text)) {
        $number++;
        next if $line =~ /\A\s*(?:#.*)?\z/;
        my ($key, $value) = $line =~ /\A\s*([a-z-]+)\s*:\s*(\S+)\s*\z/;
        if (defined($key) && $key eq 'storage') {
            ($section) = $value =~ /\A([A-Za-z][A-Za-z0-9_.-]*)\z/;
            push @complaints,
                "line $number: not the name of a storage, so what is below is left out"
                if !defined($section);
            next;
        }
        my $known = defined($key) ? $SETTINGS{$key} : undef;
        my ($clean) = $known ? $value =~ /\A$known->[1]\z/ : ();
        if (!defined($clean)) {
            my $right =
                $known
                ? "$key is $known->[0]"
                : 'there is ' . join(', ', map { "'$_: $SETTINGS{$_}->[2]'" } sort keys %SETTINGS);
            push @complaints, "line $number: not understood, so it is left out ($right)";
        } elsif (!defined($section)) {
            next;
        } elsif ($section eq '') {
            $common{$key} = $clean;
        } elsif (defined($storage) && $section eq $storage) {
            $own{$key} = $clean;
        }
    }
    return (\%common, \%own, \@complaints);
}

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

=head2 full_forms($name)

The names under which the content of a full may lie beside its differentials: its own, then the
same with each other compression, since a full may be compressed anew.  A name that is not a
full's has only itself.

=cut

sub full_forms {
    my ($name) = @_;

    my $content = _content($name);
    return $name if !defined($content);
    my @forms = map { $content . $_ } @FORMS;
    push @forms, "$1.tgz" if $content =~ /\A(.+)\.tar\z/;
    return ($name, grep { $_ ne $name } @forms);
}

# The name of a full without its compression; undef for any other name.
sub _content {
    my ($name) = @_;

    $name =~ s/\.tgz\z/.tar/;
    my ($content) = $name =~ /\A(vzdump-[^\/]+\.(?:vma|tar))$FORM_RE\z/ or return;
    return $content =~ /--differential-/ ? undef : $content;
}

=head2 parse_unfinished($name)

What the name of an unfinished backup says, as a hash: C<name>, C<type>, C<vmid>, C<base> (undef for
a full) and C<node>, who writes it (undef where the name does not say).  All strings are untainted.
Undef for any other name.

=cut

sub parse_unfinished {
    my ($name) = @_;

    my $node_re = qr/(?:\.([A-Za-z0-9-]+-[0-9a-f]{8}))?\.dat/;
    if (($name // '') =~ /\A(($FULL_RE)--differential-$STAMP_RE(?:\.vcdiff)?$node_re)\z/) {
        my ($all, $base, $node) = ($1, $2, $9);
        my $full = parse_name($base) or return;
        my ($type, $vmid) = @$full{qw(type vmid)};
        return { name => $all, type => $type, vmid => $vmid, base => $base, node => $node };
    }
    if (
        ($name // '') =~ /\A(vzdump-(qemu|lxc|openvz)-([1-9][0-9]{2,8})-$STAMP_RE
        (?:\.(?:vma|tar))?$node_re)\z/x
    ) {
        return { name => $1, type => $2, vmid => int($3), base => undef, node => $4 };
    }
    return;
}

=head2 parse_folder($name)

What the name of a folder says that vzdump makes for one backup, as a hash: C<name>, untainted, C<vmid>,
and C<type> where it says that (beside the backups; below a folder for temporary files the process is
named instead).  Undef for any other name.

=cut

sub parse_folder {
    my ($name) = @_;

    return { name => $1, type => $2, vmid => int($3) }
        if ($name // '') =~ /\A(vzdump-(qemu|lxc|openvz)-([1-9][0-9]{2,8})-$STAMP_RE\.tmp)\z/;
    return { name => $1, type => undef, vmid => int($2) }
        if ($name // '') =~ /\A(vzdumptmp[0-9]{1,10}_([1-9][0-9]{2,8}))\z/;
    return;
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
        or die "malformed path '" . shown($word) . "' of a full backup\n";
    $path =~ s/%([0-9A-F]{2})/chr(hex($1))/eg;
    die "malformed path '" . shown($word) . "' of a full backup\n" if $path =~ /\0/;

    return $path;
}

=head2 shown($text, $limit)

Text of others (a file's name, what a file holds) for a message: printable, and no longer than
C<$limit> characters, 255 without one.

=cut

sub shown {
    my ($text, $limit) = @_;

    $limit //= $MAX_SHOWN;
    my $copy = $text // '';
    # bytes become characters where they are UTF-8
    my $were_bytes = !utf8::is_utf8($copy);
    my $are_text = !$were_bytes || utf8::decode($copy);
    $copy =~ s/([^\x00-\x7f])/sprintf('\\x%02x', ord($1))/eg if !$are_text;
    $copy =~ s/($UNSAFE_RE)/_escaped($1)/eg;
    if (length($copy) > $limit) {
        my $rest = $limit - length($CUT);
        my $tail = int($rest / 2);
        $copy = substr($copy, 0, $rest - $tail) . $CUT . substr($copy, -$tail);
    }
    utf8::encode($copy) if $were_bytes && utf8::is_utf8($copy);
    return $copy;
}

sub _escaped {
    my ($char) = @_;

    my %named = ("\n" => '\n', "\r" => '\r', "\t" => '\t');
    return $named{$char} if $named{$char};
    utf8::encode($char);
    return join('', map { sprintf('\\x%02x', ord($_)) } split(//, $char));
}

=head2 choose_base(\@files, %want)

Which full serves as base.  C<@files> are hashes with C<name>, C<size>, C<readable> and C<odd> (what
it is, where it is no regular file) of the files of one folder; C<%want> has C<type>, C<vmid>,
C<format>, C<days> (a full is due every so many days), C<now>, C<needs_map> (a full without a map is
replaced where it can be read from its start only), C<largest> (a full is due as well where the last
differential takes more than so many percent of its full) and C<look>: a sub that is called with the name
of a full and returns a hash with C<error> (why it cannot serve), C<other_guest> (why it is another
guest's), C<has_map> and C<from_start> (it can be read from its start only).  Returns C<($name,
$reason, $is_odd)>: the full to use (untainted) or undef, a text for people, and whether they should
look into it.

The newest full decides: if it cannot serve, a full backup is due rather than a difference to an
older one. Where it serves but has no map, one that is older, has a map and is within its days is
preferred: differences to it are made in less time and are smaller. Fulls dated in the future (a
wrong clock) are left out.

=cut

sub choose_base {
    my ($files, %want) = @_;

    my ($base, $reason, $is_odd) = _choose($files, %want);
    my $grown = defined($base) && defined($want{largest}) ? _grown($base, $files, %want) : undef;
    return defined($grown) ? (undef, $grown, 0) : ($base, $reason, $is_odd);
}

# Why differences to a full have become too large, undef if they have not: what the last one takes.
sub _grown {
    my ($base, $files, %want) = @_;

    my ($full) = grep { $_->{name} eq $base } @$files;
    my %forms = map { $_ => 1 } full_forms($base);
    my $last;
    for my $file (grep { !$_->{odd} } @$files) {
        my $info = parse_name($file->{name});
        next if !$info || !$forms{ $info->{base} // '' } || $info->{ctime} >= $want{now};
        $last = { %$info, size => $file->{size} } if !$last || $info->{ctime} > $last->{ctime};
    }
    return if !$last || $last->{size} * 100 <= $want{largest} * $full->{size};
    return
          "the last differential, of $last->{stamp}, takes "
        . percent($last->{size}, $full->{size})
        . " of '$base', which is more than $want{largest}% (largest-differential in"
        . ' pve-diff-backup(1))';
}

# Which full serves, by its age and by what is in it.
sub _choose {
    my ($files, %want) = @_;

    my (@fulls, @differentials);
    my $future = 0;
    for my $file (@$files) {
        my $info = parse_name($file->{name});
        next if !$info || $info->{type} ne $want{type} || $info->{vmid} != $want{vmid};
        if (defined($info->{base})) {
            push @differentials, $info;
        } elsif ($info->{ctime} >= $want{now}) {
            $future++;
        } else {
            push @fulls, { file => $file, info => $info };
        }
    }
    my $except = $future ? " ($future dated in the future left out)" : '';
    return (undef, _no_full($files, $future, @differentials) . $except, $future || @differentials)
        if !@fulls;

    my ($newest, @older) = sort {
        $b->{info}->{ctime} <=> $a->{info}->{ctime} || $b->{info}->{name} cmp $a->{info}->{name}
    } @fulls;
    my ($last) = sort { $b <=> $a } grep { $_ < $want{now} }
        map { $_->{ctime} } $newest->{info}, @differentials;
    my $slack = ($want{now} - $last) / 2;
    $slack = $MAX_SLACK if $slack > $MAX_SLACK;
    my $is_due = sub { $want{now} - $_[0]->{info}->{ctime} >= $want{days} * 86400 - $slack };
    my $name = $newest->{info}->{name};
    my $old = format_age($want{now} - $newest->{info}->{ctime}) . " old$except";
    return (undef, "the last one, '$name', is $old") if $is_due->($newest);

    my ($found, $obstacle, $is_odd) = _look($newest, %want);
    return (undef, $obstacle, $is_odd) if !$found;
    return ($name, "'$name' is $old") if $found->{has_map};

    for my $older (@older) {
        my ($mapped) = $is_due->($older) ? () : _look($older, %want);
        last if !$mapped;
        next if !$mapped->{has_map};
        my $age = format_age($want{now} - $older->{info}->{ctime});
        return (
            $older->{info}->{name},
            "'$older->{info}->{name}' is $age old$except and has a map, which '$name' lacks"
        );
    }
    return (
        undef,
        "'$name' has no map (vzdump itself made it, or it was compressed anew): differences to it"
            . ' would be larger and take longer (base-without-map in pve-diff-backup(1))'
    ) if $found->{from_start} && $want{needs_map};

    return ($name, "'$name' is $old");
}

# What is known of a full that may serve, or undef, why it cannot, and whether that is odd.
sub _look {
    my ($full, %want) = @_;

    my ($file, $info) = @$full{qw(file info)};
    my $obstacle =
          $info->{format} ne $want{format} ? "is in another format than this guest's backups now"
        : $file->{odd} ? "is $file->{odd}, and not read"
        : !$file->{size} ? 'is empty'
        : !$file->{readable} ? 'cannot be read'
        : undef;
    return (undef, "'$info->{name}' $obstacle", 1) if $obstacle;

    my $found = $want{look}->($info->{name});
    return (undef, "'$info->{name}' cannot serve as base ($found->{error})", 1)
        if defined($found->{error});
    return (undef, "'$info->{name}' is another guest's: $found->{other_guest}", 0)
        if defined($found->{other_guest});
    return $found;
}

# Why there is no full to start from.
sub _no_full {
    my ($files, $future, @differentials) = @_;

    my %present = map { $_->{name} => 1 } @$files;
    my (%missing, $count);
    for my $info (@differentials) {
        next if grep { $present{$_} } full_forms($info->{base});
        $missing{ $info->{base} } = 1;
        $count++;
    }
    return 'there is no full backup of this guest yet' if !$future && !@differentials;
    return 'no full backup of this guest here can serve as base' if !$count;

    my @names = sort { $b cmp $a } keys %missing;
    my $names = join(', ', map { "'$_'" } grep { defined } @names[0 .. 2]);
    $names .= ' and ' . (@names - 3) . ' more' if @names > 3;
    return
          "the full backup of $count differential backup"
        . ($count == 1 ? '' : 's')
        . " of this guest is missing: put $names back to be able to restore "
        . ($count == 1 ? 'it' : 'them');
}

=head2 other_guest($type, $then, $now, $time)

Why the guest that had the configuration C<$then> in a backup made at C<$time> is not the one that
has the configuration C<$now> under the same number; undef where it is the same, or where that
cannot be told.

A VM is told by the UUID of its SMBIOS, its generation ID and the time of its creation: one of
them that is the same proves that it is the same VM, so that one that was restored over itself,
rolled back or given another UUID stays itself.  A container has none of these, but it has a host
name.  For both, the hardware addresses of the network count as well.  One difference alone proves
nothing, nor do disks, which are added, moved and named by the number.

=cut

sub other_guest {
    my ($type, $then, $now, $time) = @_;

    my ($was, $is) = map { _marks($type, $_) } $then, $now;
    my $differences = 0;
    for my $mark (keys %$was) {
        return if grep { $is->{$mark}->{$_} } keys %{ $was->{$mark} };
        $differences++ if %{ $was->{$mark} } && %{ $is->{$mark} };
    }
    my ($created) = keys %{ $is->{'time of creation'} // {} };
    return 'this one was created after that backup' if defined($created) && $created > $time;
    return if $differences < 2;
    my @told = grep { %{ $was->{$_} } && %{ $is->{$_} } } sort keys %$was;
    return 'they differ in ' . join(', ', @told);
}

# What tells a guest from others, from its configuration: sets of values by what they are.
sub _marks {
    my ($type, $config) = @_;

    my %marks =
        map { $_ => {} }
        $type eq 'qemu'
        ? ('SMBIOS UUID', 'generation ID', 'time of creation', 'network addresses')
        : ('host name', 'network addresses');
    for my $line (split(/\n/, $config)) {
        last if $line =~ /\A\[/; # snapshots and what is pending
        my ($key, $value) = $line =~ /\A([a-z]+[0-9]*):\s*(.*?)\s*\z/ or next;
        my ($mark, @found) =
              $key eq 'smbios1' ? ('SMBIOS UUID', $value =~ /(?:\A|,)uuid=([0-9a-fA-F-]{36})/)
            : $key eq 'vmgenid' ? ('generation ID', $value =~ /\A([0-9a-fA-F-]{36})\z/)
            : $key eq 'meta' ? ('time of creation', $value =~ /(?:\A|,)ctime=([0-9]{1,15})/)
            : $key eq 'hostname' ? ('host name', $value)
            : $key =~ /\Anet[0-9]/
            ? ('network addresses', $value =~ /\b((?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2})\b/)
            : next;
        $marks{$mark}->{ lc($_) } = 1 for $marks{$mark} ? @found : ();
    }
    return \%marks;
}

=head2 percent($part, $whole)

Such as C<0.4%> or C<37%>, for people.

=cut

sub percent {
    my ($part, $whole) = @_;

    return '-' if !$whole;
    my $percent = 100 * $part / $whole;
    return sprintf($percent < 9.95 ? '%.1f%%' : '%.0f%%', $percent);
}

=head2 format_size($bytes)

Such as C<63.1 MiB> or C<512 B>, for people.

=cut

sub format_size {
    my ($bytes) = @_;

    return "$bytes B" if $bytes < 1024;
    my $unit = 'KiB';
    for my $next (qw(MiB GiB TiB)) {
        last if $bytes < 1024 * 1024;
        $bytes /= 1024;
        $unit = $next;
    }
    return sprintf('%.1f %s', $bytes / 1024, $unit);
}

=head2 told_numbers($report, $size, $full_size)

What a backup was made of, as lines for a task's log: C<$report> is what the helper noted of it (undef
if it did not), C<$size> the archive's size, C<$full_size> that of the full it needs, undef if it
is one itself.  F<docs/task-log.md> promises these phrases.

=cut

sub told_numbers {
    my ($report, $size, $full_size) = @_;

    my $kind = defined($full_size) ? 'differential' : 'full';
    my ($read, $seconds, $new) =
        ($report // '') =~ /\Aread=([0-9]+) seconds=([0-9]+\.[0-9]+)(?: new=([0-9]+))?\n\z/;
    my (@lines, @parts);
    if (defined($read)) {
        my @read = format_size($read) . ' read';
        if (defined($full_size) && defined($new) && $new <= $read) {
            push @read, format_size($read - $new) . ' unchanged',
                format_size($new) . ' changed (' . percent($new, $read) . ')';
        }
        push @read, 'at ' . format_size(int($read / $seconds)) . '/s' if $seconds > 0;
        push @lines, "$kind backup: " . join(', ', @read);
    }
    push @parts, format_size($size) . ' stored';
    push @parts, percent($size, $full_size) . ' of its full backup' if defined($full_size);
    push @parts, sprintf('ratio %.1f', $read / $size) if defined($read) && $size;
    push @lines, "$kind backup: " . join(', ', @parts);
    return @lines;
}

=head2 kept_text($name, $count)

What is said of a full that a prune keeps only because others need it.

=cut

sub kept_text {
    my ($name, $count) = @_;

    return
          "full backup '"
        . shown($name)
        . "' is kept only because $count differential backup(s) need it";
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

Those of C<@names> that need the full, or one of the same content in another compression:
differentials, and unfinished ones that are being written.

=cut

sub dependants {
    my ($full, @names) = @_;

    my $forms = join('|', map { quotemeta } full_forms($full));
    my $needs = qr/\A(?:$forms)--differential-$STAMP_RE\.(?:vcdiff|dat)/;
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
        my $is_stranded =
            $info && defined($info->{base}) && !grep { $present{$_} } full_forms($info->{base});
        push @{ $is_stranded ? \@stranded : \@good }, $entry;
    }
    return (\@good, \@stranded);
}

=head2 keep_needed(\@group)

After upstream has marked the entries of a group: every full that an entry needs which stays (kept
or protected) stays as well, in each form that is there, and C<needed-by> says how many need it, for
who asks why it stays.  Returns the names of the fulls that were saved by this.

=cut

sub keep_needed {
    my ($group) = @_;

    my %needed;
    for my $entry (@$group) {
        next if ($entry->{mark} // '') eq 'remove';
        my $info = parse_name(_entry_name($entry));
        next if !$info || !defined($info->{base});
        $needed{$_}++ for full_forms($info->{base});
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

=head2 mark_stranded(\@stranded)

Marks the stranded differentials: they stay.  Their full may be away for a while only, renamed or on
a share that is not there, so nobody but an administrator removes them.

=cut

sub mark_stranded {
    my ($stranded) = @_;

    for my $entry (@$stranded) {
        $entry->{mark} = 'keep' if ($entry->{mark} // 'remove') eq 'remove';
    }
    return;
}

sub _entry_name {
    my ($entry) = @_;

    my ($name) = ($entry->{volid} // $entry->{path} // '') =~ m!([^/]*)\z!;
    return $name;
}

1;
