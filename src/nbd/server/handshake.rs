//! The handshake with a client, at whose end it has chosen an export.

use std::io::{self, Read, Write};

use super::answers::*;
use super::{Export, Stream};

/// The largest length of an option's data, and the number of options that a client may send.
const MAX_OPTION: u32 = 64 << 10;
const MAX_OPTIONS: usize = 4096;

/// What a client has chosen.
pub(super) struct Chosen<'a> {
    pub export: &'a Export,
    /// Whether answers are structured.
    pub structured: bool,
    /// Whether the client may ask where holes are.
    pub allocation: bool,
}

/// Talks with a client until it has chosen an export; `None` where it wants none.
///
/// # Errors
/// Fails where the connection does, or the client does not keep to the protocol.
pub(super) fn run<'a>(stream: &mut Stream, exports: &'a [Export]) -> io::Result<Option<Chosen<'a>>> {
    stream.write_all(&GREETING)?;
    let mut flags = [0; 4];
    stream.read_exact(&mut flags)?;
    let flags = u32::from_be_bytes(flags);
    if flags & !CLIENT_FLAGS != 0 {
        return Ok(None);
    }
    // The export for which the context was set.
    let (mut structured, mut allocation) = (false, None::<&Export>);
    let same = |a: Option<&Export>, b: &Export| a.is_some_and(|a| std::ptr::eq(a, b));
    for _ in 0..MAX_OPTIONS {
        let mut head = [0; 16];
        stream.read_exact(&mut head)?;
        let Some((option, len)) = option(&head) else { return Ok(None) };
        if len > MAX_OPTION {
            io::copy(&mut Read::take(&mut *stream, len.into()), &mut io::sink())?;
            stream.write_all(&option_reply(option, REP_TOO_LONG, b""))?;
            continue;
        }
        let mut data = vec![0; len as usize];
        stream.read_exact(&mut data)?;
        let mut reply = |kind: u32, data: &[u8]| stream.write_all(&option_reply(option, kind, data));
        match option {
            OPT_EXPORT_NAME => {
                let Some(export) = find(exports, &data) else { return Ok(None) };
                let mut out = self::export(export.content.size());
                if flags & CLIENT_NO_ZEROES == 0 {
                    out.resize(out.len() + 124, 0);
                }
                stream.write_all(&out)?;
                let allocation = structured && same(allocation, export);
                return Ok(Some(Chosen { export, structured, allocation }));
            }
            OPT_ABORT => {
                let _ = reply(REP_ACK, b"");
                return Ok(None);
            }
            OPT_LIST if !data.is_empty() => reply(REP_INVALID, b"a list needs no data")?,
            OPT_LIST => {
                for export in exports {
                    let name = export.name.as_bytes();
                    reply(REP_SERVER, &[&(name.len() as u32).to_be_bytes(), name].concat())?;
                }
                reply(REP_ACK, b"")?;
            }
            OPT_INFO | OPT_GO => match go(&data).map(|name| find(exports, name)) {
                None => reply(REP_INVALID, b"the request is cut short")?,
                Some(None) => reply(REP_UNKNOWN, b"see the list of exports")?,
                Some(Some(export)) => {
                    for info in infos(export.content.size()) {
                        reply(REP_INFO, &info)?;
                    }
                    reply(REP_ACK, b"")?;
                    if option == OPT_GO {
                        let allocation = structured && same(allocation, export);
                        return Ok(Some(Chosen { export, structured, allocation }));
                    }
                }
            },
            OPT_STRUCTURED_REPLY if data.is_empty() => {
                structured = true;
                reply(REP_ACK, b"")?;
            }
            OPT_STRUCTURED_REPLY => reply(REP_INVALID, b"this option needs no data")?,
            OPT_LIST_META_CONTEXT | OPT_SET_META_CONTEXT if !structured => {
                reply(REP_INVALID, b"contexts need structured replies")?;
            }
            OPT_LIST_META_CONTEXT | OPT_SET_META_CONTEXT => {
                let set = option == OPT_SET_META_CONTEXT;
                if set {
                    allocation = None;
                }
                match contexts(&data).map(|(name, wanted)| (find(exports, name), wanted)) {
                    None => reply(REP_INVALID, b"the request is cut short")?,
                    Some((None, _)) => reply(REP_UNKNOWN, b"see the list of exports")?,
                    Some((Some(export), wanted)) => {
                        let all = !set && (wanted.is_empty() || wanted.contains(&&b"base:"[..]));
                        if all || wanted.contains(&ALLOCATION.as_bytes()) {
                            let id = if set { ALLOCATION_ID } else { 0 };
                            reply(
                                REP_META_CONTEXT,
                                &[&id.to_be_bytes()[..], ALLOCATION.as_bytes()].concat(),
                            )?;
                            allocation = if set { Some(export) } else { allocation };
                        }
                        reply(REP_ACK, b"")?;
                    }
                }
            }
            _ => reply(REP_UNSUPPORTED, b"")?,
        }
    }
    Ok(None)
}

/// Finds an export. Without a name it is the only one there is.
fn find<'a>(exports: &'a [Export], name: &[u8]) -> Option<&'a Export> {
    match (exports, name) {
        ([only], b"") => Some(only),
        _ => exports.iter().find(|export| export.name.as_bytes() == name),
    }
}

/// Reads the name of the export that is chosen; which information is wanted does not matter.
fn go(mut data: &[u8]) -> Option<&[u8]> {
    let name = text(&mut data)?;
    let (count, wanted) = data.split_at_checked(2)?;
    (wanted.len() == 2 * usize::from(u16::from_be_bytes([count[0], count[1]]))).then_some(name)
}

/// Reads the name of an export and the contexts that are wanted of it.
fn contexts(mut data: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let name = text(&mut data)?;
    let count = number(&mut data)?;
    let mut wanted = Vec::new();
    for _ in 0..count {
        wanted.push(text(&mut data)?);
    }
    data.is_empty().then_some((name, wanted))
}
