//! Checks backups, those of several chains at the same time if that is wanted.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Args;
use super::arguments::Found;
use super::finding::Finding;
use super::notes::Notes;
use super::report::Report;
use super::schedule::ERROR;
use super::throttle::Throttle;
use super::unpacking::Unpacking;
use crate::backup::lockstep::{Lockstep, Stream};
use crate::backup::verified::{Outcome, Subject};
use crate::backup::verify::{ChainId, Open, Opened, Source, Task, Verdict, check};
use crate::cli::archive;
use crate::cli::progress::Progress;
use crate::cli::say::chat;
use crate::container;
use crate::matching::restore::SharedBase;

/// The most differentials of one full that are checked at the same time. Each takes some 30 MiB of memory.
const TOGETHER: usize = 8;

/// A backup to check, with its number among all and the bytes that it probably holds.
struct Work {
    task: Task,
    number: usize,
    size: u64,
}

/// What is known of a backup before it is checked alone, if it has to be.
struct Begun<'a> {
    /// The files that are read.
    before: Option<Subject>,
    /// An earlier result that still holds.
    known: Option<&'a Outcome>,
    /// What was found together with others, if that was good.
    good: Option<Verdict>,
    /// The bytes that the progress bar still expects.
    left: AtomicU64,
    start: Instant,
    /// The time that the check beside others took.
    took: Duration,
}

/// What the jobs of a run share.
struct Run<'a> {
    open: Open<'a>,
    json: bool,
    /// Whether the journal takes the lines.
    scheduled: bool,
    notes: &'a Notes,
    /// Looks at what restores give, if that is wanted.
    unpacking: Option<Unpacking>,
    throttle: Throttle,
    progress: Progress,
    /// The number of all backups.
    of: usize,
    report: Mutex<Report>,
}

