//! Restoring from a differential.
//!
//! [`Differential`] is a differential of which the header was read (`differential`). Its `restore` applies its windows to the
//! base (`apply`). A base that can be read at any position is announced what will be copied from it (`read_ahead`). A base
//! that can be read from its front only passes by in a window (`one_way`); what is copied from further back was put into a
//! temporary file when it passed (`spill`). Both learn from the windows themselves what they copy (`copied`). [`open`] gives
//! the content of an archive as a stream, whether it is a full backup or a differential (`archive`).
//! [`SharedBase`] serves several differentials that are checked at the same time (`shared`).
//! [`Wreck`] is a differential that is damaged, or whose base is: it is restored as far as that goes (`salvage`).

mod apply;
mod archive;
mod copied;
mod differential;
mod one_way;
mod read_ahead;
mod salvage;
mod shared;
mod spill;

pub use apply::{MAX_WINDOW, Options, Outcome};
pub use archive::open;
pub use differential::Differential;
pub use salvage::Wreck;
pub use shared::{SharedBase, SharedStream};
