//! The query's side of a score: tokens and logits come in, the tokens to compute and the score go out. Knows
//! neither templates nor the model.

/// Way in which the model's output after a document becomes a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scorer {
    /// Mean log-probability of the query's tokens.
    QueryLikelihood,
    /// Log-odds of `yes` against `no` as the next token: the difference of their logits.
    Label {
        /// Token that speaks for the document.
        yes: u32,
        /// Token that speaks against the document.
        no: u32,
    },
    /// Logit of `token` as the next token.
    Logit {
        /// The token.
        token: u32,
    },
}

impl Scorer {
    /// Lists the tokens whose logits are read at the last position; none for [`Scorer::QueryLikelihood`].
    #[must_use]
    pub fn labels(self) -> Vec<u32> {
        match self {
            Self::QueryLikelihood => Vec::new(),
            Self::Label { yes, no } => vec![yes, no],
            Self::Logit { token } => vec![token],
        }
    }

    /// Computes the score from the logits of [`Scorer::labels`].
    #[must_use]
    pub fn of_logits(self, logits: &[f64]) -> f32 {
        match self {
            Self::Label { .. } => (logits[0] - logits[1]) as f32,
            Self::QueryLikelihood | Self::Logit { .. } => logits[0] as f32,
        }
    }
}

/// Tokens that follow a document, and their scorer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QuerySuffix {
    /// Tokens of the query and of the template text around it.
    pub tokens: Vec<u32>,
    /// Scorer of these tokens.
    pub scorer: Scorer,
}

impl QuerySuffix {
    /// Makes a query part that is scored by the likelihood of `tokens`.
    #[must_use]
    pub fn likelihood(tokens: &[u32]) -> Self {
        Self { tokens: tokens.to_vec(), scorer: Scorer::QueryLikelihood }
    }

    /// Returns the tokens that go through the decoder. The last one of a likelihood does not: nothing is read
    /// after it.
    #[must_use]
    pub fn computed(&self) -> &[u32] {
        match self.scorer {
            Scorer::QueryLikelihood => &self.tokens[..self.tokens.len().saturating_sub(1)],
            Scorer::Label { .. } | Scorer::Logit { .. } => &self.tokens,
        }
    }
}

/// A query and a document's block, to be scored together.
#[derive(Debug)]
pub struct Pair<'a, R: ?Sized> {
    /// The query.
    pub query: &'a QuerySuffix,
    /// Block, where the model computes or in storage.
    pub block: &'a R,
}

impl<R: ?Sized> Clone for Pair<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: ?Sized> Copy for Pair<'_, R> {}
