//! The activations of feed-forward parts, by name.

/// Function that the gates of a feed-forward part go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * Phi(x)`, by the approximation with tanh.
    GeluTanh,
}
