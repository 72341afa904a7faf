//! The messages of the protocol as bytes. All numbers are big endian.

use super::Error;

/// The length in bytes of the server's greeting: two magic numbers and its flags.
pub const GREETING_LEN: usize = 18;
const GREETING: [u8; 16] = *b"NBDMAGICIHAVEOPT";
const FIXED_NEWSTYLE: u16 = 1;
const NO_ZEROES: u16 = 2;

const OPTION: [u8; 8] = *b"IHAVEOPT";
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
/// The length in bytes of the head of an answer to an option, before its data.
pub const OPTION_REPLY_LEN: usize = 20;

/// Options of the handshake.
pub const OPT_GO: u32 = 7;
/// See [`OPT_GO`].
pub const OPT_STRUCTURED_REPLY: u32 = 8;
/// See [`OPT_GO`].
pub const OPT_SET_META_CONTEXT: u32 = 10;

/// Answers to options.
pub const REP_ACK: u32 = 1;
/// See [`REP_ACK`].
pub const REP_INFO: u32 = 3;
/// See [`REP_ACK`].
pub const REP_META_CONTEXT: u32 = 4;
const REP_ERROR: u32 = 1 << 31;

const INFO_EXPORT: u16 = 0;

const REQUEST: u32 = 0x2560_9513;
/// Commands.
pub const CMD_READ: u16 = 0;
/// See [`CMD_READ`].
pub const CMD_DISCONNECT: u16 = 2;
/// See [`CMD_READ`].
pub const CMD_BLOCK_STATUS: u16 = 7;

const STRUCTURED: u32 = 0x668e_33ef;
/// The length in bytes of the head of a part of an answer, before its data.
pub const CHUNK_LEN: usize = 20;
const CHUNK_DONE: u16 = 1;
const CHUNK_NONE: u16 = 0;
const CHUNK_DATA: u16 = 1;
const CHUNK_HOLE: u16 = 2;
const CHUNK_STATUS: u16 = 5;
const CHUNK_ERROR: u16 = 1 << 15;

/// The flag of the ranges that a dirty bitmap marks.
pub const DIRTY: u32 = 1;

fn be16(b: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}

fn be32(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn be64(b: &[u8], at: usize) -> u64 {
    u64::from(be32(b, at)) << 32 | u64::from(be32(b, at + 4))
}

/// Reads the greeting, and returns the client's answer to it.
///
/// # Errors
/// Fails where the server does not speak the "fixed newstyle" handshake.
pub fn greeting(bytes: &[u8; GREETING_LEN]) -> Result<[u8; 4], Error> {
    if bytes[..16] != GREETING {
        return Err(Error::Protocol("this is no NBD server of the newstyle"));
    }
    let flags = be16(bytes, 16);
    if flags & FIXED_NEWSTYLE == 0 {
        return Err(Error::Protocol("it knows no fixed newstyle"));
    }
    Ok(u32::from(flags & (FIXED_NEWSTYLE | NO_ZEROES)).to_be_bytes())
}

/// Writes an option with its data.
pub fn option(option: u32, data: &[u8]) -> Vec<u8> {
    [&OPTION[..], &option.to_be_bytes(), &(data.len() as u32).to_be_bytes(), data].concat()
}

/// Writes the data of [`OPT_GO`]: the name of the export, and no requests for information.
pub fn go(export: &str) -> Vec<u8> {
    [&string(export)[..], &[0, 0]].concat()
}

/// Writes the data of [`OPT_SET_META_CONTEXT`]: an export and one context of it.
pub fn meta_context(export: &str, context: &str) -> Vec<u8> {
    [string(export), 1u32.to_be_bytes().to_vec(), string(context)].concat()
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
}

/// The head of an answer to an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionReply {
    /// The kind of the answer: one of the `REP_` constants, or an error.
    pub kind: u32,
    /// The number of bytes of data that follow.
    pub len: u32,
}

impl OptionReply {
    /// Reads the head of an answer to `option`.
    ///
    /// # Errors
    /// Fails where the bytes are no such head.
    pub fn parse(bytes: &[u8; OPTION_REPLY_LEN], option: u32) -> Result<OptionReply, Error> {
        if be64(bytes, 0) != OPTION_REPLY || be32(bytes, 8) != option {
            return Err(Error::Protocol("an answer in the handshake belongs to no question"));
        }
        Ok(OptionReply { kind: be32(bytes, 12), len: be32(bytes, 16) })
    }

