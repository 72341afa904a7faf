//! `test` and `apply`.

use std::io::{self, Write};
use std::process::ExitCode;

use indicatif::ProgressBar;
use serde_json::json;

use super::cluster::{self, ChangeArgs, Operation};
use super::{Host, View, println_quietly};
use crate::cli::Global;
use crate::cli::exit::{Exit, Refused};
use crate::host::Origin;
use crate::patching::check::{self, Checked, Outcome};
use crate::patching::plan::{Change, Plan};
use crate::patching::transaction;

/// Options of `apply`.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Answer every question with yes (asked with --cluster only)
    #[arg(short, long)]
    pub yes: bool,
    /// Do not let the services load the new code
    #[arg(long)]
    pub no_restart: bool,
    /// On which nodes.
    #[command(flatten)]
    pub cluster: ChangeArgs,
}

/// Options of `test`.
#[derive(Debug, clap::Args)]
pub struct TestArgs {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Checks everything `apply` depends on, without writing.
///
/// # Errors
/// What speaks against it.
pub fn test(global: &Global, args: &TestArgs) -> anyhow::Result<ExitCode> {
    let host = Host::open(global)?;
    host.settle()?;
    let view = host.view()?;
    let tested = host.plan_changes(&view).map_err(anyhow::Error::from).and_then(|(plan, changes)| {
        let checked = check(&host, &view, &changes)?;
        transaction::check_writable(&host.root, &changes)?;
        Ok((plan, changes, checked))
    });
    let (plan, changes, checked) = match tested {
        Err(error) if args.json => {
            let exit = Exit::of_error(&error);
            let reasons = match error.downcast_ref::<Refused>() {
                Some(Refused(refusals)) => refusals.iter().map(ToString::to_string).collect(),
                None => vec![format!("{error:#}")],
            };
            print_json(&json!({"ok": false, "exit": exit as u8, "reasons": reasons}))?;
            return Ok(exit.into());
        }
        tested => tested?,
    };
    if args.json {
        print_json(&json!({
            "ok": true,
            "exit": 0,
            "set": plan.set.name,
            "verified": plan.unverified.is_empty(),
            "changes": changes.iter().map(|change| &change.path).collect::<Vec<_>>(),
            "modules": checked,
        }))?;
        return Ok(Exit::Success.into());
    }
    announce(&plan);
    let mut out = io::stdout().lock();
    for checked in &checked {
        writeln!(out, "{}", describe(checked))?;
    }
    match changes.len() {
        0 => writeln!(out, "There is nothing to do: the host is patched.")?,
        count => writeln!(out, "`apply` would change {count} files; nothing speaks against it.")?,
    }
    Ok(Exit::Success.into())
}

/// Patches the host.
///
/// # Errors
/// What speaks against it; then nothing is changed.
pub fn run(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(change) = args.cluster.change(Operation::Apply, args.yes, args.no_restart) {
        return cluster::change(global, &change);
    }
    let host = Host::open(global)?;
    let (session, recovered) = host.session()?;
    let view = host.view()?;
    let (plan, mut changes) = host.plan_changes(&view)?;
    announce(&plan);
    let checked = check(&host, &view, &changes)?;
    for checked in checked.iter().filter(|checked| checked.outcome != Outcome::Loads) {
        eprintln!("warning: {}", describe(checked));
    }
    let count = changes.len();
    changes.extend(host.record_changes(&plan, &view)?);
    changes.extend(super::hook::note(&host, None)?);
    session.commit("apply", &changes)?;

    match count {
        0 => println_quietly(&format!(
            "There is nothing to do: the host is patched ({} {}).",
            plan.set.name, plan.set.version
        )),
        _ => println_quietly(&format!("patched {count} files ({} {})", plan.set.name, plan.set.version)),
    }
    if count > 0 || recovered {
        host.reload(args.no_restart);
    }
    Ok(Exit::Success.into())
}

/// Says what must not go unnoticed before anything is written.
fn announce(plan: &Plan) {
    for (package, version, verified) in &plan.unverified {
        eprintln!(
            "warning: unverified: {package} {version} is not among the releases this patch set was verified with \
             ({verified}). Its files match, so it will most likely work: test a backup and a restore."
        );
    }
    for (package, hunks) in &plan.skipped {
        eprintln!("{package} is not installed: left out: {}", hunks.join(", "));
    }
    for file in plan.files.iter().filter(|file| file.origin == Some(Origin::Modified)) {
        let diverted =
            file.diverted_to.as_ref().map(|to| format!(" (dpkg-divert: the package's own file is /{to})"));
        eprintln!(
            "warning: /{}: somebody else edited it{}; these edits stay",
            file.path,
            diverted.unwrap_or_default()
        );
    }
}

/// Loads the changed modules; broken ones become refusals.
fn check(host: &Host, view: &View, changes: &[Change]) -> anyhow::Result<Vec<Checked>> {
    // Hidden where standard error is no terminal.
    let bar = ProgressBar::new_spinner();
    let (checked, broken) = check::modules(&host.root, &view.survey, changes, |path| {
        bar.set_message(format!("checking {path}"));
        bar.tick();
    })?;
    bar.finish_and_clear();
    match broken.is_empty() {
        true => Ok(checked),
        false => Err(Refused(broken).into()),
    }
}

fn describe(checked: &Checked) -> String {
    match &checked.outcome {
        Outcome::Loads => format!("/{}: loads", checked.path),
        Outcome::Compiles(reason) => format!(
            "/{}: compiles, but could not be loaded, as it cannot without our lines either: {reason}",
            checked.path
        ),
        Outcome::NotCheckable(reason) => {
            format!(
                "/{}: could not be checked, as it does not load without our lines either: {reason}",
                checked.path
            )
        }
    }
}

fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    writeln!(io::stdout().lock(), "{value:#}")?;
    Ok(())
}
