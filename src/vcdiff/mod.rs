//! VCDIFF (RFC 3284) as xdelta3 reads and writes it.
