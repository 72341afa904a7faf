//! Patch sets, plans and the transaction that carries them out.
//!
//! One `apply`, from end to end: [`survey`] reads the host (dpkg's database, the files that matter), [`plan`]
//! decides from these contents alone what each file should hold, [`check`] loads the changed modules from a
//! staged copy, and [`transaction`], the only part that writes below the root, replaces all files or none.

pub mod anchors;
mod candidates;
pub mod change;
pub mod check;
mod code;
pub mod diff;
pub mod embedded;
mod insert;
pub mod originals;
pub mod patchset;
pub mod pattern;
pub mod plan;
pub mod record;
pub mod recording;
pub mod refusal;
pub mod revert;
pub mod survey;
pub mod template;
pub mod text;
pub mod transaction;
pub mod upcoming;
pub mod verified;

/// The sha256 of `content` in lower-case hex.
pub fn sha256_hex(content: &[u8]) -> String {
    use sha2::Digest;
    crate::text::hex(&sha2::Sha256::digest(content))
}
