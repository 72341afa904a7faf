//! Other programs: the one place that starts them.
//!
//! Each gets a time limit, after which it is killed, and only so much of what it prints is kept; the rest is read and
//! dropped, so that a program that never stops talking fills neither memory nor disk, and is never made to wait. None
//! inherits the variables by which whoever calls us could have a Perl program run code of theirs.

use std::ffi::OsString;
use std::io::{self, BufReader, PipeReader, PipeWriter, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use duct::{Expression, Handle};

/// Variables that make Perl run other code (perlrun(1)).
const PERL_VARIABLES: [&str; 4] = ["PERL5LIB", "PERLLIB", "PERL5OPT", "PERL5DB"];

/// The time limit of a program for which no other was given.
const LIMIT: Duration = Duration::from_secs(600);

/// How much of the output is kept where nothing else was given.
const KEPT: usize = 4 << 20;

/// How long to wait for the end of the output once the program has ended. What it printed is in the pipe then; only a
/// process that it left behind can still hold the other end.
const GRACE: Duration = Duration::from_secs(5);

/// A program with its arguments, and how it is to be run.
#[derive(Debug, Clone)]
pub struct Program {
    name: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    limit: Duration,
    kept: usize,
    merged: bool,
    own_group: bool,
}

/// What became of a program that ended.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub status: ExitStatus,
    /// The beginning of its standard output.
    pub out: Vec<u8>,
    /// The beginning of its standard error.
    pub err: Vec<u8>,
    /// Whether that is all it printed.
    pub whole: bool,
}

/// A program did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It could not be started.
    #[error("{program} does not start: {cause}")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        cause: io::Error,
    },
    /// It took too long and was killed.
    #[error("{program} did not end within {} s", limit.as_secs())]
    Slow {
        /// The program.
        program: String,
        /// Its limit.
        limit: Duration,
    },
}

/// Runs this program once more, with the same arguments and this variable set, and waits until that says `ready` on its
/// standard output. The result is whether it did; if not, it has ended.
///
/// # Errors
/// What the system says.
pub fn in_background(variable: &str, ready: &str) -> io::Result<bool> {
    let mut again = std::process::Command::new("/proc/self/exe");
    again.args(std::env::args_os().skip(1)).env(variable, "1");
    let mut child = again.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut said = Vec::new();
    if let Some(out) = child.stdout.take() {
        out.take(ready.len() as u64).read_to_end(&mut said)?;
    }
    if said == ready.as_bytes() {
        return Ok(true);
    }
    child.wait()?;
    Ok(false)
}

/// Leaves the terminal and the folder from which this program was started, and reads and prints nothing any more.
pub fn leave_terminal() {
    let _ = rustix::process::setsid();
    let _ = std::env::set_current_dir("/");
    if let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}

impl Program {
    /// The program `name`, which is looked for in PATH unless it has a slash.
    pub fn new<A: Into<OsString>>(name: impl Into<OsString>, arguments: impl IntoIterator<Item = A>) -> Self {
        Self {
            name: name.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            dir: None,
            limit: LIMIT,
            kept: KEPT,
            merged: false,
            own_group: false,
        }
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Runs it in the folder `dir`.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Kills it where it runs longer than `limit`.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Keeps at most `bytes` of its standard output, and as many of its standard error.
    #[must_use]
    pub fn keep(mut self, bytes: usize) -> Self {
        self.kept = bytes;
        self
    }

    /// Puts what it prints on standard error among its standard output, in the order in which it comes.
    #[must_use]
    pub fn merged(mut self) -> Self {
        self.merged = true;
        self
    }

    /// Gives it a process group of its own, so that a Ctrl-C on our terminal does not end it.
    #[must_use]
    pub fn in_own_group(mut self) -> Self {
        self.own_group = true;
        self
    }

    /// Runs it to its end, with nothing to read on standard input.
    ///
    /// # Errors
    /// [`ProgramError`]; that it fails is none.
    pub fn run(&self) -> Result<Ran, ProgramError> {
        self.capture(self.command().stdin_null())
    }

    /// Runs it to its end, with `input` on standard input.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn run_with(&self, input: impl Into<Vec<u8>>) -> Result<Ran, ProgramError> {
        self.capture(self.command().stdin_bytes(input))
    }

