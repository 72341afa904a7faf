//! Worker threads whose results are taken in the order in which the jobs were given.
//!
//! A job is submitted together with a [`Ticket`], whose other half is a [`Pending`] result. Whoever keeps the pending results
//! in order gets the results in that order, whichever job is done first. How many jobs may be on their way is up to him:
//! the queue of jobs is bounded here, the list of pending results by its owner.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, unbounded};

/// A worker thread panicked, which is a bug. The result of its job is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a worker thread stopped unexpectedly; this is a bug")]
pub(crate) struct Lost;

/// Where a worker puts the result of a job.
pub(crate) struct Ticket<R>(Sender<R>);

/// A result that is not there yet.
pub(crate) struct Pending<R>(Receiver<R>);

/// Makes the two halves that belong to one job.
pub(crate) fn ticket<R>() -> (Ticket<R>, Pending<R>) {
    let (ticket, pending) = bounded(1);
    (Ticket(ticket), Pending(pending))
}

impl<R> Pending<R> {
    /// Waits for the result.
    ///
    /// # Errors
    /// [`Lost`] where there will be none.
    pub fn wait(self) -> Result<R, Lost> {
        self.0.recv().map_err(|_| Lost)
    }

    /// Returns the result if it is there; `None` where the job is not done yet.
    pub fn poll(&self) -> Option<Result<R, Lost>> {
        match self.0.try_recv() {
            Ok(result) => Some(Ok(result)),
            Err(TryRecvError::Disconnected) => Some(Err(Lost)),
            Err(TryRecvError::Empty) => None,
        }
    }
}

/// Worker threads. They end when this is dropped and the jobs in the queue are done.
pub(crate) struct Workers<J, R> {
    jobs: Sender<(J, Ticket<R>)>,
    threads: Vec<JoinHandle<()>>,
}

impl<J: Send + 'static, R: Send + 'static> Workers<J, R> {
    /// Starts threads that work on jobs: `threads` of them, or as many as the system grants. `waiting` is how many jobs may
    /// wait in the queue for a thread; any number, if it is none.
    ///
    /// # Errors
    /// Fails where the system does not grant a single thread.
    pub fn start(
        threads: usize,
        waiting: Option<usize>,
        work: impl Fn(J) -> R + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (jobs, taken) = waiting.map_or_else(unbounded::<(J, Ticket<R>)>, bounded);
        let work = Arc::new(work);
        let mut started = Vec::new();
        for _ in 0..threads.max(1) {
            let (taken, work) = (taken.clone(), Arc::clone(&work));
            let thread = Builder::new().name("worker".into()).spawn(move || {
                for (job, Ticket(ticket)) in taken {
                    // Where nobody waits for the result any more, the next receive ends this loop.
                    let _ = ticket.send(work(job));
                }
            });
            match thread {
                Ok(thread) => started.push(thread),
                Err(error) if started.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(Workers { jobs, threads: started })
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Gives a job to the threads. This waits where too many jobs are waiting.
    ///
    /// # Errors
    /// [`Lost`] where all threads panicked.
    pub fn submit(&self, job: J, ticket: Ticket<R>) -> Result<(), Lost> {
        self.jobs.send((job, ticket)).map_err(|_| Lost)
    }
}

impl<J, R> Workers<J, R> {
    /// Waits until all jobs are done and all threads have ended.
    pub fn join(self) {
        drop(self.jobs);
        for thread in self.threads {
            // If it panicked, whoever waited for its result knows.
            let _ = thread.join();
        }
    }
}
