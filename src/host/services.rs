//! Lets Proxmox' daemons load new code, and systemd start our timer. Only this file talks to systemd, or to dpkg in its stead.

use super::program::Program;
use super::root::Root;

/// The daemons that hold patched modules in memory.
pub const DAEMONS: [&str; 4] = ["pvedaemon", "pveproxy", "pvescheduler", "pvestatd"];

/// Where units lie, in systemd's order of search (systemd.unit(5)).
const UNIT_DIRS: [&str; 4] =
    ["etc/systemd/system", "run/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];

/// The trigger by which packages ask pve-manager (since 4.0) to let its daemons load new code.
const TRIGGER: &str = "pve-api-updates";

/// What became of a reload.
#[derive(Debug, PartialEq, Eq)]
pub enum Reload {
    /// None of the daemons exists here, or systemd does not run.
    NothingToDo,
    /// These were asked to reload, and did.
    Done(Vec<&'static str>),
    /// A package is being installed or removed: dpkg lets pve-manager do it when all packages are in place.
    Deferred,
    /// systemd reported a failure: the command, to be repeated by hand, and what went wrong.
    Failed {
        /// The command line.
        command: String,
        /// What systemctl or the system said.
        reason: String,
    },
}

/// Which of [`DAEMONS`] have a unit below `root`.
pub fn existing(root: &Root) -> Vec<&'static str> {
    DAEMONS.into_iter().filter(|name| has_unit(root, &format!("{name}.service"))).collect()
}

/// Asks the running host's daemons to load the changed modules, as pve-manager's own maintainer script does:
/// daemons that run reload (open connections and tasks go on), those that do not stay stopped.
pub fn reload(root: &Root) -> Reload {
    let daemons = existing(root);
    let mut reload = vec!["reload-or-try-restart"];
    reload.extend(&daemons);
    let command = format!("systemctl {}", reload.join(" "));
    // dpkg sets it for maintainer scripts. These must not restart pveproxy, which may be what the upgrade's own
    // terminal runs below, and would come too early while packages are half installed. dpkg runs pve-manager's
    // trigger at the end, once, however often it is asked for.
    let (ran, done) = if std::env::var_os("DPKG_MAINTSCRIPT_PACKAGE").is_some() {
        (run("dpkg-trigger", &["--no-await", TRIGGER]), Reload::Deferred)
    } else if daemons.is_empty() || !root.dir().join("run/systemd/system").is_dir() {
        // The folder is there exactly where systemd is the running init, sd_booted(3).
        return Reload::NothingToDo;
    } else {
        (run("systemctl", &reload), Reload::Done(daemons))
    };
    match ran {
        Ok(()) => done,
        Err(reason) => Reload::Failed { command, reason },
    }
}

/// Whether a unit with this file name is installed below `root`.
pub fn has_unit(root: &Root, name: &str) -> bool {
    UNIT_DIRS.iter().any(|dir| root.resolve(format!("{dir}/{name}")).is_ok_and(|path| path.exists()))
}

/// Lets systemd start a unit from now on, also when the host boots, or no longer start it. Where systemd does not run there,
/// the unit is only marked for the next boot.
///
/// # Errors
/// What systemctl or the system said.
pub fn set_enabled(root: &Root, unit: &str, on: bool) -> Result<(), String> {
    let verb = if on { "enable" } else { "disable" };
    let other = format!("--root={}", root.dir().display());
    let runs = root.is_running_host() && root.dir().join("run/systemd/system").is_dir();
    match (runs, root.is_running_host()) {
        (true, _) => run("systemctl", &[verb, "--now", unit]),
        (false, true) => run("systemctl", &[verb, unit]),
        (false, false) => run("systemctl", &[&other, verb, unit]),
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    match Program::new(program, arguments).merged().run() {
        Ok(ran) if ran.succeeded() => Ok(()),
        Ok(ran) => Err(ran.out().trim().to_owned()),
        Err(error) => Err(error.to_string()),
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
