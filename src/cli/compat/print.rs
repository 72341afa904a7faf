//! Runs `printhdr`, `printhdrs` and `printdelta`, whose output is worded as xdelta3's.

use std::io::{self, BufWriter, Read, Write};

use anyhow::Context;

use super::args::Options;
use super::files::{self, Output};
use crate::container::Kind;
use crate::text::escaped;
use crate::vcdiff::codetable::{Kind as Inst, TABLE};
use crate::vcdiff::secondary::Section;
use crate::vcdiff::{self, AppHeader, EndRecord, Header, Item, Limits, Reader, Secondary, Window};

/// How much of a delta is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    FirstHeader,
    Headers,
    Everything,
}

/// Runs one of the three commands.
pub fn run(options: &Options, extent: Extent) -> anyhow::Result<()> {
    let (_, input) = files::input(options)?;
    let output = Output::open(options, files::named_output(options))?;
    let mut out = BufWriter::new(output.writer()?);
    print(input, &mut out, extent, options)
        .with_context(|| format!("cannot print {}", files::input_name(options)))?;
    out.flush()?;
    output.keep();
    Ok(())
}

/// Prints a delta.
fn print(input: impl Read, out: &mut impl Write, extent: Extent, options: &Options) -> anyhow::Result<()> {
    let mut reader = Reader::new(input, Limits::default())?;
    let mut first = true;
    while let Some(item) = reader.next_item()? {
        if first {
            file_header(out, reader.header(), options.stdout)?;
            first = false;
        } else {
            writeln!(out)?;
        }
        match item {
            Item::Window(window) => {
                window_header(out, &window, extent)?;
                if extent == Extent::Everything {
                    instructions(out, &window, options.verbose > 0)?;
                }
            }
            Item::End(end) => end_record(out, &end)?,
        }
        if extent == Extent::FirstHeader {
            break;
        }
    }
    Ok(())
}

/// Prints the file header. `stdout` tells that -c was given, for which xdelta3 leaves out the output's name.
fn file_header(out: &mut impl Write, header: &Header, stdout: bool) -> io::Result<()> {
    writeln!(out, "VCDIFF version:               0")?;
    writeln!(out, "VCDIFF header size:           {}", header.len)?;
    write!(out, "VCDIFF header indicator:      ")?;
    if header.secondary.is_some() {
        write!(out, "VCD_SECONDARY ")?;
    }
    match header.app_header {
        Some(_) => write!(out, "VCD_APPHEADER ")?,
        None if header.secondary.is_none() => write!(out, "none")?,
        None => {}
    }
    writeln!(out)?;
    let secondary = match header.secondary {
        None => "none",
        Some(Secondary::Djw) => "Static Huffman",
        Some(Secondary::Lzma) => "lzma",
        Some(Secondary::Fgk) => "FGK Adaptive Huffman",
    };
    writeln!(out, "VCDIFF secondary compressor:  {secondary}")?;

    let Some(bytes) = header.app_header.as_deref().filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
    // xdelta3 does not see what follows a NUL. What could command a terminal is escaped.
    let mut parts = bytes.splitn(2, |&b| b == 0).map(escaped);
    writeln!(out, "VCDIFF application header:    {}", parts.next().unwrap_or_default())?;
    if let Some(hidden) = parts.next() {
        writeln!(out, "VCDIFF further header:        {hidden}")?;
    }
    // xdelta3 ignores headers with one or three parts.
    let parts = bytes.split(|&b| b == 0).next().unwrap_or_default().split(|&b| b == b'/').count();
    if !(parts == 2 || parts >= 4) {
        return Ok(());
    }
    let app = AppHeader::parse(bytes);
    let files = [("output", &app.target_name), ("source", &app.base_name)];
    let known = if parts == 2 { 1 } else { 2 };
    for ((role, name), letter) in files.into_iter().zip(&app.compressors).take(known) {
        if name != b"-" && !(stdout && role == "output") {
            writeln!(out, "XDELTA filename ({role}):     {}", escaped(name))?;
        }
        if let Some((kind, _)) = compressor(letter) {
            writeln!(out, "XDELTA ext comp ({role}):     {kind}")?;
        }
    }
    Ok(())
}

/// The letters that name compressors in application headers. The last two are those of ayufan's fork.
const COMPRESSORS: [(&[u8], Kind); 6] = [
    (b"B", Kind::Bzip2),
    (b"G", Kind::Gzip),
    (b"Z", Kind::Lzw),
    (b"Y", Kind::Xz),
    (b"S", Kind::Zstd),
    (b"L", Kind::Lzop),
];

/// Reads the letter of a compressor, and the level that xdelta3 3.2 may append to it.
pub fn compressor(field: &[u8]) -> Option<(Kind, Option<u32>)> {
    let (letter, level) = match field.split_last() {
        Some((digit @ b'1'..=b'9', letter)) => (letter, Some(u32::from(digit - b'0'))),
        _ => (field, None),
    };
    COMPRESSORS.iter().find(|(l, _)| *l == letter).map(|(_, kind)| (*kind, level))
}

