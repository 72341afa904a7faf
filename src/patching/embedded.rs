//! The patch sets and the payload inside the program, so that one file is all a host needs.

/// Every file below `patches/`, by its path there. A test compares this list with the directory.
pub static FILES: &[(&str, &[u8])] = &[];
