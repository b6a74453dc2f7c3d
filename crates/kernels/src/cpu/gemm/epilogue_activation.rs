//! The epilogue that activates: gates and ups come in from the product that gives them, packed rows of the
//! next product go out.

use crate::activation::Activation;
#[cfg(target_arch = "x86_64")]
use crate::cpu::gemm::epilogue::Epilogue;
use crate::cpu::gemm::epilogue::Tile;
#[cfg(target_arch = "x86_64")]
use crate::cpu::gemm::pack_lhs::LhsFormat;
use crate::cpu::gemm::pack_lhs::PackedLhs;
use crate::cpu::gemm::pack_rhs::PackedWeights;
#[cfg(target_arch = "x86_64")]
use crate::cpu::microkernel::avx512;
use crate::isa::Kernel;
use crate::lanes::{Lanes, PANEL};

impl PackedWeights {
    /// Sets `out` to the activation of the gates, times the ups, of the rows of `x`. The outputs are panels
    /// of gates and of ups in turns. `upcast` is a buffer.
    pub fn activate(
        &self,
        kernel: Kernel,
        activation: Activation,
        x: &PackedLhs,
        upcast: &mut Vec<Lanes>,
        out: &mut PackedLhs,
    ) {
        let (panels, wide) = (self.panels(), out.inputs());
        #[cfg(target_arch = "x86_64")]
        if out.format() == LhsFormat::Bf16Pairs && wide.is_multiple_of(PANEL) {
            return match activation {
                Activation::Silu => self.product(kernel, x, panels, upcast, ToPairs::<false>(out)),
                Activation::GeluTanh => {
                    self.product(kernel, x, panels, upcast, ToPairs::<true>(out));
                }
            };
        }
        self.product(kernel, x, panels, upcast, |tile: Tile<'_>| {
            let (row, first) = (tile.row, tile.panel / 2 * PANEL);
            let width = PANEL.min(wide - first);
            out.set_sums(row, first, kernel.activated(activation, tile), width);
        });
    }
}

impl Kernel {
    /// Sets the gates of a tile to their activation times the ups, and gives them.
    #[inline]
    pub fn activated(self, activation: Activation, tile: Tile<'_>) -> &[Lanes] {
        let [gates, ups] = tile.sums;
        match activation {
            Activation::Silu => self.silu_mul(gates, ups),
            Activation::GeluTanh => self.gelu_mul(gates, ups),
        }
        gates
    }
}

/// Rounds activations to pairs without a way through memory, by GELU or else SiLU, with the bits of
/// [`Kernel::activated`].
#[cfg(target_arch = "x86_64")]
struct ToPairs<'a, const GELU: bool>(&'a mut PackedLhs);

#[cfg(target_arch = "x86_64")]
impl<const GELU: bool> Epilogue for ToPairs<'_, GELU> {
    const TAKES_FEW: bool = true;

    #[inline(always)]
    #[expect(unsafe_code, reason = "a function compiled for an instruction set")]
    fn take(&mut self, tile: Tile<'_>) {
        let [gates, ups] = tile.sums;
        let rows = tile.row..tile.row + gates.len();
        // Two panels of activations are a step.
        let (step, half) = (tile.panel / 4, tile.panel / 2 % 2);
        self.0.steps_of_rows(rows, step, |rows, steps| {
            let (gates, ups) = (&gates[rows.clone()], &ups[rows]);
            // SAFETY: an operand of pairs is made only where the machine has AVX-512 with BF16.
            unsafe { avx512::activate_to_halves::<GELU>(gates, ups, steps, half) };
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cpu::gemm::epilogue::OutputRows;
    use crate::dtype::ComputeDtype;
    use crate::lanes::LANES;
    use crate::testing::values_of;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn activations_are_those_of_all_sums(
            rows in 1_usize..70, inputs in 1_usize..100, panels in 1_usize..6, short in 0_usize..16,
            scale in prop_oneof![Just(1.0_f32), Just(40.0)], seed: u64,
        ) {
            let wide = panels * PANEL - if short < 4 { 0 } else { short };
            let mut numbers = seed | 1;
            let mut number = || {
                numbers = numbers.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (numbers >> 40) as f32 / (1 << 23) as f32 - 1.0
            };
            for dtype in [ComputeDtype::F32, ComputeDtype::Bf16] {
                let outputs = 2 * panels * PANEL;
                let mut weights = PackedWeights::zeroed(outputs, inputs, dtype).unwrap();
                let values: Vec<f32> = (0..outputs * inputs).map(|_| scale * number()).collect();
                weights.fill(0, &values);
                let values: Vec<f32> = (0..rows * inputs).map(|_| number()).collect();
                for kernel in Kernel::available() {
                    let format = kernel.lhs_format(dtype);
                    let mut x = PackedLhs::default();
                    x.start(kernel, format, rows, inputs).set_all(&values);
                    let mut sums = vec![0.0; rows * outputs];
                    let out = OutputRows::put(kernel, &mut sums, outputs);
                    weights.product(kernel, &x, weights.panels(), &mut Vec::new(), out);
                    for activation in [Activation::Silu, Activation::GeluTanh] {
                        let (mut found, mut expected) = (PackedLhs::default(), PackedLhs::default());
                        found.start(kernel, format, rows, wide);
                        weights.activate(kernel, activation, &x, &mut Vec::new(), &mut found);
                        expected.start(kernel, format, rows, wide);
                        for (row, sums) in sums.chunks_exact(outputs).enumerate() {
                            let mut values = Vec::new();
                            for pair in sums.chunks_exact(2 * PANEL) {
                                let [mut gates, mut ups] = [0, LANES]
                                    .map(|from| Lanes(pair[from..from + LANES].try_into().unwrap()));
                                let sums = [std::slice::from_mut(&mut gates), std::slice::from_mut(&mut ups)];
                                let tile = Tile { row: 0, panel: 0, sums };
                                values.extend(Kernel::Portable.activated(activation, tile)[0].0);
                            }
                            expected.set(row, 0, &values[..wide]);
                        }
                        let [found, expected] = [found, expected].map(|x| values_of(&x, kernel, dtype));
                        prop_assert_eq!(found, expected, "{:?} {:?}", kernel, activation);
                    }
                }
            }
        }
    }
}
