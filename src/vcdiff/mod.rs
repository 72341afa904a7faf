//! VCDIFF (RFC 3284) in the dialect of xdelta3: streaming, bounded memory, every input hostile.
//!
//! A delta is a header and a sequence of windows. Each window rebuilds one piece of the target from
//! literal bytes, runs, copies from a *segment* of the source and copies from itself, so a window
//! needs no other window (unless LZMA secondary compression chains their sections) and windows can
//! be applied as they arrive, or on several threads.
//!
//! Reading (`Reader` never looks at the source; `Window::apply` asks only for the bytes it copies):
//! ```text
//! let mut reader = Reader::new(input, Limits::default())?;       // parses the file header
//! reader.header();                                               // -> &Header { secondary, app_header: Option<Vec<u8>> }
//! while let Some(item) = reader.next_item()? {                   // Err(MissingEnd) when cut at a window boundary
//!     match item {
//!         Item::Window(window) => window.apply(&mut |pos, buf| source.read_exact_at(buf, pos), &mut out)?,
//!         Item::End(end) => end.check(total_len, hash)?,         // EndRecord { total_len: u64, hash: [u8; 16] }
//!     }
//! }
//! window.index / window.target_pos / window.target_len / window.source: Option<Segment> / window.adler32: Option<u32>
//! window.instructions() -> impl Iterator<Item = Result<Inst, Error>>   // Add{len} Run{len} Copy{len, addr}
//! window.apply(..) resizes `out` to the window's target length and fills it; `window.adler32 = None` skips the check
//! ```
//!
//! Writing (copies are given in absolute positions; the segment is found when the window is finished):
//! ```text
//! out.extend(write_header(Some(&app.encode()), None));
//! let mut builder = WindowBuilder::new();                        // reused for all windows
//! builder.add(&bytes); builder.run(byte, len); builder.copy_source(pos, len); builder.copy_target(pos_in_window, len);
//! builder.target_len();                                          // bytes described so far
//! if builder.span_with(pos, len) > MAX_SEGMENT { /* finish this window before adding the copy */ }
//! builder.finish(Some(adler32), &mut out);                       // appends one encoded window, resets the builder
//! out.extend(EndRecord { total_len, hash }.encode());            // after the last window
//! ```
//! `AppHeader { base_name: Vec<u8>, base_len: Option<u64>, base_identity: Option<[u8; 16]>, end_record: bool, .. }`
//! is parsed from and encoded into the application header (`AppHeader::parse(&[u8])`, `.encode()`).
