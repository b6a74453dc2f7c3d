//! The LM head on candle's tensors: from final hidden states to log-probabilities and logits of labels.

use candle_core::{D, DType, Result, Tensor};

use crate::backend::candle::decoder::{DeviceModel, soft_capped};

/// Number of columns of the vocabulary computed at once, so that no matrix of all logits is held.
const COLUMNS: usize = 8192;

impl DeviceModel {
    /// Computes `ln p(target)` of each row, a final hidden state: `[row]`, in f32.
    ///
    /// The target's logit is a separate product of rows, so that it need not be searched for in any
    /// group of columns.
    pub(super) fn log_probabilities(&self, rows: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let head = self.head();
        let wanted = head.index_select(targets, 0)?.to_dtype(DType::F32)?;
        let wanted = self.capped((rows * wanted)?.sum_keepdim(D::Minus1)?)?;
        let mut running: Option<(Tensor, Tensor)> = None;
        let vocabulary = head.dim(0)?;
        for first in (0..vocabulary).step_by(COLUMNS) {
            let columns = head.narrow(0, first, COLUMNS.min(vocabulary - first))?;
            let logits = self.capped(rows.matmul(&columns.to_dtype(DType::F32)?.t()?)?)?;
            let largest = logits.max_keepdim(D::Minus1)?;
            let sum = logits.broadcast_sub(&largest)?.exp()?.sum_keepdim(D::Minus1)?;
            running = Some(match running {
                None => (largest, sum),
                Some((before, total)) => {
                    let now = before.maximum(&largest)?;
                    let total = (total * (before - &now)?.exp()?)?;
                    let sum = (sum * (largest - &now)?.exp()?)?;
                    (now, (total + sum)?)
                }
            });
        }
        let (largest, sum) = running
            .ok_or_else(|| candle_core::Error::Msg("the vocabulary has no tokens".to_owned()))?;
        (wanted - (largest + sum.log()?)?)?.squeeze(D::Minus1)
    }

    /// Computes the logits of the labels at each row, a final hidden state `[row][1][hidden]`:
    /// `[row][label]`.
    pub(super) fn logits(&self, rows: &Tensor, labels: &Tensor) -> Result<Tensor> {
        let wanted = self.head().index_select(labels, 0)?.to_dtype(DType::F32)?.unsqueeze(0)?;
        self.capped(rows.broadcast_mul(&wanted)?.sum(D::Minus1)?)
    }

    fn capped(&self, logits: Tensor) -> Result<Tensor> {
        match self.config.logit_cap {
            Some(cap) => soft_capped(&logits, cap),
            None => Ok(logits),
        }
    }

    fn head(&self) -> &Tensor {
        self.weights.head.as_ref().unwrap_or(&self.weights.embedding)
    }
}
