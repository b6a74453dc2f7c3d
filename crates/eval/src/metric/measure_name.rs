//! Names of measures, as `nDCG@10` or `P(rel=2)@5`: text in, measures out, and back.
//!
//! Names are those of `ir_measures` 0.4.3, and so are the values, but for this:
//!
//! * `ir_measures` takes RR@k, Judged and RBP from programs that order equal scores in another way, and
//!   ERR and nDCG with `dcg='exp-log2'` from one that compares scores in double precision and rounds
//!   values to five digits. Here there is one order, [`hyperrag_core::rank_order`].
//! * It asks each `dcg='exp-log2'` for a cutoff; here it may be left out.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::metric::measure::{Kind, Measure, Options};

/// Whether a name has `@k`.
#[derive(Clone, Copy, PartialEq)]
enum Cutoff {
    Without,
    May,
    Must,
}

/// Names of one kind, the first of which is printed, and what may stand after them.
struct Form {
    kind: Kind,
    names: &'static [&'static str],
    cutoff: Cutoff,
    options: &'static [&'static str],
}

const fn form(
    kind: Kind,
    names: &'static [&'static str],
    cutoff: Cutoff,
    options: &'static [&'static str],
) -> Form {
    Form { kind, names, cutoff, options }
}

const FORMS: [Form; 17] = [
    form(Kind::Ndcg, &["nDCG", "NDCG"], Cutoff::May, &["dcg", "gains", "judged_only"]),
    form(Kind::Ap, &["AP", "MAP"], Cutoff::May, &["rel", "judged_only"]),
    form(Kind::Rr, &["RR", "MRR"], Cutoff::May, &["rel", "judged_only"]),
    form(Kind::Recall, &["R", "Recall"], Cutoff::Must, &["rel", "judged_only"]),
    form(Kind::Precision, &["P", "Precision"], Cutoff::Must, &["rel", "judged_only"]),
    form(Kind::Success, &["Success"], Cutoff::Must, &["rel", "judged_only"]),
    form(Kind::Judged, &["Judged"], Cutoff::May, &[]),
    form(Kind::Bpref, &["Bpref", "BPref"], Cutoff::Without, &["rel"]),
    form(Kind::Rprec, &["Rprec", "RPrec"], Cutoff::Without, &["rel", "judged_only"]),
    form(Kind::SetP, &["SetP"], Cutoff::Without, &["rel", "relative", "judged_only"]),
    form(Kind::SetP, &["SetRelP"], Cutoff::Without, &["rel", "relative", "judged_only"]),
    form(Kind::SetR, &["SetR"], Cutoff::Without, &["rel"]),
    form(Kind::SetF, &["SetF"], Cutoff::Without, &["rel", "beta", "judged_only"]),
    form(Kind::SetAp, &["SetAP"], Cutoff::Without, &["rel", "judged_only"]),
    form(Kind::InfAp, &["infAP"], Cutoff::Without, &["rel"]),
    form(Kind::Rbp, &["RBP"], Cutoff::Without, &["rel", "p"]),
    form(Kind::Err, &["ERR"], Cutoff::Must, &[]),
];

/// Name that no measure has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no measure: {reason}")]
pub struct UnknownMeasure {
    /// The name.
    pub name: String,
    /// Sentence on what is wrong with it.
    pub reason: String,
}

/// Measures in a list, parted by commas.
#[derive(Clone, Debug, PartialEq)]
pub struct Measures(pub Vec<Measure>);

impl FromStr for Measures {
    type Err = UnknownMeasure;

