//! Arguments and output of each command.

pub mod compat;
pub mod vma;
pub mod xdelta3;
