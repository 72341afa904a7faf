//! Proxmox' daemons: the one place that talks to systemd.

use super::root::Root;

/// The daemons that hold patched modules in memory.
pub const DAEMONS: [&str; 4] = ["pvedaemon", "pveproxy", "pvescheduler", "pvestatd"];

/// Where units lie, in systemd's order of search (systemd.unit(5)).
const UNIT_DIRS: [&str; 4] =
    ["etc/systemd/system", "run/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];

/// What became of a reload.
#[derive(Debug, PartialEq, Eq)]
pub enum Reload {
    /// None of the daemons exists here, or systemd does not run.
    NothingToDo,
    /// These were asked to reload, and did.
    Done(Vec<&'static str>),
    /// systemd reported a failure: the command, to be repeated by hand, and what went wrong.
    Failed {
        /// The whole command line.
        command: String,
        /// What systemctl or the system said.
        reason: String,
    },
}

/// Which of [`DAEMONS`] have a unit below `root`.
pub fn existing(root: &Root) -> Vec<&'static str> {
    DAEMONS
        .into_iter()
        .filter(|name| {
            UNIT_DIRS
                .iter()
                .any(|dir| root.resolve(format!("{dir}/{name}.service")).is_ok_and(|path| path.exists()))
        })
        .collect()
}

/// Asks the running host's daemons to load the changed modules, as pve-manager's own maintainer script does:
/// daemons that run reload (open connections and tasks go on), those that do not stay stopped.
pub fn reload(root: &Root) -> Reload {
    let daemons = existing(root);
    // The folder is there exactly where systemd is the running init, sd_booted(3).
    if daemons.is_empty() || !root.dir().join("run/systemd/system").is_dir() {
        return Reload::NothingToDo;
    }
    let mut arguments = vec!["reload-or-try-restart"];
    arguments.extend(&daemons);
    let command = format!("systemctl {}", arguments.join(" "));
    match duct::cmd("systemctl", &arguments).stderr_to_stdout().stdout_capture().unchecked().run() {
        Ok(output) if output.status.success() => Reload::Done(daemons),
        Ok(output) => {
            Reload::Failed { command, reason: String::from_utf8_lossy(&output.stdout).trim().to_owned() }
        }
        Err(error) => Reload::Failed { command, reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_daemons_with_a_unit_exist() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("usr/lib/systemd/system")).unwrap();
        std::fs::create_dir_all(dir.path().join("etc/systemd/system")).unwrap();
        std::os::unix::fs::symlink("usr/lib", dir.path().join("lib")).unwrap();
        std::fs::write(dir.path().join("lib/systemd/system/pvestatd.service"), "").unwrap();
        std::fs::write(dir.path().join("etc/systemd/system/pvedaemon.service"), "").unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(existing(&root), ["pvedaemon", "pvestatd"]);
        assert_eq!(reload(&root), Reload::NothingToDo, "systemd does not run there");
    }
}
