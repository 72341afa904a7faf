//! Looks after verifications that systemd starts: whether it does, and with which options.

use anyhow::Context as _;

use crate::host::services;
use crate::host::{Root, hint};

/// The unit that systemd starts at its time.
pub const TIMER: &str = "pve-diff-backup-verify.timer";

/// What the runs do, as an environment file for systemd, relative to the root. The service runs only where it is there.
const OPTIONS: &str = "etc/default/pve-diff-backup-verify";

/// What stands above the options.
const HEAD: &str = "\
# What the timer pve-diff-backup-verify gives to `pve-diff-backup verify`: options and storages (without any, all storages of
# this node), separated by blanks. Written by `pve-diff-backup verify --enable`, removed by --disable.
";

/// Lets systemd verify backups with these options from now on, instead of those that were there before.
///
/// # Errors
/// Fails where our units are not installed, the options cannot be written, or systemd refuses. Then it is as it was.
pub fn enable(root: &Root, options: &[String]) -> anyhow::Result<()> {
    if !services::has_unit(root, TIMER) {
        anyhow::bail!(
            "{TIMER} is not installed: the Debian package of pve-diff-backup brings it, for hosts with systemd"
        );
    }
    let path = root.resolve(OPTIONS)?;
    let before = root.read(OPTIONS, 64 << 10)?;
    let cannot = || format!("cannot write {}", path.display());
    let new = path.with_extension("new");
    let text = format!("{HEAD}OPTIONS=\"{}\"\n", options.join(" "));
    let write = |text: &[u8]| fs_err::write(&new, text).and_then(|()| fs_err::rename(&new, &path));
    write(text.as_bytes()).with_context(cannot)?;
    let Err(reason) = services::set_enabled(root, TIMER, true) else { return Ok(()) };
    match before {
        Some(before) => write(&before),
        None => fs_err::remove_file(&path),
    }
    .with_context(cannot)?;
    anyhow::bail!("systemctl cannot enable {TIMER}: {reason}")
}

/// Lets systemd verify no backups any more. Tells whether it did before.
///
/// # Errors
/// Fails where systemd refuses, or the options cannot be removed.
pub fn disable(root: &Root) -> anyhow::Result<bool> {
    let path = root.resolve(OPTIONS)?;
    let was = path.exists();
    if services::has_unit(root, TIMER) {
        services::set_enabled(root, TIMER, false)
            .map_err(|reason| anyhow::anyhow!("systemctl cannot disable {TIMER}: {reason}"))?;
    }
    match fs_err::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("nothing is verified any more, but the options stay")
        }
        _ => Ok(was),
    }
}

/// The command that shows when systemd verifies next.
pub fn next() -> String {
    hint::inside(&format!("systemctl list-timers {TIMER}"))
}