    /// Tells why the option was refused, if it was. `data` holds the server's text about that.
    pub fn refusal(&self, data: &[u8]) -> Option<String> {
        if self.kind & REP_ERROR == 0 {
            return None;
        }
        let reason = match self.kind & !REP_ERROR {
            1 => "it does not know the request",
            2 => "its policy forbids it",
            3 => "the request is invalid",
            4 => "its platform does not support it",
            5 => "it wants TLS",
            6 => "there is no such export",
            7 => "it is shutting down",
            8 => "it wants to tell its block size",
            9 => "the request is too long",
            _ => "for a reason that this program does not know",
        };
        Some(match String::from_utf8_lossy(data).trim() {
            "" => reason.to_owned(),
            text => format!("{reason} ({})", text.escape_debug()),
        })
    }
}

/// Reads the size of the export in bytes, if this piece of information holds it.
///
/// # Errors
/// Fails where the data is too short.
pub fn export_size(info: &[u8]) -> Result<Option<u64>, Error> {
    match info.len() {
        12 if be16(info, 0) == INFO_EXPORT => Ok(Some(be64(info, 2))),
        n if n < 2 || be16(info, 0) == INFO_EXPORT => {
            Err(Error::Protocol("what it tells of the export has an impossible length"))
        }
        _ => Ok(None),
    }
}

/// Reads the number and the name of a meta context.
///
/// # Errors
/// Fails where the data is too short.
pub fn context(data: &[u8]) -> Result<(u32, &[u8]), Error> {
    match data.split_at_checked(4) {
        Some((id, name)) => Ok((be32(id, 0), name)),
        None => Err(Error::Protocol("a meta context has no number")),
    }
}

/// Writes a request for a range of bytes.
pub fn request(command: u16, cookie: u64, offset: u64, len: u32) -> [u8; 28] {
    let mut out = [0; 28];
    out[..4].copy_from_slice(&REQUEST.to_be_bytes());
    out[6..8].copy_from_slice(&command.to_be_bytes());
    out[8..16].copy_from_slice(&cookie.to_be_bytes());
    out[16..24].copy_from_slice(&offset.to_be_bytes());
    out[24..].copy_from_slice(&len.to_be_bytes());
    out
}

/// The head of a part of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Whether this part is the last.
    pub done: bool,
    /// The number of the request that it answers.
    pub cookie: u64,
    /// The number of bytes of data that follow.
    pub len: u32,
    kind: u16,
}

/// The data of a part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// The part has no data.
    None,
    /// Bytes of the export from this offset on.
    Data(u64, &'a [u8]),
    /// A number of zeros from this offset on.
    Hole(u64, u32),
    /// The number of the meta context, then the length in bytes and the flags of ranges that follow one another.
    Status(u32, Vec<(u32, u32)>),
    /// The request failed, with this number of a system's error and this text of the server.
    Error(u32, String),
}

impl Chunk {
    /// Reads the head of a part.
    ///
    /// # Errors
    /// Fails where the bytes are no such head.
    pub fn parse(bytes: &[u8; CHUNK_LEN]) -> Result<Chunk, Error> {
        if be32(bytes, 0) != STRUCTURED {
            return Err(Error::Protocol("an answer is not structured"));
        }
        let (flags, kind) = (be16(bytes, 4), be16(bytes, 6));
        Ok(Chunk { done: flags & CHUNK_DONE != 0, kind, cookie: be64(bytes, 8), len: be32(bytes, 16) })
    }

    /// Tells whether it is an answer about block status, which may be longer than others.
    pub fn is_status(&self) -> bool {
        self.kind == CHUNK_STATUS
    }

