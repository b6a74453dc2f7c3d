//! The innermost loops, one file an instruction set: packed rows and panels come in, the sums of a tile go
//! out. They know neither what is multiplied nor where the sums go.

#[cfg(target_arch = "x86_64")]
pub(super) mod amx;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
pub(super) mod portable;
