//! Arguments and output of each command.

pub mod vma;
