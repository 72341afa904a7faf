//! Arguments and output of each command.

pub mod verify;
pub mod vma;
