//! The server's messages as bytes. All numbers are big endian. Source: `doc/proto.md` of the NBD project.

/// The server's greeting: two magic numbers, and the flags "fixed newstyle" and "no zeroes".
pub const GREETING: [u8; 18] = *b"NBDMAGICIHAVEOPT\0\x03";
/// The magic number before each option of a client.
const OPTION: [u8; 8] = *b"IHAVEOPT";
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const SIMPLE: u32 = 0x6744_6698;
const STRUCTURED: u32 = 0x668e_33ef;

/// The flag of a client that wants no padding behind the answer to [`OPT_EXPORT_NAME`].
pub const CLIENT_NO_ZEROES: u32 = 2;
/// The client's flags that exist.
pub const CLIENT_FLAGS: u32 = 3;

/// Options of the handshake.
pub const OPT_EXPORT_NAME: u32 = 1;
/// See [`OPT_EXPORT_NAME`].
pub const OPT_ABORT: u32 = 2;
/// See [`OPT_EXPORT_NAME`].
pub const OPT_LIST: u32 = 3;
/// See [`OPT_EXPORT_NAME`].
pub const OPT_INFO: u32 = 6;
/// See [`OPT_EXPORT_NAME`].
pub const OPT_GO: u32 = 7;
/// See [`OPT_EXPORT_NAME`].
pub const OPT_STRUCTURED_REPLY: u32 = 8;
/// See [`OPT_EXPORT_NAME`].
pub const OPT_LIST_META_CONTEXT: u32 = 9;
/// See [`OPT_EXPORT_NAME`].
pub const OPT_SET_META_CONTEXT: u32 = 10;

/// Answers to options.
pub const REP_ACK: u32 = 1;
/// See [`REP_ACK`].
pub const REP_SERVER: u32 = 2;
/// See [`REP_ACK`].
pub const REP_INFO: u32 = 3;
/// See [`REP_ACK`].
pub const REP_META_CONTEXT: u32 = 4;
/// Refusals of options.
pub const REP_UNSUPPORTED: u32 = 1 << 31 | 1;
/// See [`REP_UNSUPPORTED`].
pub const REP_INVALID: u32 = 1 << 31 | 3;
/// See [`REP_UNSUPPORTED`].
pub const REP_UNKNOWN: u32 = 1 << 31 | 6;
/// See [`REP_UNSUPPORTED`].
pub const REP_TOO_LONG: u32 = 1 << 31 | 9;

/// What an export is: its flags are valid, it is read-only, and several connections see the same.
const EXPORT_FLAGS: u16 = 1 | 1 << 1 | 1 << 8;
/// The most bytes of a request.
pub const MAX_REQUEST: u32 = 32 << 20;

/// Commands.
pub const CMD_READ: u16 = 0;
/// See [`CMD_READ`].
pub const CMD_WRITE: u16 = 1;
/// See [`CMD_READ`].
pub const CMD_DISCONNECT: u16 = 2;
/// See [`CMD_READ`].
pub const CMD_FLUSH: u16 = 3;
/// See [`CMD_READ`].
pub const CMD_TRIM: u16 = 4;
/// See [`CMD_READ`].
pub const CMD_WRITE_ZEROES: u16 = 6;
/// See [`CMD_READ`].
pub const CMD_BLOCK_STATUS: u16 = 7;
/// The flag of a request for the status of the first run alone.
pub const REQ_ONE: u16 = 1 << 3;

/// Numbers of errors.
pub const EPERM: u32 = 1;
/// See [`EPERM`].
pub const EIO: u32 = 5;
/// See [`EPERM`].
pub const EINVAL: u32 = 22;

/// The name of the context that tells holes, and its number.
pub const ALLOCATION: &str = "base:allocation";
/// See [`ALLOCATION`].
pub const ALLOCATION_ID: u32 = 1;
/// The flags of a run that is a hole, and reads as zeros.
pub const HOLE: u32 = 3;

