//! Copies bytes of K and V between the host's memory and the device's.

use candle_core::{DType, Device, Result, Tensor};
use half::bf16;

/// Copies to and from one device. For a GPU, copies go through page-locked buffers, which the bus reads
/// at its full speed.
pub(super) struct Transfer {
    #[cfg(feature = "cuda")]
    pinned: std::sync::Mutex<pinned::Buffers>,
}

/// Returns the error's message without the backtrace that candle appends if RUST_BACKTRACE is set.
pub(crate) fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Returns the free memory of the device in bytes, if it says so.
#[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "only GPUs say"))]
pub(super) fn free_bytes(device: &Device) -> Option<usize> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return device.cuda_stream().context().mem_get_info().ok().map(|(free, _)| free);
    }
    None
}

impl Transfer {
    pub(super) fn new() -> Self {
        Self {
            #[cfg(feature = "cuda")]
            pinned: std::sync::Mutex::default(),
        }
    }

    /// Returns the little-endian bytes of a contiguous tensor.
    pub(super) fn download(&self, tensor: &Tensor) -> Result<Vec<u8>> {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(device) = tensor.device() {
            return self.lock().download(device, tensor);
        }
        let flat = tensor.flatten_all()?;
        Ok(match flat.dtype() {
            DType::BF16 => {
                let values = flat.to_vec1::<bf16>()?;
                values.iter().flat_map(|value| value.to_le_bytes()).collect()
            }
            _ => flat.to_vec1::<f32>()?.iter().flat_map(|value| value.to_le_bytes()).collect(),
        })
    }

    /// Makes a tensor of these little-endian bytes.
    pub(super) fn upload(
        &self,
        bytes: &[u8],
        dtype: DType,
        shape: &[usize],
        device: &Device,
    ) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(device) = device {
            return self.lock().upload(device, bytes, dtype, shape);
        }
        match dtype {
            DType::BF16 => {
                let values = bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]));
                Tensor::from_vec(values.collect(), shape, device)
            }
            _ => {
                let values =
                    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                Tensor::from_vec(values.collect(), shape, device)
            }
        }
    }

    #[cfg(feature = "cuda")]
    fn lock(&self) -> std::sync::MutexGuard<'_, pinned::Buffers> {
        self.pinned.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(feature = "cuda")]
mod pinned {
    use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DeviceRepr, PinnedHostSlice, sys};
    use candle_core::cuda_backend::{CudaDType, CudaDevice, CudaStorage, WrapErr};
    use candle_core::op::BackpropOp;
    use candle_core::{DType, Result, Storage, Tensor};
    use half::bf16;

    /// Page-locked buffers, grown as needed and kept, because locking pages takes longer than a copy.
    #[derive(Default)]
    pub(super) struct Buffers {
        /// Buffer that the host only writes, so its cache is bypassed.
        up: Option<PinnedHostSlice<u8>>,
        down: Option<PinnedHostSlice<u8>>,
    }

    impl Buffers {
        pub(super) fn download(&mut self, device: &CudaDevice, tensor: &Tensor) -> Result<Vec<u8>> {
            let tensor = tensor.contiguous()?;
            let bytes = tensor.elem_count() * tensor.dtype().size_in_bytes();
            let buffer = grown(&mut self.down, device, bytes, 0)?;
            let buffer = &mut buffer.as_mut_slice().w()?[..bytes];
            let (storage, layout) = tensor.storage_and_layout();
            let Storage::Cuda(storage) = &*storage else {
                candle_core::bail!("the tensor is not on the device");
            };
            let (first, count) = (layout.start_offset(), tensor.elem_count());
            match tensor.dtype() {
                DType::BF16 => copy_down::<bf16>(device, storage, first, count, buffer)?,
                _ => copy_down::<f32>(device, storage, first, count, buffer)?,
            }
            Ok(buffer.to_vec())
        }

        pub(super) fn upload(
            &mut self,
            device: &CudaDevice,
            bytes: &[u8],
            dtype: DType,
            shape: &[usize],
        ) -> Result<Tensor> {
            let buffer =
                grown(&mut self.up, device, bytes.len(), sys::CU_MEMHOSTALLOC_WRITECOMBINED)?;
            let buffer = &mut buffer.as_mut_slice().w()?[..bytes.len()];
            buffer.copy_from_slice(bytes);
            let storage = match dtype {
                DType::BF16 => copy_up::<bf16>(device, buffer)?,
                _ => copy_up::<f32>(device, buffer)?,
            };
            Ok(Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false))
        }
    }

    /// Returns the buffer, with room for `bytes`.
    fn grown<'a>(
        buffer: &'a mut Option<PinnedHostSlice<u8>>,
        device: &CudaDevice,
        bytes: usize,
        flags: u32,
    ) -> Result<&'a mut PinnedHostSlice<u8>> {
        if buffer.as_ref().is_none_or(|buffer| buffer.len() < bytes) {
            let length = bytes.next_power_of_two();
            *buffer = None;
            #[expect(unsafe_code, reason = "page-locked memory comes uninitialised")]
            // SAFETY: any bytes are valid u8s, and none is read before a copy has written it.
            let made = unsafe {
                device.cuda_stream().context().alloc_pinned_with_flags::<u8>(length, flags)
            };
            *buffer = Some(made.w()?);
        }
        match buffer {
            Some(buffer) => Ok(buffer),
            None => candle_core::bail!("page-locked memory is missing"),
        }
    }

    /// Copies `count` elements from element `first` on, and waits for them.
    fn copy_down<T: CudaDType + DeviceRepr>(
        device: &CudaDevice,
        storage: &CudaStorage,
        first: usize,
        count: usize,
        out: &mut [u8],
    ) -> Result<()> {
        let elements = storage.as_cuda_slice::<T>()?.slice(first..first + count);
        #[expect(unsafe_code, reason = "elements seen as their bytes")]
        // SAFETY: every element is plain bytes, and the view is as long as the elements.
        let bytes = unsafe { elements.transmute::<u8>(out.len()) };
        let Some(bytes) = bytes else {
            candle_core::bail!("the tensor is shorter than its shape");
        };
        device.cuda_stream().memcpy_dtoh(&bytes, out).w()?;
        device.cuda_stream().synchronize().w()
    }

    /// Copies `bytes` to new elements, and waits, so that the buffer may be written again.
    fn copy_up<T: CudaDType + DeviceRepr>(
        device: &CudaDevice,
        bytes: &[u8],
    ) -> Result<CudaStorage> {
        let count = bytes.len() / size_of::<T>();
        #[expect(unsafe_code, reason = "device memory comes uninitialised")]
        // SAFETY: the copy below writes all of it before anything reads it.
        let mut elements: CudaSlice<T> = unsafe { device.alloc(count)? };
        #[expect(unsafe_code, reason = "elements seen as their bytes")]
        // SAFETY: any bytes are valid elements, and the view is as long as the elements.
        let view = unsafe { elements.transmute_mut::<u8>(count * size_of::<T>()) };
        let Some(mut view) = view else {
            candle_core::bail!("the new tensor is shorter than asked for");
        };
        device.memcpy_htod(bytes, &mut view)?;
        device.cuda_stream().synchronize().w()?;
        Ok(CudaStorage::wrap_cuda_slice(elements, device.clone()))
    }
}
