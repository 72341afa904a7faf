//! Thin main; see `pve_diff_backup::cli::xdelta3`.

fn main() -> std::process::ExitCode {
    pve_diff_backup::cli::xdelta3::run(std::env::args_os().collect())
}
