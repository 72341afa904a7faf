//! Memory that goes round between threads.
//!
//! Segments are large, come from one thread and end in another. Allocated anew each time, they leave holes in the
//! allocator's arenas that cost more than what is in use.

use std::sync::{Arc, Mutex, PoisonError};

/// Values that are no longer needed, for whoever needs one.
pub struct Spare<T>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Spare<T> {
    fn clone(&self) -> Self {
        Spare(Arc::clone(&self.0))
    }
}

impl<T> Default for Spare<T> {
    fn default() -> Self {
        Spare(Arc::default())
    }
}

impl<T: Default> Spare<T> {
    /// A value that was given, as it is, or a new one.
    pub fn take(&self) -> T {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Gives a value back.
    pub fn give(&self, value: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(value);
    }
}
