//! Ordered parallel work with bounded memory.
//!
//! One thread produces items, several work on them, the caller's thread consumes the results in the
//! order of production. At most `threads + AHEAD` items are under way, two of them not begun, which bounds memory: a slow
//! consumer stops the producer (and through the pipe it reads, the guest's backup job).

use std::sync::Arc;
use std::thread;

use crossbeam_channel::bounded;

use super::Error;

/// Items that may wait beyond those being worked on.
const AHEAD: usize = 1;

/// Runs `produce` until it returns `None`, `work` on every item in `threads` threads, and `consume`
/// on the results in order, on this thread.
///
/// The first error ends everything and is returned at once, without waiting for a producer that is
/// blocked in a read: its thread ends with the process, or with its next item.
///
/// # Errors
/// Whatever the three functions return; [`Error::Internal`] where one of them panicked.
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
    let (job_in, job_out) = bounded::<(T, crossbeam_channel::Sender<Result<U, Error>>)>(1);
    let (order_in, order_out) = bounded(threads + AHEAD);
    let work = Arc::new(work);

    for _ in 0..threads {
        let (jobs, work) = (job_out.clone(), Arc::clone(&work));
        spawn("worker", move || {
            for (item, done) in jobs {
                // The receiver is gone when the consumer failed: nothing is left to do then.
                let _ = done.send(work(item));
            }
        })?;
    }
    drop(job_out);

    let producer = spawn("reader", move || -> Result<(), Error> {
        while let Some(item) = produce()? {
            let (done_in, done_out) = bounded(1);
            if order_in.send(done_out).is_err() || job_in.send((item, done_in)).is_err() {
                break;
            }
        }
        Ok(())
    })?;

    for result in &order_out {
        let done = result.recv().map_err(|_| Error::Internal("a worker thread ended unexpectedly"))?;
        consume(done?)?;
    }
    producer.join().map_err(|_| Error::Internal("the reading thread ended unexpectedly"))?
}

fn spawn<R: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> R + Send + 'static,
) -> Result<thread::JoinHandle<R>, Error> {
    thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map_err(|source| Error::Io { what: "cannot start a thread".into(), source })
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