/// The kinds of parts of an answer.
const CHUNK_NONE: u16 = 0;
const CHUNK_DATA: u16 = 1;
const CHUNK_HOLE: u16 = 2;
const CHUNK_STATUS: u16 = 5;
const CHUNK_ERROR: u16 = 1 << 15 | 1;
const CHUNK_ERROR_AT: u16 = 1 << 15 | 2;

fn be32(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn be64(b: &[u8], at: usize) -> u64 {
    u64::from(be32(b, at)) << 32 | u64::from(be32(b, at + 4))
}

/// Reads the head of an option: its number, and the length of its data; `None` where the bytes are no such head.
pub fn option(head: &[u8; 16]) -> Option<(u32, u32)> {
    (head[..8] == OPTION).then(|| (be32(head, 8), be32(head, 12)))
}

/// Writes an answer to an option.
pub fn option_reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut out = OPTION_REPLY.to_be_bytes().to_vec();
    [option, kind, data.len() as u32].iter().for_each(|n| out.extend(n.to_be_bytes()));
    out.extend(data);
    out
}

/// Takes a text with its length from the front of an option's data.
pub fn text<'a>(data: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = data.split_at_checked(4)?;
    let (text, rest) = rest.split_at_checked(be32(len, 0) as usize)?;
    *data = rest;
    Some(text)
}

/// Takes a number from the front of an option's data.
pub fn number(data: &mut &[u8]) -> Option<u32> {
    let (number, rest) = data.split_at_checked(4)?;
    *data = rest;
    Some(be32(number, 0))
}

/// Writes the size and the flags of an export, as the answers to its choice hold it.
pub fn export(size: u64) -> Vec<u8> {
    [&size.to_be_bytes()[..], &EXPORT_FLAGS.to_be_bytes()].concat()
}

/// Writes the pieces of information on an export: size and flags, and the sizes of requests.
pub fn infos(size: u64) -> [Vec<u8>; 2] {
    let sizes = [1u32, 64 << 10, MAX_REQUEST].iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<_>>();
    [[&[0, 0][..], &export(size)].concat(), [&[0, 3][..], &sizes].concat()]
}

/// A request of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its flags.
    pub flags: u16,
    /// The command.
    pub command: u16,
    /// The number that the answer repeats.
    pub cookie: u64,
    /// The first byte that it is about.
    pub offset: u64,
    /// How many bytes it is about.
    pub len: u32,
}

impl Request {
    /// Reads a request; `None` where the bytes are none.
    pub fn parse(bytes: &[u8; 28]) -> Option<Request> {
        let be16 = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        (be32(bytes, 0) == REQUEST).then(|| Request {
            flags: be16(4),
            command: be16(6),
            cookie: be64(bytes, 8),
            offset: be64(bytes, 16),
            len: be32(bytes, 24),
        })
    }
}

/// Writes the head of a simple answer; the data of a read follow.
pub fn simple(cookie: u64, error: u32) -> Vec<u8> {
    [&SIMPLE.to_be_bytes()[..], &error.to_be_bytes(), &cookie.to_be_bytes()].concat()
}

