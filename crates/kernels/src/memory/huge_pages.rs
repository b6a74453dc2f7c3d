//! Memory for weights in large pages: a length comes in, zeros go out. It does not know what they become.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::Pod;
use memmap2::{Advice, MmapMut};

use crate::error::PackError;

/// Smallest size of a map that matrices share, in bytes. What the last one leaves of it is never touched.
const MAP_BYTES: usize = 64 << 20;
/// Matrices begin with a cache line.
const ALIGNMENT: usize = 64;

/// Memory of a model's weights. Its matrices share maps, so that small ones lie in large pages too. A map is
/// given back when its last matrix is dropped.
#[derive(Default)]
pub struct WeightMemory {
    /// Smallest size of a map, in bytes.
    map_bytes: usize,
    current: Mutex<Option<SharedMap>>,
}

/// A map whose first `used` bytes belong to matrices.
struct SharedMap {
    map: Arc<MmapMut>,
    start: NonNull<u8>,
    used: usize,
}

// SAFETY: the pointer leads into the map, which any thread may own; it is dereferenced by `Pages` alone.
#[expect(unsafe_code, reason = "a pointer into a map that is kept beside it")]
unsafe impl Send for SharedMap {}

/// Memory for `length` values: zeros at first, in large pages where the system has them, so that reading a
/// model does not wait for a page fault every 4 KiB.
pub struct Pages<T> {
    start: NonNull<T>,
    length: usize,
    _map: Arc<MmapMut>,
    of: PhantomData<T>,
}

// SAFETY: a value owns its bytes of the map alone, as a vector owns its own.
#[expect(unsafe_code, reason = "owned bytes of a shared map")]
unsafe impl<T: Pod + Send> Send for Pages<T> {}
// SAFETY: shared references only read.
#[expect(unsafe_code, reason = "owned bytes of a shared map")]
unsafe impl<T: Pod + Sync> Sync for Pages<T> {}

impl WeightMemory {
    /// Makes memory that many matrices will share.
    #[must_use]
    pub fn shared() -> Self {
        Self { map_bytes: MAP_BYTES, current: Mutex::default() }
    }

    /// Takes memory for `length` values.
    ///
    /// # Errors
    /// [`PackError::OutOfMemory`].
    pub fn zeroed<T: Pod>(&self, length: usize) -> Result<Pages<T>, PackError> {
        const { assert!(align_of::<T>() <= ALIGNMENT) };
        let bytes = (length * size_of::<T>()).next_multiple_of(ALIGNMENT);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = current.as_ref().is_some_and(|map| bytes <= map.map.len() - map.used);
        if !fits {
            let failed = |source| PackError::OutOfMemory { bytes, source };
            // An empty map is refused.
            let mut map = MmapMut::map_anon(bytes.max(self.map_bytes).max(1)).map_err(failed)?;
            // A wish only.
            #[cfg(target_os = "linux")]
            let _ = map.advise(Advice::HugePage);
            let start = NonNull::new(map.as_mut_ptr()).expect("a map has an address");
            *current = Some(SharedMap { map: Arc::new(map), start, used: 0 });
        }
        let shared = current.as_mut().expect("it was made above");
        let (map, first) = (Arc::clone(&shared.map), shared.used);
        shared.used += bytes;
        // SAFETY: `first + bytes` is within the map.
        #[expect(unsafe_code, reason = "a pointer into a map that is kept beside it")]
        let start = unsafe { shared.start.add(first) }.cast();
        drop(current);
        // Another wish: all of the memory will be written, and pages come in one call, not in a fault each.
        #[cfg(target_os = "linux")]
        let _ = map.advise_range(Advice::PopulateWrite, first, bytes);
        Ok(Pages { start, length, _map: map, of: PhantomData })
    }
}

impl<T: Pod> Deref for Pages<T> {
    type Target = [T];

    #[expect(unsafe_code, reason = "owned bytes of a shared map")]
    fn deref(&self) -> &[T] {
        // SAFETY: the bytes are `length` values of the map, aligned, of a type that any bytes are a value of,
        // and no other `Pages` has them.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl<T: Pod> DerefMut for Pages<T> {
    #[expect(unsafe_code, reason = "owned bytes of a shared map")]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_of_a_model_do_not_overlap_and_outlive_it() {
        let memory = WeightMemory::shared();
        let lengths = [0, 1, 17, 5000, MAP_BYTES / 4 - 3, 1 << 20, MAP_BYTES, 3];
        let mut taken: Vec<Pages<u32>> = std::thread::scope(|scope| {
            let take = |length| {
                let memory = &memory;
                scope.spawn(move || memory.zeroed::<u32>(length).unwrap())
            };
            let threads: Vec<_> = lengths.into_iter().map(take).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (number, pages) in (1..).zip(&mut taken) {
            assert!(pages.iter().all(|value| *value == 0));
            assert!(pages.as_ptr().addr().is_multiple_of(ALIGNMENT));
            pages.fill(number);
        }
        drop(memory);
        for ((number, pages), length) in (1..).zip(&taken).zip(lengths) {
            assert_eq!(pages.len(), length);
            assert!(pages.iter().all(|value| *value == number));
        }
    }
}