    /// Runs it to its end while `feed` writes to its standard input. The second result is that of `feed`, which fails where the
    /// program reads no more. The limit begins when everything is written.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn run_fed(
        &self,
        feed: impl FnOnce(&mut PipeWriter) -> io::Result<()>,
    ) -> Result<(Ran, io::Result<()>), ProgramError> {
        let (input, mut requests) = io::pipe().map_err(|cause| self.start_error(cause))?;
        let started =
            self.start(self.command().stdin_file(input)).map_err(|cause| self.start_error(cause))?;
        let fed = feed(&mut requests);
        drop(requests);
        Ok((self.wait(started)?, fed))
    }

    /// Runs it for the person who watches: it reads and writes where we do. Nothing is kept, and there is no limit, since
    /// that person can end it, and knows better than we do what may be killed in its middle.
    ///
    /// # Errors
    /// [`ProgramError::Start`]
    pub fn run_shown(&self) -> Result<ExitStatus, ProgramError> {
        let ran = self.command().unchecked().run();
        ran.map(|output| output.status).map_err(|cause| self.start_error(cause))
    }

    /// Starts it as a partner that answers requests as long as we keep it. The limit is that of one request.
    ///
    /// # Errors
    /// [`ProgramError::Start`]
    pub fn converse(&self) -> Result<Conversation, ProgramError> {
        self.try_converse().map_err(|cause| self.start_error(cause))
    }

    fn try_converse(&self) -> io::Result<Conversation> {
        let (input, requests) = io::pipe()?;
        let (answers, output) = io::pipe()?;
        let (errors, error_output) = io::pipe()?;
        // The expression holds our copies of the other ends, and ends with this statement.
        let started = self
            .command()
            .stdin_file(input)
            .stdout_file(output)
            .stderr_file(error_output)
            .unchecked()
            .start();
        let handle = Arc::new(started?);
        let (turns, watched) = mpsc::channel();
        let (killed, limit) = (Arc::clone(&handle), self.limit);
        thread::spawn(move || watch(&killed, watched, limit));
        Ok(Conversation {
            handle,
            requests,
            answers: BufReader::new(answers),
            said: Kept::of(errors, self.kept),
            turns,
        })
    }

    fn command(&self) -> Expression {
        let mut command = duct::cmd(&self.name, &self.arguments);
        for (name, value) in &self.environment {
            command = command.env(name, value);
        }
        if let Some(dir) = &self.dir {
            command = command.dir(dir);
        }
        if self.own_group {
            command = command.before_spawn(|command| {
                command.process_group(0);
                Ok(())
            });
        }
        // The outermost wrapper is applied first, so that one of these that was set here stays.
        PERL_VARIABLES.iter().fold(command, |command, name| command.env_remove(name))
    }

    fn capture(&self, command: Expression) -> Result<Ran, ProgramError> {
        let started = self.start(command).map_err(|cause| self.start_error(cause))?;
        self.wait(started)
    }

    fn wait(&self, (handle, out, err): (Handle, Kept, Option<Kept>)) -> Result<Ran, ProgramError> {
        let status = match handle.wait_timeout(self.limit) {
            Ok(Some(output)) => output.status,
            Ok(None) => {
                let _ = handle.kill();
                return Err(ProgramError::Slow { program: self.shown(), limit: self.limit });
            }
            Err(cause) => return Err(self.start_error(cause)),
        };
        let (out, out_whole) = out.take();
        let (err, err_whole) = err.map_or((Vec::new(), true), Kept::take);
        Ok(Ran { status, out, err, whole: out_whole && err_whole })
    }

    /// Starts it with its output in pipes, and lets go of our copies of their ends.
    fn start(&self, command: Expression) -> io::Result<(Handle, Kept, Option<Kept>)> {
        let (out, output) = io::pipe()?;
        let (command, err) = match self.merged {
            true => (command.stderr_file(output.try_clone()?), None),
            false => {
                let (err, output) = io::pipe()?;
                (command.stderr_file(output), Some(err))
            }
        };
        let handle = command.stdout_file(output).unchecked().start()?;
        Ok((handle, Kept::of(out, self.kept), err.map(|err| Kept::of(err, self.kept))))
    }

    fn start_error(&self, cause: io::Error) -> ProgramError {
        ProgramError::Start { program: self.shown(), cause }
    }

    fn shown(&self) -> String {
        self.name.to_string_lossy().into_owned()
    }
}

impl Ran {
    /// Whether it ended with exit code 0.
    pub fn succeeded(&self) -> bool {
        self.status.success()
    }

    /// Its standard output as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// Its standard error as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.err).into_owned()
    }
}

/// The beginning of what comes out of a pipe, gathered by a thread that reads all of it.
struct Kept {
    bytes: Arc<Mutex<(Vec<u8>, bool)>>,
    end: Receiver<()>,
}

impl Kept {
    fn of(mut pipe: PipeReader, most: usize) -> Self {
        let bytes = Arc::new(Mutex::new((Vec::new(), true)));
        let (ended, end) = mpsc::channel();
        let into = Arc::clone(&bytes);
        thread::spawn(move || {
            let mut part = vec![0; 64 << 10];
            while let Ok(n @ 1..) = pipe.read(&mut part) {
                let mut kept = into.lock().unwrap_or_else(PoisonError::into_inner);
                let room = (most - kept.0.len()).min(n);
                kept.0.extend_from_slice(&part[..room]);
                kept.1 &= room == n;
            }
            let _ = ended.send(());
        });
        Self { bytes, end }
    }

