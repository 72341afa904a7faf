//! Whether a differential was made against this base, as far as the differential's header tells.

use std::os::unix::ffi::OsStrExt;

use super::Base;
use crate::matching::{BaseProblem, Error};
use crate::text::{shown, shown_bytes};
use crate::vcdiff::AppHeader;

/// What proves that a differential was made against a base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The identity of the file, or the beginning of its content.
    Content,
    /// A name alone, which is that of the base. So it is with archives of pve-patches (2013 to 2021).
    Name,
    /// Nothing: the header holds nothing that could be compared.
    None,
}

impl Base {
    /// Tells what proves that a differential with this header was made against this base.
    ///
    /// If the file has the form that it had then, it must be the same file. If it was compressed anew since, its content
    /// must begin with the same bytes and be as long.
    ///
    /// # Errors
    /// [`BaseProblem::Other`] where the differential was made against another one.
    pub fn check(&self, header: &AppHeader) -> Result<Proof, Error> {
        let other = |what: &str| {
            let name = shown_bytes(&header.base_name);
            Err(Error::base(&self.path, BaseProblem::Other { name, what: what.into() }))
        };
        match header.base_identity {
            Some(id) if header.base_form.as_deref() == Some(self.form) => {
                return if id == self.identity { Ok(Proof::Content) } else { other("its identity differs") };
            }
            _ => {}
        }
        match (header.base_head, header.base_len, self.size()) {
            (Some(head), ..) if head != self.head => other("it begins differently"),
            (_, Some(then), Some(now)) if then != now => {
                other(&format!("it holds {now} bytes, the full backup held {then}"))
            }
            (Some(_), ..) => Ok(Proof::Content),
            _ => Ok(self.proof_by_name(header)),
        }
    }

    /// Compares the names. A full backup that was compressed anew keeps its name apart from the last extension.
    fn proof_by_name(&self, header: &AppHeader) -> Proof {
        let plain = |name: &[u8]| {
            let compressed = [&b".zst"[..], b".lzo", b".gz", b".xz"];
            compressed.iter().find_map(|end| name.strip_suffix(*end)).map_or_else(
                || name.strip_suffix(b".tgz").map_or_else(|| name.to_vec(), |stem| [stem, b".tar"].concat()),
                <[u8]>::to_vec,
            )
        };
        let is_theirs = header.base_identity.is_none() && !header.base_name.is_empty() && !header.end_record;
        match self.path.file_name() {
            Some(name) if is_theirs && plain(name.as_bytes()) == plain(&header.base_name) => Proof::Name,
            _ => Proof::None,
        }
    }

    /// Whether this is the very file, not only the same content, that a differential with this header was made against.
    pub fn is_same_file(&self, header: &AppHeader) -> bool {
        header.base_form.as_deref() == Some(self.form) && header.base_identity == Some(self.identity)
    }

    /// Refuses a base that is not certainly the one that a differential with this header was made against, so that another
    /// file with the same content may be deleted. Where [`Base::check`] merely finds no difference, that is no proof.
    ///
    /// # Errors
    /// As [`Base::check`], and [`BaseProblem::Unproved`].
    pub fn prove(&self, header: &AppHeader) -> Result<(), Error> {
        self.check(header)?;
        let same_file = self.is_same_file(header);
        let same_content = header.base_head.is_some() && header.base_len.is_some() && self.size().is_some();
        match (same_file || same_content) && !header.damaged {
            true => Ok(()),
            false => Err(Error::base(&self.path, BaseProblem::Unproved)),
        }
    }

    /// Refuses a base that was found by its name alone, unless the differential's header tells that it is the right one.
    /// Headers of pve-patches hold nothing but that name: such a base is accepted, and the result is a warning that says
    /// what was not checked.
    ///
    /// # Errors
    /// As [`Base::check`], and [`BaseProblem::Unknown`].
    pub fn accept_by_name(&self, header: &AppHeader) -> Result<Option<String>, Error> {
        match self.check(header)? {
            Proof::Content if header.end_of_delta && self.form == "raw" => Ok(Some(format!(
                "{} is not compressed any more, and has no checksums; the differential, which was made of what was \
                 dirty, has none of what it copies from there: damage of the full backup would go unnoticed",
                shown(&self.path)
            ))),
            Proof::Content => Ok(None),
            Proof::Name => Ok(Some(format!(
                "the differential was made by pve-patches (2013 to 2021), whose archives say no more of their full backup \
                 than its name: whether {} is the right one is not checked beforehand. What is restored is compared with \
                 the checksums in the differential; if its end is missing, that may go unnoticed",
                shown(&self.path)
            ))),
            Proof::None => {
                let name = match &header.base_name[..] {
                    b"" => "it names none".to_owned(),
                    name => format!("it names {}", shown_bytes(name)),
                };
                Err(Error::base(&self.path, BaseProblem::Unknown { name }))
            }
        }
    }
}
