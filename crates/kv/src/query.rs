/// How what the model says after a document becomes a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scorer {
    /// The mean log-probability of the query's tokens.
    QueryLikelihood,
    /// How much likelier `yes` is than `no` as the next token, in log-odds: the difference of their
    /// logits.
    Label {
        /// The token that speaks for the document.
        yes: u32,
        /// The one that speaks against it.
        no: u32,
    },
    /// The logit of `token` as the next one.
    Logit {
        /// The token.
        token: u32,
    },
}

impl Scorer {
    /// The tokens whose logits are read at the last position; none for
    /// [`Scorer::QueryLikelihood`].
    #[must_use]
    pub fn labels(self) -> Vec<u32> {
        match self {
            Self::QueryLikelihood => Vec::new(),
            Self::Label { yes, no } => vec![yes, no],
            Self::Logit { token } => vec![token],
        }
    }

    /// The score from the logits of [`Scorer::labels`], where there are any.
    #[must_use]
    pub fn of_logits(self, logits: &[f64]) -> f32 {
        match self {
            Self::Label { .. } => (logits[0] - logits[1]) as f32,
            Self::QueryLikelihood | Self::Logit { .. } => logits[0] as f32,
        }
    }
}

/// All that follows a document, and how it is scored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueryPart {
    /// The profile's words around the query, and the query.
    pub tokens: Vec<u32>,
    /// What becomes of them.
    pub scorer: Scorer,
}

impl QueryPart {
    /// One that is scored by the likelihood of these tokens.
    #[must_use]
    pub fn likelihood(tokens: &[u32]) -> Self {
        Self { tokens: tokens.to_vec(), scorer: Scorer::QueryLikelihood }
    }

    /// The tokens that go through the decoder: nothing is read after the last one of a likelihood.
    #[must_use]
    pub fn computed(&self) -> &[u32] {
        match self.scorer {
            Scorer::QueryLikelihood => &self.tokens[..self.tokens.len().saturating_sub(1)],
            Scorer::Label { .. } | Scorer::Logit { .. } => &self.tokens,
        }
    }
}

/// A query and a document's block that are to be scored together.
#[derive(Debug)]
pub struct Pair<'a, R: ?Sized> {
    /// The query.
    pub query: &'a QueryPart,
    /// The block, where the model computes or where it is kept.
    pub block: &'a R,
}

impl<R: ?Sized> Clone for Pair<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: ?Sized> Copy for Pair<'_, R> {}
