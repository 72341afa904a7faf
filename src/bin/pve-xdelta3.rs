//! Thin main; see `pve_diff_backup::cli`.

fn main() {}
