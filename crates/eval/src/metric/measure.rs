//! Measures by their names, as `nDCG@10`: grades of ranked documents in, one number out.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A measure of one query's ranking, under its name in `ir_measures`; values are those of
/// `trec_eval`. `ir_measures` itself takes RR@k from elsewhere, where ties go the other way; here RR@k
/// is RR, cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Measure {
    kind: Kind,
    cutoff: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Ndcg,
    Ap,
    Rr,
    Recall,
    Precision,
    Success,
}

/// All kinds, by name, and whether they need a cutoff.
const KINDS: [(&str, Kind, bool); 6] = [
    ("nDCG", Kind::Ndcg, false),
    ("AP", Kind::Ap, false),
    ("RR", Kind::Rr, false),
    ("R", Kind::Recall, true),
    ("P", Kind::Precision, true),
    ("Success", Kind::Success, true),
];

/// A name that no measure has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no measure: name nDCG, AP or RR, with @k or without, or R@k, P@k or Success@k, as in \
     nDCG@10"
)]
pub struct UnknownMeasure(pub String);

impl Measure {
    /// The value for documents of these `grades`, best first (0 for those that nobody judged), where
    /// `judged` are the grades of all that were judged. It is 0 where none is relevant.
    ///
    /// nDCG: Järvelin and Kekäläinen 2002, with the grade as gain and log2(rank + 1) as discount.
    #[must_use]
    pub fn value(&self, grades: &[i32], judged: &[i32]) -> f64 {
        let relevant = judged.iter().filter(|grade| **grade > 0).count();
        let cutoff = self.cutoff.unwrap_or(usize::MAX);
        let seen = &grades[..grades.len().min(cutoff)];
        let found = seen.iter().filter(|grade| **grade > 0).count() as f64;
        if relevant == 0 {
            return 0.0;
        }
        match self.kind {
            Kind::Ndcg => {
                let mut ideal = judged.to_vec();
                ideal.sort_unstable_by(|a, b| b.cmp(a));
                ideal.truncate(cutoff);
                dcg(seen) / dcg(&ideal)
            }
            Kind::Ap => {
                let ranks = (1..).zip(seen).filter(|(_, grade)| **grade > 0);
                let precisions = (1..)
                    .zip(ranks)
                    .map(|(found, (rank, _)): (u32, (u32, _))| f64::from(found) / f64::from(rank));
                precisions.sum::<f64>() / relevant as f64
            }
            Kind::Rr => {
                let first = seen.iter().position(|grade| *grade > 0);
                first.map_or(0.0, |before| 1.0 / (before + 1) as f64)
            }
            Kind::Recall => found / relevant as f64,
            Kind::Precision => found / cutoff as f64,
            Kind::Success => f64::from(u8::from(found > 0.0)),
        }
    }
}

fn dcg(grades: &[i32]) -> f64 {
    let gain = |(rank, grade): (u32, &i32)| f64::from((*grade).max(0)) / f64::from(rank + 1).log2();
    (1..).zip(grades).map(gain).sum()
}

impl FromStr for Measure {
    type Err = UnknownMeasure;

    fn from_str(text: &str) -> Result<Self, UnknownMeasure> {
        let unknown = || UnknownMeasure(text.to_owned());
        let (name, cutoff) = match text.split_once('@') {
            Some((name, cutoff)) => {
                let plain = |number: &usize| *number > 0 && number.to_string() == cutoff;
                (name, Some(cutoff.parse().ok().filter(plain).ok_or_else(unknown)?))
            }
            None => (text, None),
        };
        let known = KINDS.iter().find(|(known, ..)| *known == name).ok_or_else(unknown)?;
        match known {
            (_, _, true) if cutoff.is_none() => Err(unknown()),
            (_, kind, _) => Ok(Self { kind: *kind, cutoff }),
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = KINDS.iter().find(|(_, kind, _)| *kind == self.kind).map_or("", |kind| kind.0);
        match self.cutoff {
            Some(cutoff) => write!(f, "{name}@{cutoff}"),
            None => f.write_str(name),
        }
    }
}

impl Serialize for Measure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for name in ["nDCG", "nDCG@10", "AP", "AP@5", "RR", "RR@10", "R@100", "P@1", "Success@3"] {
            assert_eq!(name.parse::<Measure>().unwrap().to_string(), name);
        }
        for name in
            ["", "ndcg@10", "R", "P", "Success", "nDCG@0", "nDCG@", "AP@x", "AP@-1", "AP@+1"]
        {
            assert!(name.parse::<Measure>().unwrap_err().to_string().contains("nDCG@10"), "{name}");
        }
    }

    #[test]
    fn values_by_hand() {
        let check = |name: &str, expected: f64| {
            let value = name.parse::<Measure>().unwrap().value(&[0, 2, -1, 1], &[1, 2, -1, 3]);
            assert!((value - expected).abs() < 1e-12, "{name} {value}");
        };
        let ideal = 3.0 + 2.0 / 3_f64.log2() + 0.5;
        check("nDCG", (2.0 / 3_f64.log2() + 1.0 / 5_f64.log2()) / ideal);
        check("nDCG@2", 2.0 / 3_f64.log2() / (3.0 + 2.0 / 3_f64.log2()));
        check("AP", (0.5 + 0.5) / 3.0);
        check("AP@3", 0.5 / 3.0);
        check("RR", 0.5);
        check("RR@1", 0.0);
        check("R@2", 1.0 / 3.0);
        check("P@10", 0.2);
        check("Success@1", 0.0);
        check("Success@2", 1.0);
        let none: Measure = "nDCG@10".parse().unwrap();
        assert_eq!(none.value(&[0], &[0, -1]), 0.0);
        assert_eq!(none.value(&[], &[1]), 0.0);
    }
}
