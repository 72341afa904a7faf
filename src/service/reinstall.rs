//! Gets the affected packages anew from apt, for a host whose files are past repair.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::host::{Host, View};
use super::listener::Listener;
use super::revert::revert;
use crate::host::{Origin, Program, hint};
use crate::patching::survey::FileView;

/// A package that is to be installed anew.
#[derive(Debug)]
pub struct Affected {
    /// Its name and the version it has, as apt-get takes them.
    pub package: String,
    /// Its files that we patch, each with how it stands.
    pub files: Vec<String>,
}

/// Why packages are not installed anew.
#[derive(Debug, thiserror::Error)]
pub enum ReinstallError {
    /// There are none.
    #[error("no package of Proxmox VE is installed here: nothing to reinstall")]
    NothingInstalled,
    /// apt-get did not do it.
    #[error("{reason}\nOur lines are out. Put the cause right, then run by hand: {command}")]
    Apt {
        /// What went wrong.
        reason: String,
        /// The command to run by hand.
        command: String,
    },
}

/// The packages whose files we patch, and how these files stand.
///
/// # Errors
/// [`ReinstallError::NothingInstalled`]
pub fn affected(view: &View) -> Result<Vec<Affected>, ReinstallError> {
    let mut affected: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (path, package, file) in shipped(view) {
        let ours = file.stripped.as_ref().is_some_and(|stripped| !stripped.markers.is_empty());
        let state = match (ours, &file.content, file.origin) {
            (_, None, _) => "missing",
            (true, _, Some(Origin::Modified)) => "patched, and edited by somebody else",
            (true, ..) => "patched",
            (false, _, Some(Origin::Modified)) => "edited by somebody else",
            (false, ..) => "as shipped",
        };
        affected.entry(package).or_default().push(format!("/{path} ({state})"));
    }
    if affected.is_empty() {
        return Err(ReinstallError::NothingInstalled);
    }
    let named = |(name, files): (&str, Vec<String>)| {
        let version = &view.survey.packages[name].version;
        Affected { package: format!("{name}={version}"), files }
    };
    Ok(affected.into_iter().map(named).collect())
}

/// The files of installed packages, each with its path and package. Files that only other releases ship are left out: they
/// are not missing here.
fn shipped(view: &View) -> impl Iterator<Item = (&str, &str, &FileView)> {
    view.survey.files.iter().filter_map(|(path, file)| {
        let package = file.package.as_deref().filter(|name| view.survey.packages.contains_key(*name))?;
        (file.listed || file.content.is_some()).then_some((path.as_str(), package, file))
    })
}

/// Reverts what can be reverted, then lets apt install the same versions of the packages whose files we patch.
///
/// The revert comes first, so that our own package's trigger, which apt sets off, finds a host that is not meant to be
/// patched. With another root, the apt of that root is run in it (chroot).
///
/// # Errors
/// Where the host cannot be reverted; [`ReinstallError::Apt`].
pub fn reinstall(host: &Host, affected: &[Affected], listener: &dyn Listener) -> anyhow::Result<()> {
    revert(&host.lock(listener)?, false, listener)?;

    let packages: Vec<&str> = affected.iter().map(|affected| affected.package.as_str()).collect();
    let mut command: Vec<OsString> = Vec::new();
    if !host.root().is_running_host() {
        command.push("chroot".into());
        command.push(host.root().dir().as_os_str().to_owned());
    }
    command.extend(["apt-get", "--yes", "--reinstall", "install"].map(Into::into));
    command.extend(packages.iter().map(Into::into));
    let failed = |reason: String| ReinstallError::Apt {
        reason,
        command: hint::inside(&format!("apt-get --yes --reinstall install {}", packages.join(" "))),
    };
    match Program::new(&command[0], &command[1..]).run_shown() {
        Ok(status) if status.success() => {}
        Ok(status) => return Err(failed(format!("apt-get failed ({status})")).into()),
        Err(error) => return Err(failed(error.to_string()).into()),
    }
    // apt-get calls it success when it cannot get a package that is installed already.
    let view = host.view(listener)?;
    let is_spoilt = |file: &FileView| file.content.is_none() || file.origin == Some(Origin::Modified);
    let spoilt = shipped(&view).filter(|(.., file)| is_spoilt(file));
    let spoilt: Vec<String> = spoilt.map(|(path, ..)| format!("/{path}")).collect();
    match spoilt.is_empty() {
        true => Ok(()),
        false => Err(failed(format!(
            "apt-get did not give back {}: it cannot get the package, see what it said",
            spoilt.join(", ")
        ))
        .into()),
    }
}
