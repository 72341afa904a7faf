#!/usr/bin/perl

# Prints debian/copyright: our own part, then every crate that is linked into the programs, as cargo names them.
# Usage: debian/copyright.pl >debian/copyright; run it after a change of Cargo.lock.

use strict;
use warnings;
use utf8;
use open qw(:std :encoding(UTF-8));

use File::Basename qw(dirname);
use JSON::PP;

chdir(dirname(__FILE__) . '/..') or die "cannot find the sources - $!\n";

my @command = qw(cargo metadata --format-version 1 --locked --filter-platform x86_64-unknown-linux-gnu);
open(my $pipe, '-|', @command) or die "cannot run cargo - $!\n";
my $metadata = JSON::PP->new->decode(do { local $/ = undef; <$pipe> });
close($pipe) or die "cargo metadata failed\n";

my %package = map { $_->{id} => $_ } @{ $metadata->{packages} };
my %node = map { $_->{id} => $_ } @{ $metadata->{resolve}->{nodes} };
my $root = $metadata->{resolve}->{root};

print header();
my (%linked, %licenses);
collect($root);
delete $linked{$root};
for my $crate (sort { $a->{name} cmp $b->{name} || $a->{version} cmp $b->{version} } map { $package{$_} } keys %linked) {
    my $license = $crate->{license} // die "crate '$crate->{name}' names no license\n";
    # DEP-5 knows "or" and "and"; SPDX groups with brackets, older crates write "/".
    $license =~ s!\s*/\s*! or !g;
    $license =~ s/\bOR\b/or/g;
    $license =~ s/\bAND\b/and/g;
    $license =~ s/[()]//g;
    $license =~ s/ WITH LLVM-exception/-with-LLVM-exception/g;
    $license =~ s/\bMIT\b(?!-)/Expat/g;
    $licenses{$_} = 1 for split(/ (?:or|and) /, $license);
    my $holders = join("\n           ", holders($crate));
    print "Files: crates/$crate->{name}-$crate->{version}/*\nCopyright: $holders\nLicense: $license\n\n";
}

print license_texts({ map { $_ => 1 } keys %licenses, qw(Expat Apache-2.0 LGPL-2.1+ BSD-3-Clause 0BSD) });

# All crates that end up in a program: not those that only build, and not macros.
sub collect {
    my ($id) = @_;

    return if $linked{$id}++;
    for my $dep (@{ $node{$id}->{deps} }) {
        next if !grep { !defined($_->{kind}) } @{ $dep->{dep_kinds} };
        next if grep { $_ eq 'proc-macro' } map { @{ $_->{kind} } } @{ $package{ $dep->{pkg} }->{targets} };
        collect($dep->{pkg});
    }
    return;
}

# From the crate's own notices, else its authors.
sub holders {
    my ($crate) = @_;

    my %seen;
    for my $file (sort glob(dirname($crate->{manifest_path}) . '/{LICEN,COPY,NOTICE}*')) {
        open(my $fh, '<', $file) or next;
        while (my $line = <$fh>) {
            next if $line !~ /^\s*Copyright\s+(?:\(c\)\s*|©\s*)?(\S.*\d{4}.*|\d{4}.*|the .*)$/i;
            my $holder = $1;
            $holder =~ s/\s+$//;
            $seen{$holder} = 1 if $holder !~ /\[yyyy\]|\{yyyy\}|<year>/;
        }
        close($fh) or die "cannot read '$file' - $!\n";
    }
    my @holders = sort keys %seen;
    @holders = @{ $crate->{authors} } if !@holders;
    @holders = ("the authors of $crate->{name}, $crate->{repository}") if !@holders;
    return @holders;
}

sub header {
    return <<'TEXT';
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: pve-diff-backup
Comment: Written by debian/copyright.pl. The paragraphs about crates/ and lib/ are not about files of this source
 but about what is linked into the programs: the crates of Cargo.lock and the libraries that they or the
 compiler bring.

Files: *
Copyright: 2026 the pve-diff-backup authors
License: Expat

Files: lib/rust/*
Copyright: The Rust Project Developers
License: Expat or Apache-2.0
Comment: Rust's standard library.

Files: lib/glibc/*
Copyright: 1991-2022 Free Software Foundation, Inc.
License: LGPL-2.1+
Comment: GNU libc is linked statically. Its source is the Debian package that the field Built-Using names; the
 source of everything else is here and in cargo's registry, so that the programs can be linked anew with another.

Files: lib/zstd/*
Copyright: Meta Platforms, Inc. and affiliates
License: BSD-3-Clause
Comment: In the crate zstd-sys.

Files: lib/xz/*
Copyright: The authors of XZ Utils
License: 0BSD
Comment: liblzma, in the crate liblzma-sys.

TEXT
}

sub license_texts {
    my ($names) = @_;

    my $text = '';
    open(my $fh, '<', 'debian/copyright.licenses') or die "cannot read the texts - $!\n";
    local $/ = '';
    while (my $paragraph = <$fh>) {
        my ($name) = $paragraph =~ /\ALicense: (\S+)$/m or die "no license: $paragraph";
        $text .= $paragraph if delete $names->{$name};
    }
    close($fh) or die "cannot read the texts - $!\n";
    die 'no text for: ', join(', ', sort keys %$names), "\n" if %$names;
    return $text =~ s/\n+\z/\n/r;
}
