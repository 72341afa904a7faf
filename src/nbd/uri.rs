//! Reads the addresses of exports.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::Error;

/// The address of an export: `nbd+unix:///EXPORT?socket=PATH`, as QEMU and libnbd write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    /// The path of the server's socket.
    pub socket: PathBuf,
    /// The export's name.
    pub export: String,
}

/// The length in bytes of the longest name of an export that the protocol allows.
const MAX_NAME: usize = 4096;

impl Uri {
    /// Reads an address. Names and paths may be percent-encoded.
    ///
    /// # Errors
    /// Fails with [`Error::Address`] where the text has another form.
    pub fn parse(text: &str) -> Result<Uri, Error> {
        let parts = || {
            let (export, socket) = text.strip_prefix("nbd+unix:///")?.split_once("?socket=")?;
            let export = String::from_utf8(decoded(export)?).ok()?;
            let socket = PathBuf::from(OsString::from_vec(decoded(socket)?));
            let sane = export.len() <= MAX_NAME && !export.contains('\0') && socket.is_absolute();
            sane.then_some(Uri { socket, export })
        };
        parts().ok_or_else(|| Error::Address(text.into()))
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let socket = encoded(self.socket.as_os_str().as_bytes());
        write!(f, "nbd+unix:///{}?socket={socket}", encoded(self.export.as_bytes()))
    }
}

/// Percent-encodes what could mean something else in an address.
pub fn encoded(bytes: &[u8]) -> String {
    let letter = |b: &u8| match b {
        b'/' | b'-' | b'.' | b'_' | b'~' => char::from(*b).to_string(),
        b if b.is_ascii_alphanumeric() => char::from(*b).to_string(),
        b => format!("%{b:02x}"),
    };
    bytes.iter().map(letter).collect()
}

/// Undoes percent-encoding. The result is `None` where a percent sign begins no code.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let uri = |text| Uri::parse(text).map(|uri| (uri.export, uri.socket)).ok();
        let at = |export: &str, socket: &str| Some((export.to_owned(), PathBuf::from(socket)));
        assert_eq!(uri("nbd+unix:///drive-scsi0?socket=/run/x/nbd"), at("drive-scsi0", "/run/x/nbd"));
        assert_eq!(uri("nbd+unix:///?socket=/a"), at("", "/a"));
        assert_eq!(uri("nbd+unix:///a%20b%2f?socket=/x%3fy"), at("a b/", "/x?y"));
        let text = "nbd+unix:///a%20b/?socket=/x%3fy";
        assert_eq!(Uri::parse(text).unwrap().to_string(), text);
        for wrong in [
            "",
            "/run/nbd",
            "nbd://host/x",
            "nbd+unix:///x",
            "nbd+unix:///x?socket=",
            "nbd+unix:///x?socket=relative",
            "nbd+unix:///x%2?socket=/a",
            "nbd+unix:///x%ff?socket=/a",
            "nbd+unix:///x%00?socket=/a",
            "nbd+unix:///x?socket=/a%zz",
        ] {
            assert_eq!(uri(wrong), None, "{wrong}");
        }
    }
}
