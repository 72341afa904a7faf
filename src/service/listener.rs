//! Passes on what a service has to tell while it works.

/// Hears what a service tells while it works: each step when it is done, so that a person who interrupts a later one knows
/// how far it came.
pub trait Listener {
    /// Something was done, or needs no doing.
    fn done(&self, text: &str);

    /// Something that must not go unnoticed.
    fn warn(&self, text: &str);

    /// What is being worked at from now on; `None` is the end of it.
    fn working(&self, at: Option<&str>);
}
