//! Patch sets, plans and the transaction that carries them out.
