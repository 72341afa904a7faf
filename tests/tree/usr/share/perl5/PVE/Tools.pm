package PVE::Tools;

# A small stand-in for Proxmox VE's module of this name, written for the tests of pve-diff-backup.

use strict;
use warnings;

use Cwd ();
use Exporter qw(import);
use IPC::Open3;

our @EXPORT_OK = qw(run_command shellquote);

# The folder that stands for / : this file is /usr/share/perl5/PVE/Tools.pm in it.
sub root {
    my ($root) = Cwd::abs_path(__FILE__) =~ m!\A(.*)/usr/share/perl5/PVE/Tools\.pm\z!s;
    return $root;
}

# A patched tree shall use the program beside it, not the machine's.
{
    no warnings qw(once);
    $PVE::VZDump::Differential::Jobs::FILE = root() . '/etc/pve/pve-diff-backup.json';
    $PVE::VZDump::Differential::Jobs::PROGRAM = root() . '/usr/bin/pve-diff-backup';
    @PVE::VZDump::Differential::Helper::CONFIGS =
        map { root() . $_ } '/etc/pve/pve-diff-backup.conf', '/etc/pve-diff-backup.conf';
    $PVE::VZDump::Differential::Helper::GUESTS = root() . '/etc/pve';
    $PVE::VZDump::Differential::Helper::HELPER = root() . '/usr/bin/pve-xdelta3';
}

sub file_get_contents {
    my ($path) = @_;

    open(my $fh, '<:raw', $path) or die "can't open '$path' - $!\n";
    my $content = do { local $/ = undef; <$fh> };
    close($fh);
    return $content // '';
}

sub file_set_contents {
    my ($path, $content) = @_;

    open(my $fh, '>:raw', "$path.tmp.$$") or die "unable to open '$path' - $!\n";
    print {$fh} $content;
    close($fh) or die "closing '$path' failed - $!\n";
    rename("$path.tmp.$$", $path) or die "close (rename) '$path' failed - $!\n";
    return;
}

# One word for the shell.
sub shellquote {
    my ($text) = @_;

    return $text if $text =~ m!\A[A-Za-z0-9,._/=:%+@-]+\z!;
    $text =~ s/'/'"'"'/g;
    return "'$text'";
}

# Runs a command (a list) or a pipeline (a list of lists; references to strings are not quoted).
# Parameters: input ('<&N'), output ('>&N'), outfunc (gets each line), errmsg.
sub run_command {
    my ($cmd, %param) = @_;

    if (ref($cmd->[0])) {
        my @parts;
        for my $part (@$cmd) {
            push @parts, join(' ', map { ref($_) ? $$_ : shellquote($_) } @$part);
        }
        $cmd = ['/bin/bash', '-c', 'set -o pipefail && ' . join(' | ', @parts)];
    }

    my $input = $param{input} // '<&STDIN';
    my $output = $param{output} // ($param{outfunc} ? undef : '>&STDOUT');
    my $pid = open3($input, $output, '>&STDERR', @$cmd);
    if (!defined(fileno(STDIN))) { # handed over to the command
        open(STDIN, '<', '/dev/null') or die "open /dev/null failed - $!\n";
    }
    if ($param{outfunc}) {
        while (defined(my $line = <$output>)) {
            chomp $line;
            $param{outfunc}->($line);
        }
    }
    waitpid($pid, 0);
    my $signal = $? & 127;
    my $code = $? >> 8;
    return 0 if !$signal && !$code;
    my $how = $signal ? "got signal $signal" : "exit code $code";
    die +($param{errmsg} // "command '@$cmd' failed") . ": $how\n";
}

1;
