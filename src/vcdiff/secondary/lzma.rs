//! LZMA. There is one xz stream (LZMA2, no integrity check) for each kind of section. It begins in the first window that
//! compresses such a section, is flushed at the end of each section, and is never finished. So a window cannot be
//! decompressed without those before it.

use liblzma::stream::{Action, Check, Filters, LzmaOptions, Status, Stream};

use super::Section;

/// The largest preset of xz has a dictionary of 64 MiB; nothing legitimate needs more than that and the
/// decoder's own state.
const MEMORY_LIMIT: u64 = 66 << 20;

#[derive(Default)]
pub(super) struct Decoder {
    streams: [Option<Stream>; 3],
}

impl Decoder {
    pub(super) fn decode(
        &mut self,
        section: Section,
        mut bytes: &[u8],
        size: usize,
    ) -> Result<Vec<u8>, &'static str> {
        const DAMAGED: &str = "an LZMA section is damaged";
        let stream = match &mut self.streams[section as usize] {
            Some(stream) => stream,
            none => {
                none.insert(Stream::new_stream_decoder(MEMORY_LIMIT, 0).map_err(|_| "no memory for LZMA")?)
            }
        };
        // Memory grows as it is filled, because the size that the section claims is not believed.
        const FIRST: usize = 1 << 20;
        let mut out = Vec::new();
        let mut done = 0;
        // This is repeated when there is nothing left to write, so that the flush marker is consumed too.
        let mut full = false;
        while !full {
            full = done == size;
            if done == out.len() {
                out.resize(size.min((2 * done).max(FIRST)), 0);
            }
            let (read, written) = (stream.total_in(), stream.total_out());
            let status = stream.process(bytes, &mut out[done..], Action::Run).map_err(|_| DAMAGED)?;
            let (read, written) =
                ((stream.total_in() - read) as usize, (stream.total_out() - written) as usize);
            bytes = &bytes[read..];
            done += written;
            let stuck = read == 0 && written == 0 && !full;
            if stuck || matches!(status, Status::StreamEnd) {
                break;
            }
        }
        if done == size && bytes.is_empty() { Ok(out) } else { Err(DAMAGED) }
    }
}

pub(super) struct Encoder {
    filters: Filters,
    streams: [Option<Stream>; 3],
}

impl Encoder {
    pub(super) fn new(level: u32) -> Self {
        let options = LzmaOptions::new_preset(level.min(9)).expect("presets 0 to 9 exist");
        let mut filters = Filters::new();
        filters.lzma2(&options);
        Encoder { filters, streams: [None, None, None] }
    }

    pub(super) fn encode(&mut self, section: Section, bytes: &[u8], out: &mut Vec<u8>) {
        let stream = self.streams[section as usize].get_or_insert_with(|| {
            Stream::new_stream_encoder(&self.filters, Check::None).expect("memory for an LZMA encoder")
        });
        let start = stream.total_in();
        loop {
            out.reserve(1 << 12);
            let rest = &bytes[(stream.total_in() - start) as usize..];
            // In-memory encoding of a valid preset cannot fail other than for lack of memory.
            let status = stream.process_vec(rest, out, Action::SyncFlush).expect("LZMA encoding");
            if matches!(status, Status::StreamEnd) {
                return;
            }
        }
    }
}