/// Writes the head of a part of a structured answer.
fn chunk(done: bool, kind: u16, cookie: u64, len: usize) -> Vec<u8> {
    let mut out = STRUCTURED.to_be_bytes().to_vec();
    out.extend(u16::from(done).to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(cookie.to_be_bytes());
    out.extend((len as u32).to_be_bytes());
    out
}

/// Writes the part that ends an answer without data.
pub fn done(cookie: u64) -> Vec<u8> {
    chunk(true, CHUNK_NONE, cookie, 0)
}

/// Writes the head of a part with data; the data follow.
pub fn data(done: bool, cookie: u64, offset: u64, len: usize) -> Vec<u8> {
    [&chunk(done, CHUNK_DATA, cookie, 8 + len)[..], &offset.to_be_bytes()].concat()
}

/// Writes a part that says that there are zeros.
pub fn hole(done: bool, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    [&chunk(done, CHUNK_HOLE, cookie, 12)[..], &offset.to_be_bytes(), &len.to_be_bytes()].concat()
}

/// Writes the status of runs: the length and the flags of each.
pub fn status(cookie: u64, runs: &[(u32, u32)]) -> Vec<u8> {
    let mut out = chunk(true, CHUNK_STATUS, cookie, 4 + 8 * runs.len());
    out.extend(ALLOCATION_ID.to_be_bytes());
    runs.iter().for_each(|(len, flags)| out.extend([len.to_be_bytes(), flags.to_be_bytes()].concat()));
    out
}

/// Writes an error with a text, and the place where it happened, if there is one. It ends the answer.
pub fn error(cookie: u64, number: u32, text: &str, at: Option<u64>) -> Vec<u8> {
    let mut end = text.len().min(1024);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = &text.as_bytes()[..end];
    let (kind, more) = at.map_or((CHUNK_ERROR, 0), |_| (CHUNK_ERROR_AT, 8));
    let mut out = chunk(true, kind, cookie, 6 + text.len() + more);
    out.extend(number.to_be_bytes());
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text);
    out.extend(at.iter().flat_map(|at| at.to_be_bytes()));
    out
}

#[cfg(test)]
mod tests {
    use super::super::super::wire::{self, CHUNK_LEN, Chunk, OptionReply, Payload};
    use super::*;

    /// What the client's side makes of a part.
    fn read(bytes: &[u8]) -> (Chunk, Vec<u8>) {
        let (head, data) = bytes.split_first_chunk::<CHUNK_LEN>().unwrap();
        (Chunk::parse(head).unwrap(), data.to_vec())
    }

    #[test]
    fn the_client_understands_the_server() {
        assert!(wire::greeting(&GREETING).is_ok());
        let reply = option_reply(OPT_GO, REP_UNKNOWN, b"no");
        let head = OptionReply::parse(reply[..20].try_into().unwrap(), OPT_GO).unwrap();
        assert_eq!(head.refusal(&reply[20..]).unwrap(), "there is no such export (no)");
        assert_eq!(wire::export_size(&infos(4096)[0]).unwrap(), Some(4096));
        assert_eq!(wire::export_size(&infos(4096)[1]).unwrap(), None);

        let asked = wire::request(CMD_BLOCK_STATUS, 5, 1 << 40, 9);
        let request = Request { flags: 0, command: 7, cookie: 5, offset: 1 << 40, len: 9 };
        assert_eq!(Request::parse(&asked), Some(request));
        assert_eq!(Request::parse(&[0; 28]), None);

        for (bytes, ends, expected) in [
            (done(3), true, Payload::None),
            ([data(false, 3, 7, 2), b"ab".to_vec()].concat(), false, Payload::Data(7, b"ab")),
            (hole(true, 3, 7, 512), true, Payload::Hole(7, 512)),
            (status(3, &[(4096, 0), (512, HOLE)]), true, Payload::Status(1, vec![(4096, 0), (512, 3)])),
            (error(3, EIO, "damaged", None), true, Payload::Error(5, "damaged".into())),
            (error(3, EIO, "damaged", Some(9)), true, Payload::Error(5, "damaged".into())),
        ] {
            let (chunk, data) = read(&bytes);
            assert_eq!((chunk.done, chunk.cookie, chunk.len as usize), (ends, 3, data.len()));
            assert_eq!(chunk.payload(&data).unwrap(), expected);
        }
    }

    #[test]
    fn options_are_read() {
        assert_eq!(option(wire::option(OPT_GO, b"ab")[..16].try_into().unwrap()), Some((7, 2)));
        assert_eq!(option(&[0; 16]), None);
        let context = wire::meta_context("e", "base:allocation");
        let mut data = &context[..];
        assert_eq!(text(&mut data), Some(&b"e"[..]));
        assert_eq!((number(&mut data), text(&mut data)), (Some(1), Some(&b"base:allocation"[..])));
        assert_eq!((number(&mut data), text(&mut data)), (None, None));
        assert_eq!(text(&mut &[0, 0, 0, 9, 1][..]), None);
    }
}
