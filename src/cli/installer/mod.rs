//! The commands that deal with a host's files: their arguments and what they print. What they do is in
//! [`crate::service`].

pub mod apply;
pub mod cluster;
pub mod doctor;
pub mod hook;
pub mod new_version;
pub mod preview;
pub mod reinstall;
pub mod revert;
pub mod status;

use std::io::{self, Write};
use std::process::ExitCode;

use indicatif::ProgressBar;
use serde_json::json;

use super::Global;
use super::exit::{Exit, Stop};
use crate::cli::say::{println_quietly, say};
use crate::patching::check::Trust;
use crate::service::{Host, Listener, Refused};

/// Whether code of a host that is not the running one may run.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct LoadArgs {
    /// With --root or package files: also load the changed Perl modules, which runs their code
    ///
    /// Loading a module is the sharpest check, and runs what the module and all it uses hold, as the user who calls this. The
    /// modules of the running host are always loaded: their code runs anyway. Those below another root, and those of package
    /// files, are loaded only with this option. Give it where you would run programs of that host or package, too. Without
    /// it, the lines that ours hang on must be there exactly once, in code, and all else is checked as ever.
    #[arg(long)]
    pub load_modules: bool,
    /// With --load-modules: let Perl look for modules in DIR first
    ///
    /// For stand-ins of what is missing there. PERL5LIB and the like are not passed on to Perl.
    #[arg(long, value_name = "DIR", requires = "load_modules")]
    pub perl_lib: Vec<std::path::PathBuf>,
}

impl LoadArgs {
    /// What perl may do.
    ///
    /// # Errors
    /// Where a folder's absolute path cannot be told.
    fn trust(&self) -> anyhow::Result<Trust> {
        let libs = self.perl_lib.iter().map(std::path::absolute).collect::<Result<_, _>>()?;
        Ok(Trust { foreign: self.load_modules, libs })
    }
}

/// The host that the global options speak of.
fn open(global: &Global) -> anyhow::Result<Host> {
    Host::open(&global.root, global.patches.as_deref())
}

/// Prints what a service tells while it works.
struct Console {
    // Hidden where standard error is no terminal.
    bar: ProgressBar,
}

impl Console {
    fn new() -> Self {
        Self { bar: ProgressBar::new_spinner() }
    }
}

impl Listener for Console {
    fn done(&self, text: &str) {
        println_quietly(text);
    }

    fn warn(&self, text: &str) {
        say!("{text}");
    }

    fn working(&self, at: Option<&str>) {
        match at {
            Some(at) => {
                self.bar.set_message(at.to_owned());
                self.bar.tick();
            }
            None => self.bar.finish_and_clear(),
        }
    }
}

/// Asks a question that can be answered with yes or no. `yes` answers it; without a terminal nobody can.
fn confirmed(question: &str, yes: bool) -> anyhow::Result<()> {
    use std::io::IsTerminal;
    if yes {
        return Ok(());
    }
    let stop = |text: &str| Err(Stop(Exit::Declined, text.to_owned()).into());
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return stop(
            "there is no terminal to ask on: nothing was changed; give --yes to go ahead without a question",
        );
    }
    match dialoguer::Confirm::new().with_prompt(question).default(false).interact()? {
        true => Ok(()),
        false => stop("nothing was changed"),
    }
}

/// Prints what speaks against a plan as JSON; gives its exit code.
fn print_refusal(error: &anyhow::Error) -> anyhow::Result<ExitCode> {
    let exit = Exit::of_error(error);
    let reasons = match error.downcast_ref::<Refused>() {
        Some(Refused(refusals)) => refusals.iter().map(ToString::to_string).collect(),
        None => vec![format!("{error:#}")],
    };
    print_json(&json!({"ok": false, "exit": exit as u8, "reasons": reasons}))?;
    Ok(exit.into())
}

fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    writeln!(io::stdout().lock(), "{value:#}")?;
    Ok(())
}
