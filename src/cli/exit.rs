//! The exit codes, in one table for programs, man page and help.

use std::process::ExitCode;

use crate::host::Origin;
use crate::patching::refusal::Refusal;
use crate::patching::transaction::TransactionError;
use crate::service::Refused;
use crate::service::reinstall::ReinstallError;

/// Status of a program that SIGPIPE ended, as shells report it. vzdump and pvesm know it from `pve-xdelta3`.
pub const BROKEN_PIPE: u8 = 141;

/// Status of `pve-xdelta3 compose` where what is dirty does not suffice, so that everything must be read.
pub const READ_ALL: u8 = 3;

/// Status of `pve-xdelta3 audit` where something changed that is not marked.
pub const MISSED: u8 = 5;

/// Status of `pve-xdelta3 vma extract --salvage` where something is lost, or no longer proved.
pub const INCOMPLETE: u8 = 4;

/// Why a command ended as it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done; for `status`: patched and current.
    Success = 0,
    /// Any other failure.
    Failure = 1,
    /// An option or argument is unknown (that is found by the parser of the command line), or would be ignored.
    Usage = 2,
    /// `status`: nothing is patched.
    Unpatched = 3,
    /// `status`: partly patched, or by an older version.
    Mixed = 4,
    /// No patch set is meant for this release.
    Unsupported = 5,
    /// A package of Proxmox VE is not installed.
    NotInstalled = 6,
    /// A file to be patched is missing.
    FileMissing = 7,
    /// An anchor is missing.
    AnchorMissing = 8,
    /// An anchor is ambiguous.
    AnchorAmbiguous = 9,
    /// A file that is not ours lies where one of ours should go.
    InTheWay = 10,
    /// A module would not load any more.
    ModuleBroken = 11,
    /// Another run is at work.
    Locked = 12,
    /// Something could not be written.
    NotWritten = 13,
    /// An interrupted run could be neither finished nor undone.
    Stuck = 14,
    /// A question was answered with no, or there is nobody to ask.
    Declined = 15,
    /// apt-get failed.
    Apt = 16,
    /// The patches this program succeeds are still there.
    Originals = 17,
    /// Somebody's edit took away or doubled what our lines hang on.
    ForeignChange = 18,
    /// `revert` could not give back a file byte for byte.
    NotRevertible = 19,
    /// `--cluster`: not all nodes are as they should be.
    Nodes = 20,
    /// `status`: the files are patched and current, but something else is not as it should be.
    Attention = 21,
}

impl Exit {
    /// All codes with what they mean, for help and man page.
    pub const TABLE: [(Self, &'static str); 22] = [
        (Self::Success, "done; status: patched and current"),
        (Self::Failure, "any other failure"),
        (Self::Usage, "unknown option or argument, or one that the command would ignore"),
        (Self::Unpatched, "status: nothing is patched"),
        (Self::Mixed, "status: partly patched, or by an older version; apply brings it up to date"),
        (Self::Unsupported, "no patch set is meant for the files of this release"),
        (Self::NotInstalled, "a package of Proxmox VE is not installed"),
        (Self::FileMissing, "a file to be patched is missing"),
        (Self::AnchorMissing, "a line that hunks hang on, or its block, is missing in this release"),
        (Self::AnchorAmbiguous, "a line that hunks hang on occurs more than once in this release"),
        (Self::InTheWay, "a file that is not ours lies where one of ours should go"),
        (Self::ModuleBroken, "a Perl module would not load with our lines, or a page would be spoilt"),
        (Self::Locked, "another pve-diff-backup is at work on this host"),
        (Self::NotWritten, "something cannot be written; everything is as it was"),
        (Self::Stuck, "an interrupted run could be neither finished nor undone"),
        (Self::Declined, "answered with no, or no terminal to ask on and no --yes"),
        (Self::Apt, "apt-get failed"),
        (Self::Originals, "the patches of ayufan/pve-patches are still there"),
        (Self::ForeignChange, "somebody's edit of a file took away or doubled a line that hunks hang on"),
        (Self::NotRevertible, "revert could not give back a file byte for byte"),
        (Self::Nodes, "--cluster: not all nodes are as they should be, or could be asked"),
        (Self::Attention, "status: patched and current, but something else needs attention; doctor tells"),
    ];

    /// The code for a refusal.
    pub fn of_refusal(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::NotInstalled { .. } => Self::NotInstalled,
            Refusal::NoSet { .. }
            | Refusal::SeveralSets { .. }
            | Refusal::NoGeneration { .. }
            | Refusal::SeveralGenerations { .. } => Self::Unsupported,
            Refusal::FileMissing { .. } => Self::FileMissing,
            Refusal::AnchorMissing { place, .. }
            | Refusal::AnchorAmbiguous { place, .. }
            | Refusal::BlockOpen { place, .. }
                if place.origin == Some(Origin::Modified) =>
            {
                Self::ForeignChange
            }
            Refusal::AnchorMissing { .. } | Refusal::BlockOpen { .. } => Self::AnchorMissing,
            Refusal::AnchorAmbiguous { .. } => Self::AnchorAmbiguous,
            Refusal::NotRevertible { .. } | Refusal::RevertBroken { .. } => Self::NotRevertible,
            Refusal::PayloadInTheWay { .. } => Self::InTheWay,
            Refusal::OriginalPatches { .. } => Self::Originals,
            Refusal::ModuleBroken { .. } | Refusal::Misplaced { .. } => Self::ModuleBroken,
        }
    }

    /// The code for whatever ended a command early.
    pub fn of_error(error: &anyhow::Error) -> Self {
        if let Some(Refused(refusals)) = error.downcast_ref() {
            return refusals.first().map_or(Self::Failure, Self::of_refusal);
        }
        if let Some(Stop(exit, _)) = error.downcast_ref() {
            return *exit;
        }
        match error.downcast_ref::<ReinstallError>() {
            Some(ReinstallError::NothingInstalled) => return Self::NotInstalled,
            Some(ReinstallError::Apt { .. }) => return Self::Apt,
            None => {}
        }
        match error.downcast_ref::<TransactionError>() {
            Some(TransactionError::Locked { .. }) => Self::Locked,
            Some(TransactionError::Write { .. } | TransactionError::Changed { .. }) => Self::NotWritten,
            Some(TransactionError::Stuck { .. } | TransactionError::Journal { .. }) => Self::Stuck,
            Some(
                TransactionError::Leftover { .. } | TransactionError::NoHost(_) | TransactionError::Root(_),
            )
            | None => Self::Failure,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An end with a code of its own and a reason.
#[derive(Debug, thiserror::Error)]
#[error("{1}")]
pub struct Stop(pub Exit, pub String);
