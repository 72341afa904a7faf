//! Parallel work on a stream, in order and with bounded memory.
//!
//! One thread produces items, several threads work on them, and the caller's thread consumes the results in the order of
//! the items. At most `2 * threads + AHEAD` items are on their way, which bounds memory: each thread has one that it works on
//! and one that waits for it. On a busy machine any of the threads may have to wait long for a processor; the others have
//! something to do meanwhile. A slow consumer makes the producer wait; through the pipe that the producer reads, the guest's
//! backup job waits too.

use std::io;
use std::thread;

use crossbeam_channel::bounded;

use super::Error;
use crate::container::workers::{Workers, ticket};

/// How many items may be on their way beyond two for each thread.
const AHEAD: usize = 1;

/// Calls `produce` until it returns `None`, `work` on every item in `threads` threads, and `consume` on the results in
/// order, in this thread.
///
/// The first error ends everything and is returned at once. A producer that is blocked in a read is not waited for: its
/// thread ends with its next item, or with the process.
///
/// # Errors
/// Whatever the three functions return, and [`Error::Internal`] where one of them panicked.
pub fn ordered<T, U>(
    threads: usize,
    mut produce: impl FnMut() -> Result<Option<T>, Error> + Send + 'static,
    work: impl Fn(T) -> Result<U, Error> + Send + Sync + 'static,
    mut consume: impl FnMut(U) -> Result<(), Error>,
) -> Result<(), Error>
where
    T: Send + 'static,
    U: Send + 'static,
{
    let threads = threads.max(1);
    let workers = Workers::start(threads, Some(threads), work).map_err(no_thread)?;
    let (order, results) = bounded(2 * threads + AHEAD);
    let producer = move || -> Result<(), Error> {
        while let Some(item) = produce()? {
            let (ticket, pending) = ticket();
            // Either fails where the consumer or all workers are gone: nothing is left to do then.
            if order.send(pending).is_err() || workers.submit(item, ticket).is_err() {
                break;
            }
        }
        Ok(())
    };
    let producer = thread::Builder::new().name("reader".into()).spawn(producer).map_err(no_thread)?;

    for result in &results {
        let done = result.wait().map_err(|_| Error::Internal("a worker thread ended unexpectedly"))?;
        consume(done?)?;
    }
    producer.join().map_err(|_| Error::Internal("the reading thread ended unexpectedly"))?
}

fn no_thread(source: io::Error) -> Error {
    Error::Io { what: "cannot start a thread".into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_whatever_the_workers_do() {
        let mut next = 0u64;
        let mut seen = Vec::new();
        ordered(
            4,
            move || {
                next += 1;
                Ok((next <= 500).then_some(next))
            },
            |n| {
                // Uneven work, so that results finish out of order.
                let spins = (n * 7919) % 1000;
                Ok((n, (0..spins).fold(0u64, |a, b| std::hint::black_box(a ^ b))))
            },
            |(n, _)| {
                seen.push(n);
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(seen, (1..=500).collect::<Vec<_>>());
    }

    #[test]
    fn errors_of_each_part_come_back() {
        fn fail(at: u64, n: u64) -> Result<(), Error> {
            if n == at { Err(Error::Internal("on purpose")) } else { Ok(()) }
        }
        for (p, w, c) in [(3, 0, 0), (0, 3, 0), (0, 0, 3)] {
            let mut next = 0u64;
            let result = ordered(
                2,
                move || {
                    next += 1;
                    fail(p, next)?;
                    Ok(Some(next).filter(|&n| n < 100))
                },
                move |n| fail(w, n).map(|()| n),
                |n| fail(c, n),
            );
            assert!(matches!(result, Err(Error::Internal("on purpose"))), "{p} {w} {c}");
        }
    }

    #[test]
    fn a_panicking_worker_is_an_error() {
        let mut left = 3;
        let result = ordered(
            1,
            move || {
                left -= 1;
                Ok(Some(left).filter(|&n| n > 0))
            },
            |n: i32| if n == 1 { panic!("on purpose") } else { Ok(n) },
            |_| Ok(()),
        );
        assert!(matches!(result, Err(Error::Internal(_))));
    }
}
