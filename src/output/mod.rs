//! What commands say of their work, where more than one says it. Printing itself is in `report`.

pub(crate) mod arithmetic;
pub(crate) mod batch;
pub(crate) mod build_progress;
pub(crate) mod sizes;
pub(crate) mod store;
