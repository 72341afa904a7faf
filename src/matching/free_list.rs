//! Buffers that are used again.
//!
//! Segments are large; one thread allocates them and another one drops them. If each was allocated anew, the holes that
//! they leave in the allocator's arenas would take more memory than what is in use.

use std::sync::{Arc, Mutex, PoisonError};

/// A list of values that are no longer needed. Its clones share one list, so that one thread can return what another
/// one takes.
pub struct FreeList<T>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for FreeList<T> {
    fn clone(&self) -> Self {
        FreeList(Arc::clone(&self.0))
    }
}

impl<T> Default for FreeList<T> {
    fn default() -> Self {
        FreeList(Arc::default())
    }
}

impl<T: Default> FreeList<T> {
    /// Takes a value from the list, in the state in which it was returned. If the list is empty, the value is new.
    pub fn take(&self) -> T {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Returns a value to the list.
    pub fn give(&self, value: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(value);
    }
}
