//! Sets how this program stands behind others that use the same disks.

use std::ops::RangeInclusive;

use super::program::Program;

/// The levels, as vzdump's option `ionice` has them.
pub const LEVELS: RangeInclusive<u8> = 0..=IDLE;

/// The level at which this program gets the disk only where nobody else wants it.
const IDLE: u8 = 8;

/// Sets the priority of this thread, and of those that it starts from now on, as vzdump does: 8 is idle, the other levels
/// are those of the class best-effort.
///
/// # Errors
/// Says in a sentence why the priority is as it was.
pub fn set_io_priority(level: u8) -> Result<(), String> {
    let id = rustix::thread::gettid().as_raw_nonzero().to_string();
    let program = match level {
        IDLE => Program::new("ionice", ["-c", "3", "-p", &id]),
        level => Program::new("ionice", ["-c", "2", "-n", &level.to_string(), "-p", &id]),
    };
    match program.run() {
        Ok(ran) if ran.succeeded() => Ok(()),
        Ok(ran) => Err(format!("ionice failed: {}", ran.err().trim())),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_inherit_the_priority() {
        let class = || {
            let id = rustix::thread::gettid().as_raw_nonzero().to_string();
            Program::new("ionice", ["-p", &id]).run().unwrap().out().trim().to_owned()
        };
        let seen = std::thread::spawn(move || {
            let at = |level| {
                set_io_priority(level).unwrap();
                std::thread::spawn(class).join().unwrap()
            };
            [at(5), at(8)]
        });
        assert_eq!(seen.join().unwrap(), ["best-effort: prio 5", "idle"]);
    }
}
