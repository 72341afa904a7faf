#!/usr/bin/perl

# The script of the web interface in an interpreter without a browser, with a small stand-in for Ext
# JS: tests/js. It shares the vectors of names and sums with Rust and Perl.
# Chromium with that stand-in was tried in place of the interpreter: it runs the same cases with the same results, since
# nothing is drawn without Ext JS, and takes 284 MB of packages more. What a browser finds beyond
# them needs Proxmox' own scripts: ui.t, tests/host/web.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use JSON::PP;

use lib dirname(__FILE__) . '/lib';
use HostTree qw(run read_file write_file);

if (!run('sh', '-c', 'command -v duk')->{ok}) {
    print "1..0 # SKIP no program duk here (Debian's package duktape)\n";
    exit;
}

my $tests = abs_path(dirname(__FILE__)) . '/..';
my %data = map { $_ => decode_json(read_file("$tests/data/$_.json")) } qw(names chains);
my $json = JSON::PP->new->ascii->canonical->allow_nonref;
my $text = sub {
    my ($path) = @_;
    my $content = read_file($path);
    utf8::decode($content) or die "$path is no UTF-8\n";
    return $json->encode($content);
};
my $program = join(
    "\n",
    'var data = ' . $json->encode(\%data) . ';',
    'var standIn = ' . $text->("$tests/js/ext.js") . ';',
    'var source = ' . $text->("$tests/../patches/payload/js/pve-diff-backup.js") . ';',
    '(0, eval)(standIn);',
    '(0, eval)(' . $text->("$tests/js/cases.js") . ');',
);
my $dir = tempdir(CLEANUP => 1);
write_file("$dir/program.js", $program);
my $result = run('duk', "$dir/program.js");
print $result->{out};
exit($result->{code});
