//! A queue of jobs that several threads work on: in at one end, out at the other end when done.

use std::collections::VecDeque;

use super::workers::{Lost, Pending, Workers, ticket};

/// A job in the queue.
enum Job<J> {
    /// It is done.
    Done(J),
    /// A thread has it, or will have it.
    Away(Pending<J>),
}

/// A queue of jobs. Jobs are taken out in the order in which they were put in. A job carries its input, its result and
/// whatever memory it needs.
///
/// The queue itself has no limit: whoever submits looks at [`Ordered::len`].
pub(super) struct Ordered<J> {
    work: fn(&mut J),
    queue: VecDeque<Job<J>>,
    /// `None` where the submitting thread works itself.
    workers: Option<Workers<J, J>>,
}

impl<J: Send + 'static> Ordered<J> {
    /// Starts `threads` threads. With one or none, or if the system grants none, the caller's own thread does the work.
    pub fn new(threads: usize, work: fn(&mut J)) -> Self {
        let worker = move |mut job: J| {
            work(&mut job);
            job
        };
        let workers = (threads > 1).then(|| Workers::start(threads, None, worker).ok()).flatten();
        Self { work, queue: VecDeque::new(), workers }
    }

    /// How many threads work.
    pub fn threads(&self) -> usize {
        self.workers.as_ref().map_or(1, Workers::threads)
    }

    /// How many jobs were submitted and not taken back yet.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Puts a job in.
    pub fn submit(&mut self, mut job: J) {
        let entry = match &self.workers {
            None => {
                (self.work)(&mut job);
                Job::Done(job)
            }
            Some(workers) => {
                let (ticket, pending) = ticket();
                // Where this fails, `pending` says so too.
                let _ = workers.submit(job, ticket);
                Job::Away(pending)
            }
        };
        self.queue.push_back(entry);
    }

    /// Takes the oldest job out, if it is done already.
    pub fn try_next(&mut self) -> Option<Result<J, Lost>> {
        if let Job::Away(pending) = self.queue.front()? {
            let done = pending.poll()?;
            self.queue.pop_front();
            return Some(done);
        }
        self.next()
    }

    /// Takes the oldest job out, and waits until it is done. The result is `None` if the queue is empty.
    pub fn next(&mut self) -> Option<Result<J, Lost>> {
        Some(match self.queue.pop_front()? {
            Job::Done(job) => Ok(job),
            Job::Away(pending) => pending.wait(),
        })
    }
}

impl<J> Drop for Ordered<J> {
    fn drop(&mut self) {
        // Few jobs are in the queue, so this does not take long.
        if let Some(workers) = self.workers.take() {
            workers.join();
        }
    }
}
