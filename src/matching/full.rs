//! Compressing a full backup, and writing its map beside it.

use std::cell::RefCell;
use std::io::{self, Read, Write};

use super::Error;
use super::chunker::{Layout, Segmenter};
use super::fingerprint::{ChainedChecksum, Secret, checksum};
use super::map::{END, End, HEADER, MAP, SLOTS, SegmentMap, SlotsBuilder, encode_header, is_plain};
use super::pipeline::ordered;
use crate::container::seekable::Writer;
use crate::container::{self, Compression, Encoder};
use crate::vma::Uuid;

/// The most bytes of content in a zstd frame.
///
/// To get at any byte of a frame, it has to be decompressed from its front. The changes of a VM lie in many of its frames,
/// so smaller frames make differentials and restores cheaper. But they compress worse, because each begins without anything to
/// refer to. The next level of zstd would make up for a third of that, and takes a quarter longer.
const FRAME: usize = 2 << 20;

/// Compresses `input` into an archive that stock programs read. With zstd it carries a map. Other compressions have no place
/// for one.
///
/// # Errors
/// Fails where `input` cannot be read or `out` cannot be written. The output lacks its end then, which every reader
/// notices.
pub fn compress(
    mut input: impl Read + Send + 'static,
    out: impl Write + Send + 'static,
    how: Compression,
    threads: usize,
) -> Result<(), Error> {
    if let Compression::Zstd(level) = how {
        return compress_with_map(input, out, level, threads);
    }
    let mut encoder = container::encoder(Box::new(out), how, threads).map_err(output)?;
    let mut buf = vec![0; 1 << 20];
    loop {
        let n = container::read_full(&mut input, &mut buf)
            .map_err(|source| Error::Io { what: "cannot read the stream".into(), source })?;
        if n == 0 {
            break;
        }
        encoder.write_all(&buf[..n]).map_err(output)?;
    }
    Encoder::finish(encoder).map_err(output)
}

fn output(source: io::Error) -> Error {
    Error::Io { what: "cannot write the backup".into(), source }
}

/// A segment that was compressed.
struct Compressed {
    /// Its zstd frames, each with its bytes of content.
    frames: Vec<(Vec<u8>, usize)>,
    /// Its stored [`SegmentMap`].
    map: Vec<u8>,
    /// Its length in bytes.
    len: usize,
    /// The checksum of its content.
    checksum: u128,
    /// Its layout.
    layout: Layout,
    /// The UUID of its VMA extents; an error where they hold what slots cannot tell.
    uuid: Result<Option<Uuid>, ()>,
}

fn compress_with_map(
    input: impl Read + Send + 'static,
    out: impl Write,
    level: i32,
    threads: usize,
) -> Result<(), Error> {
    let seed = Secret::draw().map_err(|source| Error::Io {
        what: "cannot read random numbers from /dev/urandom".into(),
        source,
    })?;
    let secret = Secret::new(&seed);
    let mut segments = Segmenter::new(input);
    let buffers = segments.buffers();
    let mut out = Writer::new(out);
    let mut end = End { content: 0, checksum: [0; 16], segments: 0, slots: None };
    let mut whole = ChainedChecksum::default();
    let (mut slots, mut slot_frames, mut uuid) = (Some(SlotsBuilder::default()), Vec::new(), None);

    ordered(
        threads,
        move || segments.next_segment(),
        move |segment| {
            let len = segment.data.len();
            let frames = segment
                .data
                .chunks(len.div_ceil(len.div_ceil(FRAME)))
                .map(|part| zstd_frame(part, level).map(|z| (z, part.len())))
                .collect::<io::Result<_>>()
                .map_err(|source| Error::Io { what: "zstd failed".into(), source })?;
            let map = SegmentMap::new(&segment, &secret).encode();
            let checksum = checksum(&segment.data);
            let mut uuid = None;
            let uuid = if is_plain(&segment, &mut uuid) { Ok(uuid) } else { Err(()) };
            buffers.give(segment.data);
            Ok(Compressed { frames, map, len, checksum, layout: segment.layout, uuid })
        },
        |done| {
            for (n, (frame, content)) in done.frames.iter().enumerate() {
                out.frame(frame, *content).map_err(output)?;
                if n == 0 && end.segments == 0 {
                    let is_vma = matches!(done.layout, Layout::Vma(_));
                    out.side(HEADER, &encode_header(&seed, is_vma)).map_err(output)?;
                    end.slots = is_vma.then_some(0);
                }
            }
            let own = done.uuid.ok().filter(|own| own.is_none() || *own == *uuid.get_or_insert(*own));
            match (&done.layout, own, &mut slots) {
                (Layout::Vma(spans), Some(_), Some(slots)) => slot_frames.extend(slots.push(spans)),
                _ => slots = None,
            }
            out.side(MAP, &done.map).map_err(output)?;
            whole.push(done.checksum);
            end.segments += 1;
            end.content += done.len as u64;
            Ok(())
        },
    )?;

    if end.segments == 0 {
        // An empty stream becomes an empty frame, as zstd makes it. There is nothing to map.
        let empty = zstd_frame(&[], level).map_err(output)?;
        let mut out = out.into_inner();
        return out.write_all(&empty).and_then(|()| out.flush()).map_err(output);
    }
    end.checksum = whole.digest();
    if let (Some(slots), Some(number)) = (slots, &mut end.slots) {
        slot_frames.extend(slots.finish());
        *number = slot_frames.len() as u32;
        slot_frames.iter().try_for_each(|frame| out.side(SLOTS, frame)).map_err(output)?;
    }
    out.side(END, &end.encode()).and_then(|()| out.finish()).map_err(output)?;
    Ok(())
}

/// Compresses `content` into a frame with a checksum and the size of its content. Each thread keeps its compressor.
fn zstd_frame(content: &[u8], level: i32) -> io::Result<Vec<u8>> {
    thread_local! {
        static ZSTD: RefCell<Option<(i32, zstd::bulk::Compressor<'static>)>> = const { RefCell::new(None) };
    }
    ZSTD.with_borrow_mut(|slot| {
        let z = match slot {
            Some((had, z)) if *had == level => z,
            _ => {
                let mut z = zstd::bulk::Compressor::new(level)?;
                z.include_checksum(true)?;
                z.include_contentsize(true)?;
                &mut slot.insert((level, z)).1
            }
        };
        z.compress(content)
    })
}
