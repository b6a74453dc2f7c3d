//! Buffers that are kept and grown, of floats aligned to a cache line or of any elements.

use crate::lanes::{LANES, Lanes};

/// A buffer of floats that begins with a cache line: registers that cross one are read and written at half
/// the speed.
#[derive(Default)]
pub struct Floats(Vec<Lanes>);

impl Floats {
    /// Grows the buffer where it is shorter, and gives its first `length` floats. Their values are
    /// leftovers.
    #[inline]
    pub fn take(&mut self, length: usize) -> &mut [f32] {
        let lanes = take(&mut self.0, length.div_ceil(LANES));
        &mut bytemuck::cast_slice_mut(lanes)[..length]
    }

    /// The first `length` floats.
    ///
    /// # Panics
    /// If the buffer is shorter.
    #[inline]
    #[must_use]
    pub fn get(&self, length: usize) -> &[f32] {
        &bytemuck::cast_slice(&self.0)[..length]
    }
}

/// Grows `buffer` where it is shorter, and gives its first `length` elements. Their values are leftovers.
pub fn take<T: Clone + Default>(buffer: &mut Vec<T>, length: usize) -> &mut [T] {
    if buffer.len() < length {
        buffer.resize(length, T::default());
    }
    &mut buffer[..length]
}