    /// What was kept once the program has ended, and whether that is all.
    fn take(self) -> (Vec<u8>, bool) {
        let ended = self.end.recv_timeout(GRACE).is_ok();
        let (bytes, whole) = std::mem::take(&mut *self.bytes.lock().unwrap_or_else(PoisonError::into_inner));
        (bytes, whole && ended)
    }
}

/// A program that answers requests. It is killed at the end of this.
pub struct Conversation {
    handle: Arc<Handle>,
    requests: PipeWriter,
    answers: BufReader<PipeReader>,
    said: Kept,
    /// Tells the watching thread of the begin and the end of each request.
    turns: Sender<()>,
}

impl Conversation {
    /// Lets `talk` write one request and read its answer.
    ///
    /// # Errors
    /// Those of `talk`, with what the program said on standard error; `TimedOut` where the answer took too long.
    pub fn ask<T>(
        &mut self,
        talk: impl FnOnce(&mut PipeWriter, &mut BufReader<PipeReader>) -> io::Result<T>,
    ) -> io::Result<T> {
        let turn = |turns: &Sender<()>| turns.send(()).map_err(|_| io::Error::from(io::ErrorKind::TimedOut));
        turn(&self.turns)?;
        let answer = talk(&mut self.requests, &mut self.answers);
        turn(&self.turns)?;
        answer.map_err(|error| {
            let said = self.said.bytes.lock().unwrap_or_else(PoisonError::into_inner);
            match String::from_utf8_lossy(&said.0).trim() {
                "" => error,
                said => io::Error::new(error.kind(), format!("{error}: {said}")),
            }
        })
    }
}

impl std::fmt::Debug for Conversation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conversation").finish_non_exhaustive()
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        let _ = self.handle.kill();
    }
}

/// Kills the program whose answer takes longer than `limit`.
fn watch(handle: &Handle, turns: Receiver<()>, limit: Duration) {
    while turns.recv().is_ok() {
        match turns.recv_timeout(limit) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => {
                // First, so that the end of the answer finds it gone.
                drop(turns);
                let _ = handle.kill();
                return;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, Write};

    fn sh(script: &str) -> Program {
        Program::new("sh", ["-c", script])
    }

    #[test]
    fn output_is_bounded_and_never_waited_for() {
        let ran = sh("head -c 5000000 /dev/zero; echo no >&2; exit 3").keep(1000).run().unwrap();
        assert_eq!(
            (ran.status.code(), ran.out.len(), ran.err(), ran.whole),
            (Some(3), 1000, "no\n".into(), false)
        );
        let ran = sh("echo a; echo b >&2").merged().run().unwrap();
        assert_eq!((ran.out(), ran.whole), ("a\nb\n".into(), true));
        assert_eq!(sh("kill -9 $$").run().unwrap().status.code(), None);
    }

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let slow = Program::new("sleep", ["1000"]).limit(Duration::from_millis(10));
        assert!(matches!(slow.run(), Err(ProgramError::Slow { .. })));
        assert!(matches!(slow.in_own_group().run(), Err(ProgramError::Slow { .. })));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = Program::new("/nonexistent/program", ["x"]).run().unwrap_err();
        assert!(error.to_string().starts_with("/nonexistent/program does not start: "), "{error}");
    }

    #[test]
    fn it_reads_what_it_is_given_and_inherits_no_perl_variables() {
        assert_eq!(sh("cat").run_with("input").unwrap().out(), "input");
        let all = sh("echo \"$PERL5LIB$A\"").env("PERL5LIB", "lib:").env("A", "a").run().unwrap();
        assert_eq!(all.out(), "lib:a\n");
        assert_eq!(sh("pwd").dir("/").run().unwrap().out(), "/\n");
    }

    #[test]
    fn a_conversation_ends_where_an_answer_takes_too_long() {
        let ask = |conversation: &mut Conversation, word: &str| {
            conversation.ask(|requests, answers| {
                requests.write_all(format!("{word}\n").as_bytes())?;
                let mut line = String::new();
                match answers.read_line(&mut line)? {
                    0 => Err(io::ErrorKind::UnexpectedEof.into()),
                    _ => Ok(line),
                }
            })
        };
        let mut echo =
            sh("while read word; do [ $word != fail ] || { echo why >&2; exit; }; echo $word; done");
        echo = echo.limit(Duration::from_secs(60));
        let mut conversation = echo.converse().unwrap();
        assert_eq!(ask(&mut conversation, "one").unwrap(), "one\n");
        assert_eq!(ask(&mut conversation, "two").unwrap(), "two\n");
        ask(&mut conversation, "fail").unwrap_err();
        let mut silent = sh("exec sleep 1000").limit(Duration::from_millis(10)).converse().unwrap();
        assert_eq!(ask(&mut silent, "one").unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
