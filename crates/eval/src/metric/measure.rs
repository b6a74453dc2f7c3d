//! Measures: grades of ranked documents in, one number out. It does not know how measures are written,
//! nor where a ranking comes from.

use std::collections::BTreeMap;

use crate::metric::formula::{RBP_DEPTH, Ranked};

/// Measure of one query's ranking. Values are those of `ir_measures` 0.4.3, over rankings in the
/// order of [`hyperrag_core::rank_order`]; [`crate::metric::measure_name`] says where those differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    pub(crate) kind: Kind,
    pub(crate) cutoff: Option<usize>,
    pub(crate) options: Options,
}

/// Formula of a measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ndcg,
    Ap,
    Rr,
    Recall,
    Precision,
    Success,
    Judged,
    Bpref,
    Rprec,
    SetP,
    SetR,
    SetF,
    SetAp,
    InfAp,
    Rbp,
    Err,
}

/// Settings in the parentheses after a name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    /// Smallest grade of a relevant document.
    pub(crate) rel: i32,
    /// Documents without a grade of at least 0 are taken out of the ranking.
    pub(crate) judged_only: bool,
    /// Precision over the most that the ranking could have.
    pub(crate) relative: bool,
    /// Weight of recall in SetF.
    pub(crate) beta: f64,
    /// Persistence of the reader in RBP.
    pub(crate) p: f64,
    /// Gains are 2 to the power of the grade, less 1.
    pub(crate) exponential: bool,
    /// Gains of grades; other grades are their own gains.
    pub(crate) gains: BTreeMap<i32, i32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rel: 1,
            judged_only: false,
            relative: false,
            beta: 1.0,
            p: 0.8,
            exponential: false,
            gains: BTreeMap::new(),
        }
    }
}

/// Highest grade of ERR, by which its probabilities are scaled: that of TREC's web tracks.
const ERR_GRADE_MAX: i32 = 4;
/// Highest grade of which a gain is made by a power of 2.
const EXPONENT_MAX: i32 = 30;

impl Measure {
    /// Highest grade that the measure is defined for; `None` for all that count any grade.
    #[must_use]
    pub fn grade_max(&self) -> Option<i32> {
        match self.kind {
            Kind::Err => Some(ERR_GRADE_MAX),
            Kind::Ndcg if self.options.exponential => Some(EXPONENT_MAX),
            _ => None,
        }
    }

    /// Value for documents of these grades, best first (`None` for those that nobody judged), where
    /// `judged` are the grades of all that were judged. It is 0 where none is relevant.
    #[must_use]
    pub fn value(&self, grades: &[Option<i32>], judged: &[i32]) -> f64 {
        let Options { rel, judged_only, relative, beta, p, .. } = self.options;
        let kept: Vec<Option<i32>>;
        let grades = match judged_only {
            true => {
                let judged = |grade: &&Option<i32>| grade.is_some_and(|grade| grade >= 0);
                kept = grades.iter().filter(judged).copied().collect();
                &kept
            }
            false => grades,
        };
        let all = Ranked { grades, judged, rel };
        let cutoff = self.cutoff.unwrap_or(usize::MAX);
        let top = all.top(cutoff);
        let relevant = all.relevant();
        let value = match self.kind {
            Kind::Ndcg => top.ndcg(cutoff, |grade| self.gain(grade)),
            Kind::Ap => top.average_precision(),
            Kind::Rr => top.reciprocal_rank(),
            Kind::Recall | Kind::SetR => ratio(top.found(), relevant),
            Kind::Precision => ratio(top.found(), cutoff),
            Kind::Success => f64::from(u8::from(top.found() > 0)),
            Kind::Judged => {
                let known = top.grades.iter().filter(|grade| grade.is_some()).count();
                ratio(known, top.grades.len())
            }
            Kind::Bpref => all.bpref(),
            Kind::Rprec => ratio(all.top(relevant).found(), relevant),
            Kind::SetP if relative => ratio(all.found(), relevant.min(all.grades.len())),
            Kind::SetP => ratio(all.found(), all.grades.len()),
            Kind::SetF => all.set_f(beta),
            Kind::SetAp => ratio(all.found(), all.grades.len()) * ratio(all.found(), relevant),
            Kind::InfAp => all.inferred_ap(),
            Kind::Rbp => all.top(RBP_DEPTH).rank_biased_precision(p),
            Kind::Err => top.expected_reciprocal_rank(ERR_GRADE_MAX),
        };
        // A sum of nothing is -0.
        value + 0.0
    }

