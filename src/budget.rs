//! Limits what an input may take of the memory, or of the room in a temporary file.
//!
//! A file's headers say how much of everything follows, and even a short file can claim much. So every structure whose
//! size the input decides takes its bytes from a [`Budget`]. A budget grows with the number of bytes that are really
//! there: an honest file of any size has enough, and a hostile one gets little more than it costs to store.

use std::io;

/// The number of bytes that any input may take, however short it is.
const FLOOR: u64 = 32 << 20;

/// The number of bytes that may still be taken.
#[derive(Debug)]
pub struct Budget {
    left: u64,
    whole: u64,
}

/// The reason why no bytes could be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Spent {
    /// The input asks for more than its limit, which is this many bytes.
    #[error("it asks for more than {} MiB, which no honest file of its length needs", .0 >> 20)]
    Limit(u64),
    /// The system has no memory left.
    #[error("the system has no memory left for it")]
    Memory,
}

impl From<Spent> for io::Error {
    fn from(spent: Spent) -> io::Error {
        io::Error::new(io::ErrorKind::OutOfMemory, spent)
    }
}

impl Budget {
    /// Makes a budget of this many bytes and those that any input may take.
    pub fn of(bytes: u64) -> Budget {
        let whole = FLOOR.saturating_add(bytes);
        Budget { left: whole, whole }
    }

    /// Takes bytes from the budget.
    ///
    /// # Errors
    /// Fails with [`Spent::Limit`] where not enough bytes are left.
    pub fn take(&mut self, bytes: u64) -> Result<(), Spent> {
        self.left = self.left.checked_sub(bytes).ok_or(Spent::Limit(self.whole))?;
        Ok(())
    }

    /// Appends a value to a list.
    ///
    /// # Errors
    /// Fails where the budget or the memory does not suffice.
    #[inline]
    pub fn push<T>(&mut self, list: &mut Vec<T>, item: T) -> Result<(), Spent> {
        if list.len() == list.capacity() {
            self.grow(list, 1)?;
        }
        list.push(item);
        Ok(())
    }

    /// Appends bytes to a list.
    ///
    /// # Errors
    /// Fails as [`Budget::push`] does.
    pub fn extend(&mut self, list: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Spent> {
        if list.capacity() - list.len() < bytes.len() {
            self.grow(list, bytes.len())?;
        }
        list.extend_from_slice(bytes);
        Ok(())
    }

    /// Makes a table of `len` equal values.
    ///
    /// # Errors
    /// Fails as [`Budget::push`] does.
    pub fn table<T: Clone>(&mut self, value: T, len: usize) -> Result<Vec<T>, Spent> {
        let mut table = Vec::new();
        self.reserve(&mut table, len)?;
        table.resize(len, value);
        Ok(table)
    }

    fn grow<T>(&mut self, list: &mut Vec<T>, least: usize) -> Result<(), Spent> {
        self.reserve(list, list.capacity().max(least).max(16))
    }

    fn reserve<T>(&mut self, list: &mut Vec<T>, more: usize) -> Result<(), Spent> {
        let bytes = (more as u64).checked_mul(size_of::<T>() as u64);
        self.take(bytes.ok_or(Spent::Limit(self.whole))?)?;
        list.try_reserve_exact(list.capacity() - list.len() + more).map_err(|_| Spent::Memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_given_than_there_is() {
        let mut budget = Budget::of(1 << 20);
        let whole = FLOOR + (1 << 20);
        assert!(budget.table(0u64, 4 << 20).is_ok_and(|table| table.len() == 4 << 20));
        let mut list = Vec::new();
        let mut pushed = 0u64;
        while budget.push(&mut list, 7u8).is_ok() {
            pushed += 1;
        }
        assert_eq!(list.len() as u64, pushed);
        assert!((512 << 10..=1 << 20).contains(&pushed), "{pushed}");
        assert_eq!(budget.table(0u8, 2 << 20), Err(Spent::Limit(whole)));
        assert_eq!(Budget::of(u64::MAX).table(0u64, usize::MAX), Err(Spent::Limit(u64::MAX)));
        assert_eq!(Budget::of(u64::MAX).table(0u8, usize::MAX), Err(Spent::Memory));
    }

    #[test]
    fn bytes_are_appended() {
        let (mut budget, mut list) = (Budget::of(0), Vec::new());
        (0..100u8).for_each(|n| budget.extend(&mut list, &[n; 30]).unwrap());
        assert_eq!((list.len(), list[2999]), (3000, 99));
        assert!(budget.extend(&mut list, &vec![0; FLOOR as usize]).is_err());
    }
}
