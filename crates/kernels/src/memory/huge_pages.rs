//! Memory for weights in large pages: a length comes in, zeros go out. It does not know what they become.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, cast_slice, cast_slice_mut};
use memmap2::{Advice, MmapMut};

use crate::error::PackError;

/// Memory for weights: zeros at first, in large pages where the system has them, so that reading a
/// model does not wait for a page fault every 4 KiB.
pub struct Pages<T> {
    map: MmapMut,
    of: PhantomData<T>,
}

impl<T: Pod> Pages<T> {
    /// Memory for `length` values.
    ///
    /// # Errors
    /// [`PackError::OutOfMemory`].
    pub fn zeroed(length: usize) -> Result<Self, PackError> {
        // An empty map is refused.
        let bytes = (length * size_of::<T>()).max(1);
        let map = MmapMut::map_anon(bytes);
        let map = map.map_err(|source| PackError::OutOfMemory { bytes, source })?;
        // Both are wishes only. All of the memory will be written: pages come in one call, not in a fault each.
        #[cfg(target_os = "linux")]
        let _ = map.advise(Advice::HugePage).and_then(|()| map.advise(Advice::PopulateWrite));
        Ok(Self { map, of: PhantomData })
    }

    fn bytes(&self) -> usize {
        self.map.len() / size_of::<T>() * size_of::<T>()
    }
}

impl<T: Pod> Deref for Pages<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        cast_slice(&self.map[..self.bytes()])
    }
}

impl<T: Pod> DerefMut for Pages<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        let bytes = self.bytes();
        cast_slice_mut(&mut self.map[..bytes])
    }
}