/// Checks backups and prints a line for each as soon as its result is known. Each job takes one chain after the other.
pub(super) fn all(found: Found, args: &Args, notes: &Notes) -> anyhow::Result<Report> {
    let Found { work, left: unfinished, refused, .. } = found;
    let of = work.len();
    let work = work.into_iter().zip(1..).map(|(task, number)| Work { size: expected(&task), task, number });
    let work: Vec<Work> = work.collect();
    let sizes = work.iter().map(|it| it.size).sum();
    let chains = by_chain(work);
    let jobs = usize::try_from(args.jobs)?.min(chains.len()).max(1);
    let threads = (archive::processors() / jobs).max(1);
    let run = Run {
        open: &move |path, base| archive::open_with(path, base, threads),
        json: args.json,
        scheduled: args.scheduled,
        notes,
        unpacking: args.restore.then(|| Unpacking::new(args)),
        throttle: Throttle::new(args.bwlimit),
        progress: Progress::new(!args.quiet, Some(sizes)),
        of,
        report: Mutex::new(Report::new(unfinished, refused)),
    };
    let left = Mutex::new(chains.into_iter());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work_off = || -> anyhow::Result<()> {
        while let Some(chain) = next() {
            run.check_chain(&chain)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        // This thread is one of the jobs.
        let others: Vec<_> = (1..jobs).map(|_| scope.spawn(work_off)).collect();
        let first = work_off();
        others.into_iter().fold(first, |result, other| {
            let ended = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result.and(ended)
        })
    })?;
    run.progress.end();
    Ok(run.report.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Puts backups that need the same full, and this full, into one group each. The groups and their members stay in order.
fn by_chain(work: Vec<Work>) -> Vec<Vec<Work>> {
    let mut groups: Vec<Vec<Work>> = Vec::new();
    let mut known: HashMap<ChainId, usize> = HashMap::new();
    for work in work {
        let chain = work.task.source.as_ref().ok().map(|source| source.chain.clone());
        let at = chain.map_or(groups.len(), |chain| *known.entry(chain).or_insert(groups.len()));
        if at == groups.len() {
            groups.push(Vec::new());
        }
        groups[at].push(work);
    }
    groups
}

impl Run<'_> {
    /// Checks the backups of one chain, and tells the results in their order. Differentials are checked several at a time, so
    /// that their full is read once for all of them.
    fn check_chain(&self, chain: &[Work]) -> anyhow::Result<()> {
        let is_due = |work: &Work| {
            let source = work.task.source.as_ref().ok().filter(|source| source.base.is_some());
            let subject = source.and_then(Source::subject);
            source.is_some() && self.notes.good_before(subject.as_ref(), self.unpacking.is_some()).is_none()
        };
        let mut left = chain;
        while let Some(first) = left.first() {
            let together = left.iter().take(TOGETHER).take_while(|work| is_due(work)).count();
            let (now, later) = left.split_at(together.max(1));
            left = later;
            let full = first.task.source.as_ref().ok().and_then(|source| source.base.as_deref());
            match full.filter(|_| now.len() > 1).and_then(archive::open_shared) {
                Some(full) => self.check_together(now, &full)?,
                None => now.iter().try_for_each(|work| self.tell(self.check(work)))?,
            }
        }
        Ok(())
    }

    /// Checks differentials of one full at the same time. One that is not found good is checked once more alone, so that
    /// nothing that they share can be to blame; and one after another, as each alone takes memory for itself.
    fn check_together(&self, together: &[Work], full: &Arc<SharedBase>) -> anyhow::Result<()> {
        let streams = Lockstep::streams(together.len());
        let begun: Vec<Begun<'_>> = thread::scope(|scope| {
            let begin = |(work, stream)| scope.spawn(move || self.begin_together(work, full, stream));
            let checks: Vec<_> = together.iter().zip(streams).map(begin).collect();
            let ended = checks.into_iter().map(thread::ScopedJoinHandle::join);
            ended.map(|it| it.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        together.iter().zip(begun).try_for_each(|(work, begun)| self.tell(self.end(work, begun)))
    }

    /// Checks one backup beside others of this full.
    fn begin_together(&self, work: &Work, full: &Arc<SharedBase>, stream: Stream) -> Begun<'_> {
        let mut begun = self.begin(work);
        if begun.known.is_some() {
            return begun;
        }
        let stream = Mutex::new(Some(stream));
        let open = |path: &Path, _: Option<&Path>| -> anyhow::Result<Opened> {
            // Where it is read once more, the others are not waited for.
            let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
            let wait = move |at| stream.iter().for_each(|stream| stream.reached(at));
            Ok(Box::new(full.open(path, wait)?))
        };
        let verdict = check(&work.task, &open, self.unpacking.is_some(), &|n| self.count(&begun.left, n));
        begun.good = Some(verdict).filter(|it| matches!(it, Verdict::Good { .. }));
        begun.took = begun.start.elapsed();
        begun
    }

    /// Checks one backup alone.
    fn check(&self, work: &Work) -> Finding {
        self.end(work, self.begin(work))
    }

    fn begin(&self, Work { task, number, size }: &Work) -> Begun<'_> {
        self.progress.at(&task.name, Some((*number, self.of)));
        let before = task.source.as_ref().ok().and_then(Source::subject);
        let known = self.notes.good_before(before.as_ref(), self.unpacking.is_some());
        Begun {
            before,
            known,
            good: None,
            left: AtomicU64::new(*size),
            start: Instant::now(),
            took: Duration::ZERO,
        }
    }

    /// Checks alone what was not found good yet, and makes the finding.
    fn end(&self, Work { task, number, .. }: &Work, begun: Begun<'_>) -> Finding {
        let Begun { before, known, good, left, took, .. } = begun;
        let look = self.unpacking.is_some();
        let finding = match known {
            Some(outcome) => Finding::skipped(task, outcome, look),
            None => {
                let start = Instant::now();
                let verdict = good.unwrap_or_else(|| {
                    self.progress.at(&task.name, Some((*number, self.of)));
                    check(task, self.open, look, &|n| self.count(&left, n))
                });
                let mut finding = Finding::new(task, verdict, took + start.elapsed());
                if let Some(unpacking) = &self.unpacking {
                    unpacking.go_on(task, &mut finding, self.open);
                }
                let after = task.source.as_ref().ok().and_then(Source::subject);
                self.notes.add(before.as_ref(), after.as_ref(), &finding);
                finding
            }
        };
        self.advance(&left, u64::MAX);
        finding
    }

    /// Notes that bytes of a backup were read, and waits where that was too fast.
    fn count(&self, left: &AtomicU64, n: u64) {
        self.advance(left, n);
        self.throttle.passed(n);
    }

    /// Moves the bar on. The expected length is an estimate: the bar of a larger backup stays at its end until the backup is
    /// done.
    fn advance(&self, left: &AtomicU64, n: u64) {
        let less = |left: u64| Some(left.saturating_sub(n));
        let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        self.progress.add(before.unwrap_or(0).min(n));
    }

    fn tell(&self, finding: Finding) -> anyhow::Result<()> {
        let line = match self.json {
            true => serde_json::to_string(&finding)?,
            false if self.scheduled && finding.result == "failed" => format!("{ERROR}{}", finding.line()),
            false => finding.line(),
        };
        // Whoever holds the report prints, so that lines stay lines.
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.count(finding);
        self.progress.suspend(|| chat(&mut io::stdout(), format!("{line}\n").as_bytes()))
    }
}

/// Estimates how many bytes a backup holds: as many as its full backup, if that file tells, else twice the length of
/// that file.
fn expected(task: &Task) -> u64 {
    let Ok(source) = &task.source else { return 0 };
    let file = source.base.as_ref().unwrap_or(&source.path);
    let own = || file.metadata().map_or(0, |metadata| metadata.len() * 2);
    container::content_size(file).unwrap_or_else(own)
}
