//! Formulas of measures: grades of ranked and of all judged documents in, numbers out. It does not know
//! what a measure is called.

/// Ranks that RBP looks at, as `cwl_eval` does: its weights add up to 1 over these.
pub(crate) const RBP_DEPTH: usize = 1000;
/// Addend of inferred AP that keeps a share of nothing from being 0 / 0, as in `trec_eval`.
const EPSILON: f64 = 1e-5;

/// Documents of one query, as judgements see them.
#[derive(Clone, Copy)]
pub(crate) struct Ranked<'a> {
    /// Grades of the ranked documents, best first; `None` where nobody judged.
    pub(crate) grades: &'a [Option<i32>],
    /// Grades of all judged documents.
    pub(crate) judged: &'a [i32],
    /// Smallest grade of a relevant document, at least 1.
    pub(crate) rel: i32,
}

impl<'a> Ranked<'a> {
    /// Cuts the ranking.
    pub(crate) fn top(self, cutoff: usize) -> Self {
        Self { grades: &self.grades[..self.grades.len().min(cutoff)], ..self }
    }

    /// Number of relevant documents that there are.
    pub(crate) fn relevant(self) -> usize {
        self.judged.iter().filter(|grade| **grade >= self.rel).count()
    }

    /// Number of relevant documents in the ranking.
    pub(crate) fn found(self) -> usize {
        self.relevant_ranks().count()
    }

    /// Ranks of the relevant documents, from 1.
    fn relevant_ranks(self) -> impl Iterator<Item = f64> + use<'a> {
        let ranks = (1_u32..).zip(self.grades);
        let relevant = ranks.filter(move |(_, grade)| grade.is_some_and(|g| g >= self.rel));
        relevant.map(|(rank, _)| f64::from(rank))
    }

    /// Mean of `values` of the relevant documents over all relevant ones.
    fn over_relevant(self, values: impl Iterator<Item = f64>) -> f64 {
        match self.relevant() {
            0 => 0.0,
            relevant => values.sum::<f64>() / relevant as f64,
        }
    }

    pub(crate) fn reciprocal_rank(self) -> f64 {
        self.relevant_ranks().next().map_or(0.0, |rank| 1.0 / rank)
    }

    pub(crate) fn average_precision(self) -> f64 {
        let found = (1_u32..).map(f64::from);
        self.over_relevant(self.relevant_ranks().zip(found).map(|(rank, found)| found / rank))
    }

    /// Normalised discounted cumulative gain (Järvelin and Kekäläinen 2002) with log2(rank + 1) as
    /// discount. The ideal ranking has the best of all judged documents, down to the cutoff.
    pub(crate) fn ndcg(self, cutoff: usize, gain: impl Fn(i32) -> f64) -> f64 {
        let mut ideal: Vec<f64> = self.judged.iter().map(|grade| gain(*grade)).collect();
        ideal.sort_unstable_by(|a, b| b.total_cmp(a));
        ideal.truncate(cutoff);
        let gains = self.grades.iter().map(|grade| grade.map_or(0.0, &gain));
        let ideal = dcg(ideal.into_iter());
        if ideal > 0.0 { dcg(gains) / ideal } else { 0.0 }
    }

    /// Binary preference (Buckley and Voorhees 2004), as `trec_eval` computes it: of each relevant
    /// document, the share of judged others that are not before it. Grades below 0 are no judgement.
    pub(crate) fn bpref(self) -> f64 {
        let relevant = self.relevant();
        let others = self.judged.iter().filter(|grade| (0..self.rel).contains(*grade)).count();
        let (mut before, mut sum) = (0_usize, 0.0);
        for grade in self.grades.iter().flatten() {
            match *grade {
                grade if grade < 0 => {}
                grade if grade < self.rel => before += 1,
                _ if before == 0 => sum += 1.0,
                _ => sum += 1.0 - before.min(relevant) as f64 / others.min(relevant) as f64,
            }
        }
        self.over_relevant(std::iter::once(sum))
    }

    /// Inferred average precision (Yilmaz and Aslam 2006), as `trec_eval` computes it. A grade below 0
    /// is that of a document in the pool that nobody judged.
    pub(crate) fn inferred_ap(self) -> f64 {
        let (mut relevant, mut others, mut unjudged) = (0.0, 0.0, 0.0);
        let mut sum = 0.0;
        for (above, grade) in (0_u32..).map(f64::from).zip(self.grades) {
            match grade {
                None => {}
                Some(grade) if *grade < 0 => unjudged += 1.0,
                Some(grade) if *grade < self.rel => others += 1.0,
                Some(_) => {
                    sum += 1.0 / (above + 1.0);
                    if above > 0.0 {
                        let pooled = (relevant + others + unjudged) / above;
                        let share = (relevant + EPSILON) / (relevant + others + 2.0 * EPSILON);
                        sum += above / (above + 1.0) * pooled * share;
                    }
                    relevant += 1.0;
                }
            }
        }
        self.over_relevant(std::iter::once(sum))
    }

    /// F measure of precision and recall of the whole ranking, with `beta` for recall; `trec_eval`
    /// does not square it.
    pub(crate) fn set_f(self, beta: f64) -> f64 {
        let (found, relevant) = (self.found() as f64, self.relevant() as f64);
        if found == 0.0 {
            return 0.0;
        }
        let (precision, recall) = (found / self.grades.len() as f64, found / relevant);
        (1.0 + beta) * precision * recall / (recall + beta * precision)
    }

    /// Rank-biased precision (Moffat and Zobel 2008) over [`RBP_DEPTH`] ranks.
    pub(crate) fn rank_biased_precision(self, p: f64) -> f64 {
        let weights = std::iter::successors(Some(1.0), |weight| Some(weight * p));
        let all: f64 = weights.clone().take(RBP_DEPTH).sum();
        let relevant = |(grade, _): &(&Option<i32>, f64)| grade.is_some_and(|g| g >= self.rel);
        let gained: f64 = self.grades.iter().zip(weights).filter(relevant).map(|(_, w)| w).sum();
        gained / all
    }

    /// Expected reciprocal rank (Chapelle et al. 2009), where a document of the highest grade
    /// satisfies the reader with probability 1 less 2 to the power of minus that grade.
    pub(crate) fn expected_reciprocal_rank(self, highest: i32) -> f64 {
        let (mut sum, mut unsatisfied) = (0.0, 1.0);
        for (rank, grade) in (1_u32..).zip(self.grades) {
            let grade = f64::from(grade.unwrap_or(0).max(0));
            let satisfies = (grade.exp2() - 1.0) / f64::from(highest).exp2();
            sum += unsatisfied * satisfies / f64::from(rank);
            unsatisfied *= 1.0 - satisfies;
        }
        sum
    }
}

fn dcg(gains: impl Iterator<Item = f64>) -> f64 {
    (1_u32..).zip(gains).map(|(rank, gain)| gain / f64::from(rank + 1).log2()).sum()
}
