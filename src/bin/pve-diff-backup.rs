//! Thin main; see `pve_diff_backup::cli`.

fn main() -> std::process::ExitCode {
    pve_diff_backup::cli::main(std::env::args_os())
}
