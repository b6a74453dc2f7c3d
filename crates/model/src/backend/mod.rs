//! Decoders on the CPU and on candle's devices, behind one [`Model`](model::Model).

pub(crate) mod candle;
pub(crate) mod cpu;
pub(crate) mod dtype_choice;
pub(crate) mod model;
