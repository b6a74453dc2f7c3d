//! Attention's own steps: which columns a row sees, the weights of its scores, and rows of bf16 as right
//! sides of products.

pub mod mask;
#[cfg(target_arch = "x86_64")]
mod online_softmax;
mod pack_kv;
pub mod softmax;
