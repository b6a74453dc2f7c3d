//! Sentences on work done, where more than one command says them. Printing itself is in `report`.

pub(crate) mod arithmetic;
pub(crate) mod batch;
pub(crate) mod build_progress;
pub(crate) mod sizes;
pub(crate) mod store;
