//! `reinstall`: the affected packages anew from apt, for a host whose files are past repair.

use std::collections::BTreeMap;
use std::process::ExitCode;

use super::{Host, confirmed, println_quietly};
use crate::cli::Global;
use crate::cli::exit::{Exit, Stop};
use crate::host::{Origin, hint, without_perl_variables};
use crate::patching::survey::FileView;

/// Options of `reinstall`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Answer every question with yes
    #[arg(short, long)]
    pub yes: bool,
}

/// Reverts what can be reverted, then lets apt install the same versions of the packages whose files we patch.
///
/// In this order, so that our own package's trigger, which apt sets off, finds a host that is not to be patched.
/// With another root, apt of that root is run in it (chroot).
///
/// # Errors
/// Declined, or apt-get failed.
pub fn run(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let host = Host::open(global)?;
    host.settle()?;
    let view = host.view()?;
    let mut affected: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    // Files that only other releases ship are not missing here.
    let is_of_package = |file: &FileView| file.listed || file.content.is_some();
    for (path, file) in view.survey.files.iter().filter(|(_, file)| is_of_package(file)) {
        let Some(package) = file.package.as_deref().filter(|name| view.survey.packages.contains_key(*name))
        else {
            continue;
        };
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
        let text = "no package of Proxmox VE is installed here: nothing to reinstall";
        return Err(Stop(Exit::NotInstalled, text.to_owned()).into());
    }
    println_quietly(
        "These packages are installed anew, in the version they have; edits of these files are lost:",
    );
    let mut wanted = Vec::new();
    for (package, files) in &affected {
        let version = &view.survey.packages[*package].version;
        println_quietly(&format!("  {package}={version}"));
        files.iter().for_each(|file| println_quietly(&format!("    {file}")));
        wanted.push(format!("{package}={version}"));
    }
    // apt of another root runs that root's own programs: that too is asked first.
    confirmed("Go on?", args.yes)?;
    super::revert::revert(&host)?;

    let mut command = Vec::new();
    if !host.root.is_running_host() {
        command.push("chroot".into());
        command.push(host.root.dir().as_os_str().to_owned());
    }
    command.extend(["apt-get", "--yes", "--reinstall", "install"].map(Into::into));
    command.extend(wanted.iter().map(Into::into));
    let line = hint::inside(&format!("apt-get --yes --reinstall install {}", wanted.join(" ")));
    let failed = |reason: String| {
        let text = format!("{reason}\nOur lines are out. Put the cause right, then run by hand: {line}");
        Err(Stop(Exit::Apt, text).into())
    };
    match without_perl_variables(duct::cmd(&command[0], &command[1..])).unchecked().run() {
        Ok(output) if output.status.success() => {}
        Ok(output) => return failed(format!("apt-get failed ({})", output.status)),
        Err(error) => return failed(format!("{} does not start: {error}", command[0].to_string_lossy())),
    }
    // apt-get calls it success when it cannot get a package that is installed already.
    let view = host.view()?;
    let spoilt: Vec<String> = view
        .survey
        .files
        .iter()
        .filter(|(_, file)| is_of_package(file))
        .filter(|(_, file)| file.package.as_ref().is_some_and(|name| view.survey.packages.contains_key(name)))
        .filter(|(_, file)| file.content.is_none() || file.origin == Some(Origin::Modified))
        .map(|(path, _)| format!("/{path}"))
        .collect();
    if !spoilt.is_empty() {
        return failed(format!(
            "apt-get did not give back {}: it cannot get the package, see what it said",
            spoilt.join(", ")
        ));
    }
    println_quietly(&format!(
        "All files are as Proxmox ships them. To patch them again: {}",
        hint::ours("apply")
    ));
    Ok(Exit::Success.into())
}
