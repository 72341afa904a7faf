//! xdelta3's command line.

/// Runs it.
pub fn run(_args: Vec<std::ffi::OsString>) -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