    /// Reads the data of a part, which are [`Chunk::len`] bytes.
    ///
    /// # Errors
    /// Fails where the length is impossible, or the kind is unknown.
    pub fn payload<'a>(&self, data: &'a [u8]) -> Result<Payload<'a>, Error> {
        let short = || Error::Protocol("a part of an answer has an impossible length");
        match self.kind {
            CHUNK_NONE if data.is_empty() && self.done => Ok(Payload::None),
            CHUNK_DATA if data.len() > 8 => Ok(Payload::Data(be64(data, 0), &data[8..])),
            CHUNK_HOLE if data.len() == 12 => Ok(Payload::Hole(be64(data, 0), be32(data, 8))),
            CHUNK_STATUS if data.len() >= 12 && data.len() % 8 == 4 => {
                let ranges = data[4..].chunks_exact(8).map(|r| (be32(r, 0), be32(r, 4))).collect();
                Ok(Payload::Status(be32(data, 0), ranges))
            }
            kind if kind & CHUNK_ERROR != 0 => {
                let len = data.get(4..6).map(|len| usize::from(be16(len, 0))).ok_or_else(short)?;
                let text = data.get(6..6 + len).ok_or_else(short)?;
                let text = String::from_utf8_lossy(text).escape_debug().to_string();
                Ok(Payload::Error(be32(data, 0), text))
            }
            CHUNK_NONE | CHUNK_DATA | CHUNK_HOLE | CHUNK_STATUS => Err(short()),
            _ => Err(Error::Protocol("a part of an answer is of a kind that does not exist")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes that were written down from the protocol's text.
    #[test]
    fn messages_are_as_the_protocol_has_them() {
        assert_eq!(greeting(b"NBDMAGICIHAVEOPT\0\x03").unwrap(), [0, 0, 0, 3]);
        assert_eq!(greeting(b"NBDMAGICIHAVEOPT\0\x01").unwrap(), [0, 0, 0, 1]);
        assert!(greeting(b"NBDMAGICIHAVEOPT\0\x02").is_err());
        assert!(greeting(b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53\0\0").is_err(), "oldstyle");
        assert_eq!(option(OPT_GO, &go("ab")), b"IHAVEOPT\0\0\0\x07\0\0\0\x08\0\0\0\x02ab\0\0");
        assert_eq!(meta_context("a", "q:b"), b"\0\0\0\x01a\0\0\0\x01\0\0\0\x03q:b");
        assert_eq!(
            request(CMD_BLOCK_STATUS, 5, 0x0102_0304_0506_0708, 9),
            *b"\x25\x60\x95\x13\0\0\0\x07\0\0\0\0\0\0\0\x05\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\x09"
        );
        let reply = *b"\0\x03\xe8\x89\x04\x55\x65\xa9\0\0\0\x07\x80\0\0\x06\0\0\0\x02";
        let parsed = OptionReply::parse(&reply, OPT_GO).unwrap();
        assert_eq!(parsed.refusal(b"no").unwrap(), "there is no such export (no)");
        assert!(OptionReply::parse(&reply, OPT_SET_META_CONTEXT).is_err());
        assert_eq!(export_size(b"\0\0\0\0\0\0\0\0\x10\0\0\x03").unwrap(), Some(4096));
        assert_eq!(export_size(b"\0\x03\0\0\0\x01\0\0\x10\0\x02\0\0\0").unwrap(), None);
        assert!(export_size(b"\0\0\0").is_err() && export_size(b"").is_err());
        assert_eq!(context(b"\0\0\0\x07name").unwrap(), (7, &b"name"[..]));
        assert!(context(b"\0\0\0").is_err());
    }

    fn chunk(kind: u8, done: u8, data: &[u8]) -> Result<Payload<'_>, Error> {
        let mut head = *b"\x66\x8e\x33\xef\0\0\0\0\0\0\0\0\0\0\0\x03\0\0\0\0";
        (head[5], head[6], head[7]) = (done, if kind > 128 { 128 } else { 0 }, kind & 127);
        head[19] = data.len() as u8;
        let chunk = Chunk::parse(&head).unwrap();
        assert_eq!((chunk.done, chunk.cookie, chunk.len as usize), (done == 1, 3, data.len()));
        chunk.payload(data)
    }

    #[test]
    fn parts_of_answers() {
        assert_eq!(chunk(0, 1, b"").unwrap(), Payload::None);
        assert!(chunk(0, 0, b"").is_err() && chunk(0, 1, b"x").is_err());
        assert_eq!(chunk(1, 0, b"\0\0\0\0\0\0\x10\0ab").unwrap(), Payload::Data(4096, b"ab"));
        assert!(chunk(1, 0, b"\0\0\0\0\0\0\x10\0").is_err());
        assert_eq!(chunk(2, 0, b"\0\0\0\0\0\0\x10\0\0\0\x02\0").unwrap(), Payload::Hole(4096, 512));
        let status = chunk(5, 1, b"\0\0\0\x01\0\0\x10\0\0\0\0\x01\0\0\x20\0\0\0\0\0").unwrap();
        assert_eq!(status, Payload::Status(1, vec![(4096, 1), (8192, 0)]));
        assert!(chunk(5, 1, b"\0\0\0\x01").is_err() && chunk(5, 1, b"\0\0\0\x01\0\0\0").is_err());
        let error = chunk(129, 1, b"\0\0\0\x16\0\x03bad").unwrap();
        assert_eq!(error, Payload::Error(22, "bad".into()));
        assert!(chunk(129, 1, b"\0\0\0\x16\0\x09bad").is_err() && chunk(129, 1, b"").is_err());
        assert!(chunk(9, 1, b"").is_err());
        assert!(Chunk::parse(&[0; CHUNK_LEN]).is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(head: [u8; CHUNK_LEN], data: Vec<u8>, kind: u32) {
            let head = [&STRUCTURED.to_be_bytes()[..], &head[4..]].concat();
            if let Ok(chunk) = Chunk::parse(head[..].try_into().unwrap()) {
                let _ = chunk.payload(&data);
            }
            let _ = (export_size(&data), context(&data), OptionReply { kind, len: 0 }.refusal(&data));
        }
    }
}