/// Returns the letter of a compressor. It is empty where there is none.
pub fn letter(kind: Kind) -> &'static [u8] {
    COMPRESSORS.iter().find(|(_, k)| *k == kind).map_or(b"", |(letter, _)| letter)
}

fn window_header(out: &mut impl Write, window: &Window, extent: Extent) -> io::Result<()> {
    writeln!(out, "VCDIFF window number:         {}", window.index)?;
    write!(out, "VCDIFF window indicator:      ")?;
    if window.source.is_some() {
        write!(out, "VCD_SOURCE ")?;
    }
    match window.adler32 {
        Some(adler32) => {
            writeln!(out, "VCD_ADLER32 ")?;
            writeln!(out, "VCDIFF adler32 checksum:      {adler32:08X}")?;
        }
        None => writeln!(out, "{}", if window.source.is_none() { "none" } else { "" })?,
    }
    let stored = &window.stored;
    if stored.compressed != 0 {
        write!(out, "VCDIFF delta indicator:       ")?;
        for (section, name) in
            Section::ALL.into_iter().zip(["VCD_DATACOMP ", "VCD_INSTCOMP ", "VCD_ADDRCOMP "])
        {
            write!(out, "{}", if section.is_in(stored.compressed) { name } else { "" })?;
        }
        writeln!(out)?;
    }
    if window.target_pos != 0 {
        writeln!(out, "VCDIFF window at offset:      {}", window.target_pos)?;
    }
    if let Some(segment) = window.source {
        writeln!(out, "VCDIFF copy window length:    {}", segment.len)?;
        writeln!(out, "VCDIFF copy window offset:    {}", segment.pos)?;
    }
    writeln!(out, "VCDIFF delta encoding length: {}", stored.len)?;
    writeln!(out, "VCDIFF target window length:  {}", window.target_len)?;
    // As in xdelta3, the lengths are those of the decompressed sections where the instructions are listed.
    let decompressed = [&window.data, &window.inst, &window.addr].map(|section| section.len() as u64);
    let sizes = if extent == Extent::Everything { decompressed } else { stored.sections };
    for (name, size) in ["data", "inst", "addr"].into_iter().zip(sizes) {
        writeln!(out, "VCDIFF {name} section length:   {size}")?;
    }
    Ok(())
}

fn end_record(out: &mut impl Write, end: &EndRecord) -> io::Result<()> {
    let hash = crate::text::hex(&end.hash);
    let of = if end.base.is_some() { " of the delta" } else { "" };
    writeln!(out, "VCDIFF end record:            {} bytes, XXH3-128{of} {hash}", end.total_len)
}

fn instructions(out: &mut impl Write, window: &Window, verbose: bool) -> anyhow::Result<()> {
    writeln!(out, "  Offset Code Type1 Size1  @Addr1 + Type2 Size2 @Addr2")?;
    let mut at = window.target_pos;
    let mut instructions = window.instructions();
    let mut left = instructions.remaining();
    while let Some((code, first, second)) = instructions.next_opcode()? {
        let kinds = TABLE[usize::from(code)].map(|half| half.kind);
        write!(out, "  {at:06} {code:03}  {} {:6}", name(kinds[0]), first.len())?;
        match address(window, &first) {
            Some(address) => write!(out, " {address}")?,
            None => write!(out, "        ")?,
        }
        let mut size = first.len();
        if let Some(second) = second {
            write!(out, "  {} {:6}", name(kinds[1]), second.len())?;
            if let Some(address) = address(window, &second) {
                write!(out, " {address}")?;
            }
            size += second.len();
        }
        writeln!(out)?;
        let used = left - instructions.remaining();
        left = instructions.remaining();
        if verbose && used >= size && kinds.iter().any(|kind| matches!(kind, Inst::Copy(_))) {
            writeln!(out, "  {at:06} (inefficiency) {size} encoded as {used} bytes")?;
        }
        at += size as u64;
    }
    Ok(())
}

fn name(kind: Inst) -> String {
    match kind {
        Inst::Noop => "NOOP ".into(),
        Inst::Add => "ADD  ".into(),
        Inst::Run => "RUN  ".into(),
        Inst::Copy(mode) => format!("CPY_{mode}"),
    }
}

fn address(window: &Window, inst: &vcdiff::Inst) -> Option<String> {
    let vcdiff::Inst::Copy { addr, .. } = *inst else { return None };
    let (pos, len) = window.source.map_or((0, 0), |s| (s.pos, s.len));
    Some(match addr.checked_sub(len) {
        Some(own) => format!("T@{own:<6}"),
        None => format!("S@{:<6}", pos + addr),
    })
}