    fn from_str(text: &str) -> Result<Self, UnknownMeasure> {
        parted(text, ',').into_iter().map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Measure {
    type Err = UnknownMeasure;

    fn from_str(text: &str) -> Result<Self, UnknownMeasure> {
        parse(text).map_err(|reason| UnknownMeasure { name: text.to_owned(), reason })
    }
}

fn parse(text: &str) -> Result<Measure, String> {
    let (text, mut cutoff) = match parted(text, '@')[..] {
        [measure] => (measure, None),
        [measure, cutoff] => (measure, Some(cutoff_of(cutoff)?)),
        _ => return Err("it has more than one @".to_owned()),
    };
    let (name, inner) = match text.split_once('(') {
        None => (text.trim(), ""),
        Some((name, rest)) => {
            let inner = rest.trim_end().strip_suffix(')');
            (name.trim(), inner.ok_or("a parenthesis is open")?)
        }
    };
    let form = form_of(name)?;
    let mut options = Options { relative: name == "SetRelP", ..Options::default() };
    let mut given = Vec::new();
    for option in parted(inner, ',').into_iter().filter(|option| !option.trim().is_empty()) {
        let (key, value) = option.split_once('=').ok_or("an option is written as rel=2")?;
        let (key, value) = (key.trim(), value.trim());
        if given.contains(&key) {
            return Err(format!("{key} is given twice"));
        }
        given.push(key);
        match key {
            "cutoff" if form.cutoff != Cutoff::Without && cutoff.is_none() => {
                cutoff = Some(cutoff_of(value)?);
            }
            key if form.options.contains(&key) => set(&mut options, key, value)?,
            key => {
                let known = match form.options {
                    [] => "none".to_owned(),
                    known => known.join(", "),
                };
                return Err(format!("{name} has no option {key:?}; its options: {known}"));
            }
        }
    }
    if form.kind == Kind::Rbp && !given.contains(&"rel") {
        return Err("name the smallest grade of a relevant document, as in RBP(rel=1,p=0.8)".into());
    }
    if options.exponential && !options.gains.is_empty() {
        return Err("gains are made by dcg or by gains, not by both".to_owned());
    }
    match (form.cutoff, cutoff) {
        (Cutoff::Without, Some(_)) => Err(format!("{name} has no @k")),
        (Cutoff::Must, None) => Err(format!("{name} needs a cutoff, as in {name}@10")),
        _ => Ok(Measure { kind: form.kind, cutoff, options }),
    }
}

fn form_of(name: &str) -> Result<&'static Form, String> {
    let forms = || FORMS.iter().flat_map(|form| form.names.iter().map(move |name| (*name, form)));
    if let Some((_, form)) = forms().find(|(known, _)| *known == name) {
        return Ok(form);
    }
    Err(match forms().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
        Some((known, form)) if form.cutoff == Cutoff::Without => format!("write {known}"),
        Some((known, _)) => format!("write {known}, as in {known}@10"),
        None => {
            let names: Vec<&str> = FORMS.iter().map(|form| form.names[0]).collect();
            format!("known are {}, as in nDCG@10", names.join(", "))
        }
    })
}

fn cutoff_of(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let plain = |number: &usize| *number > 0 && number.to_string() == text;
    let cutoff = text.parse().ok().filter(plain);
    cutoff.ok_or_else(|| format!("the cutoff {text:?} is no number from 1, as in nDCG@10"))
}

fn set(options: &mut Options, key: &str, value: &str) -> Result<(), String> {
    let wrong = |wanted: &str| format!("{key} is {value:?}, not {wanted}");
    let number = || value.parse::<f64>().ok().filter(|number| number.is_finite());
    match key {
        "rel" => {
            let rel = value.parse().ok().filter(|rel| *rel > 0);
            options.rel = rel.ok_or_else(|| wrong("a whole number from 1"))?;
        }
        "judged_only" => options.judged_only = flag(value).ok_or_else(|| wrong("True or False"))?,
        "relative" => options.relative = flag(value).ok_or_else(|| wrong("True or False"))?,
        "beta" => {
            let beta = number().filter(|beta| *beta >= 0.0);
            options.beta = beta.ok_or_else(|| wrong("a number from 0"))?;
        }
        "p" => {
            let p = number().filter(|p| (0.0..=1.0).contains(p));
            options.p = p.ok_or_else(|| wrong("a number from 0 to 1"))?;
        }
        "dcg" => {
            options.exponential = match value.trim_matches(['\'', '"']) {
                "log2" => false,
                "exp-log2" => true,
                _ => return Err(wrong("'log2' or 'exp-log2'")),
            };
        }
        _ => options.gains = gains(value).ok_or_else(|| wrong("gains, as {1:1,2:4}"))?,
    }
    Ok(())
}

fn flag(value: &str) -> Option<bool> {
    match value {
        "True" | "true" => Some(true),
        "False" | "false" => Some(false),
        _ => None,
    }
}

/// Reads `{grade:gain,...}`.
fn gains(value: &str) -> Option<BTreeMap<i32, i32>> {
    let inner = value.strip_prefix('{')?.strip_suffix('}')?;
    let pair = |pair: &str| {
        let (grade, gain) = pair.split_once(':')?;
        Some((grade.trim().parse().ok()?, gain.trim().parse().ok()?))
    };
    inner.split(',').filter(|text| !text.trim().is_empty()).map(pair).collect()
}

