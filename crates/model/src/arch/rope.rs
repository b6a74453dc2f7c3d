//! Rotary positions: angles by which each position rotates the pairs of a head (RoFormer, arXiv
//! 2104.09864).
//!
//! In: a base and a scaling. Out: tables of cosines and sines. It does not know rows of Q or K.

use std::fmt;

use hyperrag_core::Digest;
use rayon::prelude::*;

/// Cosine and sine of position times frequency. Pairs of a head that do not rotate have 1 and 0.
pub(crate) struct Rotations {
    /// Number of pairs of a head.
    pairs: usize,
    /// `[position][pair]`.
    angles: Vec<(f32, f32)>,
}

impl Rotations {
    /// Takes angles, `[position][pair]`, of heads of `head_dim` dimensions.
    pub(crate) fn new(angles: Vec<(f32, f32)>, head_dim: usize) -> Self {
        Self { pairs: head_dim / 2, angles }
    }

    /// Returns the angles of a layer without rotary positions.
    pub(crate) fn none(positions: usize, head_dim: usize) -> Self {
        Self::new(vec![(1.0, 0.0); positions * (head_dim / 2)], head_dim)
    }

    /// Returns the angles of a position.
    pub(crate) fn at(&self, position: usize) -> &[(f32, f32)] {
        &self.angles[position * self.pairs..][..self.pairs]
    }

    /// Returns all cosines and all sines, `[position][pair]`.
    #[cfg(feature = "candle")]
    pub(crate) fn tables(&self) -> (Vec<f32>, Vec<f32>) {
        self.angles.iter().copied().unzip()
    }
}

/// Divisor of frequencies at which no position turns, as llama.cpp has it.
const STILL: f32 = 1e30;

/// The frequencies of rotary positions.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies. Each position rotates pair `i` of a head of `d` dimensions by `base` to
    /// the power of `-2i / d`.
    pub base: f32,
    /// Scaling of these frequencies.
    pub scaling: Scaling,
    /// Factor of rotated Q and of rotated K: YaRN and LongRoPE sharpen attention by it.
    pub attention_factor: f32,
}

/// Change of the frequencies that extended a model beyond the positions of its first training.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// Unchanged frequencies.
    None,
    /// Divisor of all frequencies.
    Linear(f32),
    /// Divisor of the frequency of each pair.
    Divisors(Vec<f32>),
}

/// The scaling of Llama 3.1 and later, with the names of their configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3Scaling {
    /// Divisor of low frequencies.
    pub factor: f32,
    /// Bound below which a frequency is low, in turns over the former context.
    pub low_freq_factor: f32,
    /// Bound above which a frequency is not scaled, in the same turns. Between the two bounds the
    /// scaling is blended.
    pub high_freq_factor: f32,
    /// Length of the former context, in positions.
    pub original_context: usize,
}

/// The scaling YaRN (arXiv 2309.00071), with the names of transformers' configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct YarnScaling {
    /// Divisor of low frequencies.
    pub factor: f32,
    /// Number of turns over the former context from which on a frequency is not scaled.
    pub beta_fast: f32,
    /// Number of turns below which a frequency is divided. Between the two bounds the scaling is
    /// blended, pair by pair.
    pub beta_slow: f32,
    /// Length of the former context, in positions.
    pub original_context: usize,
    /// Factor of rotated Q and K; `None` for the paper's, which depends on `factor` alone.
    pub attention_factor: Option<f32>,
}

impl Rope {
    /// Returns unscaled frequencies.
    #[must_use]
    pub fn new(base: f32) -> Self {
        Self { base, scaling: Scaling::None, attention_factor: 1.0 }
    }

    /// Returns frequencies that are divided by `factor`, of which only those of the first `rotating` pairs
    /// turn, as in Gemma 4. They depend on all `head_dim` dimensions of a head.
    #[must_use]
    pub fn proportional(base: f32, head_dim: usize, rotating: usize, factor: f32) -> Self {
        let divisor = |pair| if pair < rotating { factor } else { STILL };
        let divisors = (0..head_dim / 2).map(divisor).collect();
        Self { scaling: Scaling::Divisors(divisors), ..Self::new(base) }
    }

    /// Returns frequencies scaled by YaRN: low ones are divided, high ones kept, those between blended.
    /// `rotary_dim` dimensions of a head rotate.
    #[must_use]
    pub fn yarn(base: f32, rotary_dim: usize, scaling: YarnScaling) -> Self {
        let YarnScaling { factor, beta_fast, beta_slow, original_context, .. } = scaling;
        let (dim, wide) = (rotary_dim as f64, f64::from(factor));
        let attention_factor = scaling.attention_factor.unwrap_or(match factor > 1.0 {
            true => (0.1 * libm::log(wide) + 1.0) as f32,
            false => 1.0,
        });
        // Index of the pair that turns so often over the former context.
        let pair = |turns: f32| {
            let wave = original_context as f64 / (f64::from(turns) * 2.0 * std::f64::consts::PI);
            dim * libm::log(wave) / (2.0 * libm::log(f64::from(base)))
        };
        let first = pair(beta_fast).floor().max(0.0);
        let last = pair(beta_slow).ceil().min(dim - 1.0);
        let steps = if first == last { 0.001 } else { last - first };
        let divisor = |i: usize| {
            let scaled = ((i as f64 - first) / steps).clamp(0.0, 1.0);
            (1.0 / (scaled / wide + (1.0 - scaled))) as f32
        };
        let divisors = (0..rotary_dim / 2).map(divisor).collect();
        Self { base, scaling: Scaling::Divisors(divisors), attention_factor }
    }

