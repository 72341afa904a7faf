//! `test` and `apply`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use indicatif::ProgressBar;
use serde_json::json;

use super::cluster::{self, ChangeArgs, Operation};
use super::{Host, LoadArgs, View, options};
use crate::cli::Global;
use crate::cli::exit::{Exit, Refused};
use crate::cli::say::{count as counted, println_quietly, say};
use crate::jobs::Mode;
use crate::patching::change::Change;
use crate::patching::check::{self, Checked, Modules, Outcome};
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
    /// Whose modules are loaded.
    #[command(flatten)]
    pub load: LoadArgs,
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
    /// Try the host as it would be with these package files installed
    ///
    /// For an upgrade that has not happened yet (`apt-get download PACKAGE` gets its files): they are unpacked into a
    /// temporary folder and take the place of the installed packages in all checks.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    deb: Vec<PathBuf>,
    #[command(flatten)]
    load: LoadArgs,
}

/// Checks everything `apply` depends on, without writing.
///
/// # Errors
/// What speaks against it.
pub fn test(global: &Global, args: &TestArgs) -> anyhow::Result<ExitCode> {
    if !args.deb.is_empty() {
        return super::upcoming::run(global, &args.deb, &args.load.trust()?, args.json);
    }
    let host = Host::open(global)?;
    host.settle()?;
    let view = host.view()?;
    let tested = host.plan_changes(&view).map_err(anyhow::Error::from).and_then(|(plan, changes)| {
        let checked = check(&args.load.trust()?.modules(&host.root, &[])?, &view, &changes)?;
        transaction::check_writable(&host.root, &changes)?;
        Ok((plan, changes, checked))
    });
    let (plan, changes, checked) = match tested {
        Err(error) if args.json => return print_refusal(&error),
        tested => tested?,
    };
    if args.json {
        print_json(&json!({
            "ok": true,
            "exit": 0,
            "set": plan.set.name,
            "verified": host.is_verified(&plan),
            "changes": changes.iter().map(|change| &change.path).collect::<Vec<_>>(),
            "modules": checked,
        }))?;
        return Ok(Exit::Success.into());
    }
    host.announce(&plan, &view);
    let mut out = io::stdout().lock();
    describe_all(&checked).iter().try_for_each(|line| writeln!(out, "{line}"))?;
    match changes.len() {
        0 => writeln!(out, "There is nothing to do: the host is patched.")?,
        count => {
            writeln!(out, "`apply` would change {}; nothing speaks against it.", counted(count, "file"))?
        }
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
    host.announce(&plan, &view);
    let mut checked = check(&args.load.trust()?.modules_at(&host.root)?, &view, &changes)?;
    checked.retain(|checked| checked.outcome != Outcome::Loads);
    describe_all(&checked).iter().for_each(|line| say!("warning: {line}"));
    let count = changes.len();
    changes.extend(host.record_changes(&plan, &view)?);
    changes.extend(super::hook::forget_failure(&host)?);
    session.commit("apply", &changes)?;

    match count {
        0 => println_quietly(&format!(
            "There is nothing to do: the host is patched ({} {}).",
            plan.set.name, plan.set.version
        )),
        _ => println_quietly(&format!(
            "patched {} ({} {})",
            counted(count, "file"),
            plan.set.name,
            plan.set.version
        )),
    }
    if count > 0 || recovered {
        host.reload(args.no_restart);
    }
    options::settle(&host, Mode::Keep);
    Ok(Exit::Success.into())
}

/// Loads the changed modules; broken ones become refusals.
fn check(how: &Modules, view: &View, changes: &[Change]) -> anyhow::Result<Vec<Checked>> {
    // Hidden where standard error is no terminal.
    let bar = ProgressBar::new_spinner();
    let (checked, broken) = check::files(
        how,
        &view.survey,
        changes,
        |_| true,
        |path| {
            bar.set_message(format!("checking {path}"));
            bar.tick();
        },
    )?;
    bar.finish_and_clear();
    match broken.is_empty() {
        true => Ok(checked),
        false => Err(Refused(broken).into()),
    }
}

/// The modules' outcomes, for people.
pub(super) fn describe_all(checked: &[Checked]) -> Vec<String> {
    let (left, tried): (Vec<_>, Vec<_>) =
        checked.iter().partition(|checked| checked.outcome == Outcome::NotLoaded);
    let mut lines: Vec<String> = tried.into_iter().map(describe).collect();
    if !left.is_empty() {
        lines.push(format!(
            "{} Perl modules were not loaded: their code is not the running host's, and runs only with --load-modules",
            left.len()
        ));
    }
    lines
}

fn describe(checked: &Checked) -> String {
    match &checked.outcome {
        Outcome::NotLoaded => format!("/{}: not loaded", checked.path),
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

/// What speaks against a plan, as JSON; gives its exit code.
pub(super) fn print_refusal(error: &anyhow::Error) -> anyhow::Result<ExitCode> {
    let exit = Exit::of_error(error);
    let reasons = match error.downcast_ref::<Refused>() {
        Some(Refused(refusals)) => refusals.iter().map(ToString::to_string).collect(),
        None => vec![format!("{error:#}")],
    };
    print_json(&json!({"ok": false, "exit": exit as u8, "reasons": reasons}))?;
    Ok(exit.into())
}

pub(super) fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    writeln!(io::stdout().lock(), "{value:#}")?;
    Ok(())
}