/// Parts a text at a character that stands in no parenthesis.
fn parted(text: &str, at: char) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0_usize, 0, Vec::new());
    for (place, character) in text.char_indices() {
        match character {
            '(' | '{' => depth += 1,
            ')' | '}' => depth = depth.saturating_sub(1),
            character if character == at && depth == 0 => {
                parts.push(&text[start..place]);
                start = place + at.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name =
            FORMS.iter().find(|form| form.kind == self.kind).map_or("", |form| form.names[0]);
        f.write_str(name)?;
        let (own, usual) = (&self.options, Options::default());
        let mut options = Vec::new();
        let mut option = |differs: bool, text: String| options.extend(differs.then_some(text));
        option(own.exponential, "dcg='exp-log2'".to_owned());
        // A gain that is the grade itself says nothing.
        let gains = own.gains.iter().filter(|(grade, gain)| grade != gain);
        let gains: Vec<String> = gains.map(|(grade, gain)| format!("{grade}:{gain}")).collect();
        option(!own.gains.is_empty(), format!("gains={{{}}}", gains.join(",")));
        option(own.rel != usual.rel || self.kind == Kind::Rbp, format!("rel={}", own.rel));
        option(own.relative, "relative=True".to_owned());
        option(own.beta != usual.beta, format!("beta={:?}", own.beta));
        option(own.p != usual.p, format!("p={:?}", own.p));
        option(own.judged_only, "judged_only=True".to_owned());
        if !options.is_empty() {
            write!(f, "({})", options.join(","))?;
        }
        self.cutoff.map_or(Ok(()), |cutoff| write!(f, "@{cutoff}"))
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

    const NAMES: [&str; 24] = [
        "nDCG",
        "nDCG@10",
        "nDCG(dcg='exp-log2')@10",
        "nDCG(gains={2:4})@10",
        "AP",
        "AP@5",
        "AP(rel=2)@5",
        "RR",
        "RR@10",
        "R@100",
        "P@1",
        "P(rel=2,judged_only=True)@1",
        "Success@3",
        "Judged",
        "Judged@10",
        "Bpref",
        "Rprec(rel=3)",
        "SetP(relative=True)",
        "SetR",
        "SetF(beta=2.0)",
        "SetAP",
        "infAP",
        "RBP(rel=1,p=0.5)",
        "ERR@20",
    ];

    #[test]
    fn names_go_there_and_back() {
        for name in NAMES {
            assert_eq!(name.parse::<Measure>().unwrap().to_string(), name);
        }
        let check = |name: &str, plain: &str| {
            assert_eq!(name.parse::<Measure>().unwrap().to_string(), plain);
        };
        check("MAP", "AP");
        check("MRR@10", "RR@10");
        check("NDCG@3", "nDCG@3");
        check("Precision@3", "P@3");
        check("Recall@3", "R@3");
        check("BPref", "Bpref");
        check("RPrec(rel=1)", "Rprec");
        check("SetRelP", "SetP(relative=True)");
        check(" P( rel = 2 ) @ 5", "P(rel=2)@5");
        check("P(cutoff=5)", "P@5");
        check("nDCG(gains={0:0, 1:1, 2:4}, dcg=\"log2\")@10", "nDCG(gains={2:4})@10");
        check("RBP(p=0.8,rel=2)", "RBP(rel=2)");
    }

    #[test]
    fn commas_within_parentheses_part_no_measures() {
        let list = "P(rel=2,judged_only=True)@5,nDCG(gains={0:0,2:4})@10, AP";
        let Measures(measures) = list.parse().unwrap();
        let names: Vec<String> = measures.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["P(rel=2,judged_only=True)@5", "nDCG(gains={2:4})@10", "AP"]);
        assert!("AP,,RR".parse::<Measures>().is_err());
    }

    #[test]
    fn wrong_names_are_explained() {
        let check = |name: &str, expected: &str| {
            let error = name.parse::<Measure>().unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("is no measure"), "{error}");
        };
        check("", "as in nDCG@10");
        check("ndcg@10", "write nDCG, as in nDCG@10");
        check("bpref", "write Bpref");
        check("R", "needs a cutoff, as in R@10");
        check("ERR", "needs a cutoff, as in ERR@10");
        check("Bpref@10", "Bpref has no @k");
        for name in ["nDCG@0", "nDCG@", "AP@x", "AP@-1", "AP@+1", "AP@1.0"] {
            check(name, "is no number from 1");
        }
        check("AP@1@2", "more than one @");
        check("P(rel=0)@5", "rel is \"0\", not a whole number from 1");
        check("P(rel=2@5", "parenthesis");
        check("P(2)@5", "an option is written as rel=2");
        check("P(rel=2,rel=3)@5", "rel is given twice");
        check("P(p=2)@5", "P has no option \"p\"; its options: rel, judged_only");
        check("Judged(rel=2)", "its options: none");
        check("RBP(p=0.8)", "as in RBP(rel=1,p=0.8)");
        check("RBP(rel=1,p=1.5)", "a number from 0 to 1");
        check("SetF(beta=nan)", "a number from 0");
        check("nDCG(gains={1})@5", "gains, as {1:1,2:4}");
        check("nDCG(dcg='ln')@5", "'log2' or 'exp-log2'");
        check("nDCG(dcg='exp-log2',gains={1:2})", "not by both");
        check("P(judged_only=1)@5", "True or False");
    }

    #[test]
    fn nothing_relevant_and_nothing_ranked_are_zero_without_a_sign() {
        for name in NAMES {
            let measure: Measure = name.parse().unwrap();
            for (grades, judged) in [(&[][..], &[1][..]), (&[None, Some(-1)], &[-1]), (&[], &[])] {
                let value = measure.value(grades, judged);
                let judged = name.starts_with("Judged") && !grades.is_empty();
                assert!(judged || value == 0.0, "{name} {value}");
                assert!(value.is_sign_positive(), "{name} {value}");
            }
        }
    }
}