    /// Gain of a grade, at least 0.
    fn gain(&self, grade: i32) -> f64 {
        let gain = f64::from(self.options.gains.get(&grade).copied().unwrap_or(grade).max(0));
        if self.options.exponential { gain.exp2() - 1.0 } else { gain }
    }
}

/// Returns 0 where there is nothing to divide by.
fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: f64) {
        let grades = [Some(0), Some(2), None, Some(-1), Some(1)];
        let value = name.parse::<Measure>().unwrap().value(&grades, &[0, 1, 2, -1, 3]);
        assert!((value - expected).abs() < 1e-12, "{name} {value}");
    }

    #[test]
    fn ranked_values_by_hand() {
        let log = |n: f64| n.log2();
        let ideal = 3.0 + 2.0 / log(3.0) + 0.5;
        check("nDCG", (2.0 / log(3.0) + 1.0 / log(6.0)) / ideal);
        check("nDCG@2", 2.0 / log(3.0) / (3.0 + 2.0 / log(3.0)));
        check("nDCG(gains={2:5})@2", 5.0 / log(3.0) / (5.0 + 3.0 / log(3.0)));
        check("nDCG(dcg='exp-log2')@2", 3.0 / log(3.0) / (7.0 + 3.0 / log(3.0)));
        check("AP", (0.5 + 2.0 / 5.0) / 3.0);
        check("AP@3", 0.5 / 3.0);
        check("AP(rel=2)", 0.5 / 2.0);
        check("AP(judged_only=True)", (0.5 + 2.0 / 3.0) / 3.0);
        check("RR", 0.5);
        check("RR@1", 0.0);
        check("RR(rel=3)", 0.0);
        check("ERR@5", 3.0 / 16.0 / 2.0 + 13.0 / 16.0 / 16.0 / 5.0);
        check("RBP(rel=1,p=0.5)", 0.25 + 0.03125);
        check("RBP(rel=1,p=1.0)", 2.0 / 1000.0);
    }

    #[test]
    fn set_values_by_hand() {
        check("R@2", 1.0 / 3.0);
        check("P@10", 0.2);
        check("P(rel=2)@2", 0.5);
        check("Success@1", 0.0);
        check("Success@2", 1.0);
        check("Judged@3", 2.0 / 3.0);
        check("Judged@100", 0.8);
        check("Rprec", 1.0 / 3.0);
        check("SetP", 0.4);
        check("SetP(relative=True)", 2.0 / 3.0);
        check("SetR", 2.0 / 3.0);
        check("SetF", 0.5);
        check("SetF(beta=2.0)", 3.0 * 0.4 * (2.0 / 3.0) / (2.0 / 3.0 + 0.8));
        check("SetAP", 0.4 * 2.0 / 3.0);
        // One document that is not relevant stands before both, of one that there is.
        check("Bpref", 0.0);
        check("Bpref(rel=2)", 0.25);
    }

    #[test]
    fn inferred_precision_by_hand() {
        let epsilon = 1e-5;
        let first = 0.5 + 0.5 * 1.0 * epsilon / (1.0 + 2.0 * epsilon);
        // Of four before the last, three were in the pool: one relevant, one not, one without a grade.
        let share = (1.0 + epsilon) / (2.0 + 2.0 * epsilon);
        let second = 0.2 + 0.8 * (3.0 / 4.0) * share;
        check("infAP", (first + second) / 3.0);
    }
}
