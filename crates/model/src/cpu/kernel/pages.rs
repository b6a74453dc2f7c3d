use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, cast_slice, cast_slice_mut};
use memmap2::{Advice, MmapMut};

/// Memory for weights: zeros at first, in large pages where the system has them, so that reading a
/// model does not wait for a page fault every 4 KiB.
pub(crate) struct Pages<T> {
    map: MmapMut,
    of: PhantomData<T>,
}

impl<T: Pod> Pages<T> {
    /// Memory for `length` values.
    ///
    /// # Panics
    /// Where the system has no memory, as any allocation.
    pub(crate) fn zeroed(length: usize) -> Self {
        // An empty map is refused.
        let map = MmapMut::map_anon((length * size_of::<T>()).max(1));
        let map = map.unwrap_or_else(|error| panic!("no memory for {length} weights: {error}"));
        // Large pages are a wish only.
        #[cfg(target_os = "linux")]
        let _ = map.advise(Advice::HugePage);
        Self { map, of: PhantomData }
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