    /// Returns frequencies scaled as in Llama 3.1: low ones are divided, high ones kept, those between
    /// blended. `rotary_dim` dimensions of a head rotate.
    #[must_use]
    pub fn llama3(base: f32, rotary_dim: usize, scaling: Llama3Scaling) -> Self {
        let Llama3Scaling { factor, low_freq_factor, high_freq_factor, original_context } = scaling;
        let [factor, low, high] = [factor, low_freq_factor, high_freq_factor].map(f64::from);
        let divisor = |frequency: f64| {
            let turns = original_context as f64 * frequency / (2.0 * std::f64::consts::PI);
            let unscaled = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            (1.0 / ((1.0 - unscaled) / factor + unscaled)) as f32
        };
        let divisors = frequencies(base, rotary_dim).map(divisor).collect();
        Self { scaling: Scaling::Divisors(divisors), ..Self::new(base) }
    }

    /// Returns the divisors, the factor and the base; `None` unless there is a divisor for each pair.
    pub(crate) fn numbers(&self, rotary_dim: usize) -> Option<impl Iterator<Item = f32>> {
        let divisors = match &self.scaling {
            Scaling::None => &[][..],
            Scaling::Linear(factor) => std::slice::from_ref(factor),
            Scaling::Divisors(divisors) if divisors.len() == rotary_dim / 2 => divisors,
            Scaling::Divisors(_) => return None,
        };
        Some(divisors.iter().copied().chain([self.attention_factor, self.base]))
    }

    /// Computes the angles of `positions` positions, by a library whose bits do not depend on the
    /// platform. The first `rotary_dim` dimensions of a head rotate.
    pub(crate) fn rotations(
        &self,
        positions: usize,
        rotary_dim: usize,
        head_dim: usize,
    ) -> Rotations {
        let scaled =
            frequencies(self.base, rotary_dim).enumerate().map(|(i, frequency)| {
                match &self.scaling {
                    Scaling::None => frequency,
                    Scaling::Linear(factor) => frequency / f64::from(*factor),
                    Scaling::Divisors(divisors) => frequency / f64::from(divisors[i]),
                }
            });
        let mut scaled: Vec<f64> = scaled.collect();
        scaled.resize(head_dim / 2, 0.0);
        let turns = |position: usize| scaled.iter().map(move |f| position as f64 * f);
        let angles = (0..positions).into_par_iter().flat_map_iter(turns);
        let angles = angles.map(|angle| (libm::cos(angle) as f32, libm::sin(angle) as f32));
        Rotations::new(angles.collect(), head_dim)
    }
}

impl Rope {
    /// Writes base and scaling, numbers by their bits.
    pub(crate) fn canonical_text(&self) -> String {
        let bits = |value: f32| format!("{:08x}", value.to_bits());
        let scaling = match &self.scaling {
            Scaling::None => String::new(),
            Scaling::Linear(factor) => format!(" linear {}", bits(*factor)),
            Scaling::Divisors(divisors) => {
                let divisors: String = divisors.iter().map(|divisor| bits(*divisor)).collect();
                format!(" divisors {divisors}")
            }
        };
        let factor = match self.attention_factor {
            1.0 => String::new(),
            factor => format!(" attention {}", bits(factor)),
        };
        format!("{}{scaling}{factor}", bits(self.base))
    }
}

fn frequencies(base: f32, rotary_dim: usize) -> impl Iterator<Item = f64> {
    let power = move |i| -(2.0 * i as f64) / rotary_dim as f64;
    (0..rotary_dim / 2).map(move |i| libm::pow(f64::from(base), power(i)))
}

impl fmt::Display for Rope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "base {}", self.base)?;
        match &self.scaling {
            Scaling::None => {}
            Scaling::Linear(factor) => write!(f, ", linear {factor}")?,
            Scaling::Divisors(divisors) => {
                let bytes: Vec<u8> = divisors.iter().flat_map(|d| d.to_le_bytes()).collect();
                write!(f, ", divisors {:.16}", Digest::of(&bytes).to_string())?;
            }
        }
        match self.attention_factor {
            1.0 => Ok(()),
            factor => write!(f, ", Q and K times {factor}"),
        }
    }
}
