//! Work done by several threads, results taken in the order the work was given.

use std::collections::VecDeque;
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, unbounded};

/// A worker thread panicked (a bug): the result is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a worker thread stopped unexpectedly; this is a bug")]
pub(super) struct Lost;

/// A job on its way, and where it comes back.
type Parcel<J> = (J, Sender<J>);

enum Pending<J> {
    Done(J),
    Away(Receiver<J>),
}

/// A queue of jobs: in at one end, out at the other when done. The job carries its input, its result and
/// whatever scratch space it needs; `work` does it in place.
///
/// The queue itself has no limit: who submits looks at [`Ordered::len`].
pub(super) struct Ordered<J> {
    work: fn(&mut J),
    queue: VecDeque<Pending<J>>,
    /// `None`: the submitting thread works.
    jobs: Option<Sender<Parcel<J>>>,
    workers: Vec<JoinHandle<()>>,
}

impl<J: Send + 'static> Ordered<J> {
    /// Starts `threads` workers. With one or none, or if the system grants none, the caller's own thread
    /// does the work.
    pub fn new(threads: usize, work: fn(&mut J)) -> Self {
        let mut workers = Vec::new();
        let (jobs, taken) = unbounded::<Parcel<J>>();
        for _ in 0..if threads > 1 { threads } else { 0 } {
            let taken = taken.clone();
            let worker = Builder::new().name("blocks".into()).spawn(move || {
                for (mut job, back) in taken {
                    work(&mut job);
                    // Nobody waits any more: the owner was dropped, and the next receive ends this loop.
                    let _ = back.send(job);
                }
            });
            match worker {
                Ok(handle) => workers.push(handle),
                Err(_) => break,
            }
        }
        let jobs = (!workers.is_empty()).then_some(jobs);
        Self { work, queue: VecDeque::new(), jobs, workers }
    }

    /// How many threads work.
    pub fn threads(&self) -> usize {
        self.workers.len().max(1)
    }

    /// Jobs submitted and not yet taken back.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn submit(&mut self, mut job: J) {
        let pending = match &self.jobs {
            None => {
                (self.work)(&mut job);
                Pending::Done(job)
            }
            Some(jobs) => {
                let (back, result) = bounded(1);
                // Fails only if all workers are gone; then `result` reports it.
                let _ = jobs.send((job, back));
                Pending::Away(result)
            }
        };
        self.queue.push_back(pending);
    }

    /// The oldest job, if it is done already.
    pub fn try_next(&mut self) -> Option<Result<J, Lost>> {
        if let Pending::Away(result) = self.queue.front()? {
            let done = match result.try_recv() {
                Ok(job) => Ok(job),
                Err(TryRecvError::Disconnected) => Err(Lost),
                Err(TryRecvError::Empty) => return None,
            };
            self.queue.pop_front();
            return Some(done);
        }
        self.next()
    }

    /// The oldest job, waiting until it is done. `None` if the queue is empty.
    pub fn next(&mut self) -> Option<Result<J, Lost>> {
        Some(match self.queue.pop_front()? {
            Pending::Done(job) => Ok(job),
            Pending::Away(result) => result.recv().map_err(|_| Lost),
        })
    }
}

impl<J> Drop for Ordered<J> {
    fn drop(&mut self) {
        // Without a sender the workers end once the jobs in the queue (few) are done.
        self.jobs = None;
        for worker in self.workers.drain(..) {
            // A panic was reported by `next` to whoever cared for the result.
            let _ = worker.join();
        }
    }
}
