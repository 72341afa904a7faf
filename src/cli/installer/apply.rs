//! `test` tries whether the host can be patched, `apply` patches it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::cluster::{self, ChangeArgs};
use super::{Console, LoadArgs, open, print_json, print_refusal};
use crate::cli::Global;
use crate::cli::exit::{Exit, Stop};
use crate::patching::check::Trust;
use crate::service::Host;
use crate::service::apply::{Tested, apply, test as try_apply};
use crate::service::check::describe;
use crate::service::cluster::Operation;
use crate::service::upcoming::Upcoming;
use crate::text::count;

/// Options of `apply`.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Answer every question with yes (asked with --cluster only)
    #[arg(short, long)]
    pub yes: bool,
    /// Do not let the services load the new code
    #[arg(long)]
    pub no_restart: bool,
    /// Which modules may be loaded.
    #[command(flatten)]
    pub load: LoadArgs,
    /// The nodes to work on.
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
    let host = open(global)?;
    let tested = match args.deb.is_empty() {
        true => test_host(&host, &args.load.trust()?, args.json),
        false => test_packages(&host, &args.deb, &args.load.trust()?, args.json),
    };
    match tested {
        Err(error) if args.json => print_refusal(&error),
        tested => tested.map(|()| Exit::Success.into()),
    }
}

/// Tries the host as it is.
fn test_host(host: &Host, trust: &Trust, json: bool) -> anyhow::Result<()> {
    let console = Console::new();
    let view = host.view(&console)?;
    let Tested { plan, changes, checked } = try_apply(host, &view, trust, &console)?;
    if json {
        return print_json(&json!({
            "ok": true,
            "exit": 0,
            "set": plan.set.name,
            "verified": host.is_verified(&plan),
            "changes": changes.iter().map(|change| &change.path).collect::<Vec<_>>(),
            "modules": checked,
        }));
    }
    host.announce(&plan, &view, &console);
    let mut out = io::stdout().lock();
    describe(&checked).iter().try_for_each(|line| writeln!(out, "{line}"))?;
    match changes.len() {
        0 => writeln!(out, "There is nothing to do: the host is patched.")?,
        number => {
            writeln!(out, "`apply` would change {}; nothing speaks against it.", count(number, "file"))?;
        }
    }
    Ok(())
}

/// Tries the host as it would be with the package files `debs` installed.
fn test_packages(host: &Host, debs: &[PathBuf], trust: &Trust, json: bool) -> anyhow::Result<()> {
    let console = Console::new();
    let upcoming = Upcoming::new(host.view(&console)?, debs)?;
    let tried = upcoming.try_out(host, trust, &console)?;
    let (plan, upgrades) = (&tried.plan, &upcoming.upgrades);
    if json {
        let verdicts = host.verified().judge(plan);
        let upgrades = upgrades.iter().map(|upgrade| {
            let from = upgrade.from.as_deref().unwrap_or_default();
            json!({"name": upgrade.package, "from": from, "to": upgrade.to})
        });
        return print_json(&json!({
            "ok": true,
            "exit": 0,
            "set": plan.set.name,
            "verified": host.is_verified(plan),
            "never_tried": verdicts.iter().flatten().flat_map(|v| &v.unknown).collect::<Vec<_>>(),
            "packages": upgrades.collect::<Vec<_>>(),
            "modules": tried.checked,
        }));
    }
    host.announce(plan, &upcoming.view, &console);
    let mut out = io::stdout().lock();
    describe(&tried.checked).iter().try_for_each(|line| writeln!(out, "{line}"))?;
    for upgrade in upgrades {
        let from = upgrade.from.as_deref().unwrap_or("not installed");
        writeln!(out, "{} {from} -> {}", upgrade.package, upgrade.to)?;
    }
    writeln!(
        out,
        "After this upgrade `apply` would give {} our lines and take them out again to the byte; nothing speaks \
         against it.",
        count(tried.files, "file")
    )?;
    Ok(())
}

/// Patches the host.
///
/// # Errors
/// What speaks against it; then nothing is changed.
pub fn run(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(change) = args.cluster.change(Operation::Apply, args.yes, args.no_restart) {
        if args.load.load_modules {
            let text = "--load-modules does not go with --cluster: each node loads its own modules anyway; leave it out";
            return Err(Stop(Exit::Usage, text.to_owned()).into());
        }
        return cluster::change(global, &change);
    }
    let (host, console) = (open(global)?, Console::new());
    apply(&host.lock(&console)?, &args.load.trust()?, !args.no_restart, &console)?;
    Ok(Exit::Success.into())
}
