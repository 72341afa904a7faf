//! POSIX ACLs: from the text in which tar stores them to the attribute of the file system.

/// The names of the attributes: of access, and by default.
pub(super) const NAMES: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];

/// The version of the attribute.
const VERSION: u32 = 2;
/// The number of an entry that is about no certain user or group.
const NOBODY: u32 = u32::MAX;

/// Makes the value of `system.posix_acl_access` or `system.posix_acl_default`. The result is `None` where the text is no ACL,
/// or names a user or group without its number.
pub(super) fn attribute(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let mut entries = Vec::new();
    for line in text.split(['\n', ',']) {
        // Behind the entry there may be a comment on what takes effect.
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let mut fields = line.strip_prefix("default:").unwrap_or(line).split(':');
        let (kind, name) = (fields.next()?, fields.next()?);
        let (rights, number) = match (kind, fields.next()) {
            ("mask" | "other" | "m" | "o", None) => (name, None),
            (_, Some(rights)) => (rights, fields.next()),
            _ => return None,
        };
        let id = || number.unwrap_or(name).parse::<u32>().ok();
        let (tag, id) = match (kind, name) {
            ("user" | "u", "") => (1, NOBODY),
            ("user" | "u", _) => (2, id()?),
            ("group" | "g", "") => (4, NOBODY),
            ("group" | "g", _) => (8, id()?),
            ("mask" | "m", _) => (0x10, NOBODY),
            ("other" | "o", _) => (0x20, NOBODY),
            _ => return None,
        };
        let rights = rights.chars().try_fold(0u16, |sum, c| {
            Some(
                sum | match c {
                    'r' => 4,
                    'w' => 2,
                    'x' => 1,
                    '-' => 0,
                    _ => return None,
                },
            )
        })?;
        entries.push((tag, id, rights));
    }
    entries.sort_unstable();
    let mut out = VERSION.to_le_bytes().to_vec();
    for (tag, id, rights) in &entries {
        out.extend(u16::to_le_bytes(*tag));
        out.extend(rights.to_le_bytes());
        out.extend(id.to_le_bytes());
    }
    (!entries.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::attribute;

    #[test]
    fn text_becomes_an_attribute() {
        let entry = |tag: u8, rights: u8, id: u32| [&[tag, 0, rights, 0][..], &id.to_le_bytes()].concat();
        let expected = [
            vec![2, 0, 0, 0],
            entry(1, 6, u32::MAX),
            entry(2, 4, 33),
            entry(2, 7, 1000),
            entry(4, 4, u32::MAX),
            entry(0x10, 7, u32::MAX),
            entry(0x20, 0, u32::MAX),
        ];
        let text = "user::rw-\nuser:1000:rwx\nuser:www-data:r--:33\ngroup::r--\nmask::rwx #all\nother::---\n";
        assert_eq!(attribute(text.as_bytes()).unwrap(), expected.concat());
        assert_eq!(attribute(text.replace('\n', ",").as_bytes()).unwrap(), expected.concat());
        for wrong in ["", "user", "user:name:rwx", "x::r", "user::rwz", "\u{fe}"] {
            assert_eq!(attribute(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
