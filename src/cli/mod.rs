//! Arguments and output of each command.

pub mod selftest;
pub mod verify;
pub mod vma;
