//! The plan of a build that many processes share: fingerprint, units and settings come in, checksummed bytes go
//! out, and back. It opens no file and knows no place.

use std::ops::Range;

use hyperrag_core::{Digest, FileVersion, Fingerprint};
use serde::{Deserialize, Serialize};

use crate::format::envelope::{self, Envelope};
use crate::format::notes::StoreNotes;
use crate::format::records::ShardRecord;
use crate::format::version::is_known;

/// Name of the plan in its envelope.
const ENVELOPE: &str = "plan";

/// Largest plan, in bytes.
pub const PLAN_BYTES_MAX: u64 = 1 << 20;

/// Number and digest of the rows of units, in order: of each unit its rows (8 bytes) and the digest of its rows
/// are hashed.
#[derive(Clone, Debug, Default)]
pub struct UnitsHasher {
    hasher: blake3::Hasher,
    units: u32,
    rows: u64,
}

/// Units of an input: as many, and of the same rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitsDigest {
    /// Number of units.
    pub units: u32,
    /// Number of rows in them.
    pub rows: u64,
    /// Digest of their rows, see [`UnitsHasher`].
    pub digest: Digest,
}

impl UnitsHasher {
    /// Adds the next unit.
    pub fn add(&mut self, rows: u64, digest: &Digest) {
        self.hasher.update(&rows.to_le_bytes()).update(&digest.0);
        self.units += 1;
        self.rows += rows;
    }

    /// Returns the digest of the units so far.
    #[must_use]
    pub fn finish(&self) -> UnitsDigest {
        let digest = Digest(*self.hasher.finalize().as_bytes());
        UnitsDigest { units: self.units, rows: self.rows, digest }
    }
}

impl UnitsDigest {
    /// Returns the digest of the units from which these shards were made.
    #[must_use]
    pub fn of(shards: &[ShardRecord]) -> Self {
        let mut hasher = UnitsHasher::default();
        shards.iter().for_each(|record| hasher.add(record.rows, &record.rows_digest));
        hasher.finish()
    }
}

/// Objects that are named in a plan: with the longest names, half of [`PLAN_BYTES_MAX`].
const OBJECTS_NAMED: usize = 400;

/// Files outside the machines that build, as they were when the plan was made, and the way to read them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputObjects {
    /// Number of the objects.
    pub count: u64,
    /// Digest of name, length and version of each, in order.
    pub digest: Digest,
    /// The first 400 of them.
    pub first: Vec<FileVersion>,
    /// Digest of the settings that decide which rows they have.
    pub reading: Digest,
}

impl InputObjects {
    /// Takes all objects of an input, in order; `None` if there are none.
    #[must_use]
    pub fn of(versions: &[FileVersion], reading: Digest) -> Option<Self> {
        let mut hasher = blake3::Hasher::new();
        for FileVersion { name, bytes, e_tag } in versions {
            for text in [name, e_tag] {
                hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
            }
            hasher.update(&bytes.to_le_bytes());
        }
        let digest = Digest(*hasher.finalize().as_bytes());
        let first = versions.iter().take(OBJECTS_NAMED).cloned().collect();
        let count = versions.len() as u64;
        (count > 0).then_some(Self { count, digest, first, reading })
    }

    /// Returns the first object that is another one here than in `other`; `None` if none of the named is.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<&FileVersion> {
        let differs = |(n, object): &(usize, &FileVersion)| other.first.get(*n) != Some(*object);
        self.first.iter().enumerate().find(differs).map(|(_, object)| object)
    }
}

/// Plan of a build that many processes share. Each makes it from its own input, and goes on only if it is equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildPlan {
    /// Fingerprint of the store.
    pub fingerprint: Fingerprint,
    /// Units of the input.
    pub input: UnitsDigest,
    /// Units of a span, which one process builds at a time. The last span may have fewer.
    pub span_units: u32,
    /// Seconds without a sign of life after which another process takes a span over.
    pub patience_seconds: u64,
    /// Names that the store will note.
    pub notes: StoreNotes,
    /// Objects of the input, if the one who made the plan had the input from outside its machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<InputObjects>,
}

impl BuildPlan {
    /// Returns the plan's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let body = serde_json::to_string(self).expect("a plan has only plain fields");
        envelope::encode(ENVELOPE, &body)
    }

    /// Parses a plan. Its checksum is checked first.
    ///
    /// # Errors
    /// [`PlanFault`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PlanFault> {
        let no_plan = |error: serde_json::Error| PlanFault(format!("no plan of a build: {error}"));
        let envelope = Envelope::parse(ENVELOPE, bytes).map_err(no_plan)?;
        let body = envelope.checked().map_err(PlanFault)?;
        let plan: Self = serde_json::from_str(body).map_err(no_plan)?;
        match is_known(plan.fingerprint.format_version) && plan.span_units > 0 {
            true => Ok(plan),
            false => {
                Err(PlanFault("it is of a version that this program does not know".to_owned()))
            }
        }
    }

    /// Number of spans.
    #[must_use]
    pub fn spans(&self) -> u32 {
        self.input.units.div_ceil(self.span_units)
    }

    /// Returns the units of a span.
    #[must_use]
    pub fn units_of(&self, span: u32) -> Range<u32> {
        let start = span.saturating_mul(self.span_units).min(self.input.units);
        start..start.saturating_add(self.span_units).min(self.input.units)
    }
}

/// Says what is wrong with a plan, or with what came of a span.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlanFault(pub(crate) String);

#[cfg(test)]
mod tests {
    use hyperrag_core::{KvDtype, KvShape};

    use super::*;
    use crate::format::version::FORMAT_VERSION;

    fn plan(units: u32) -> BuildPlan {
        let (layers, kv_heads, kv_dtype) = (1, 1, KvDtype::F32);
        let fingerprint = Fingerprint {
            format_version: FORMAT_VERSION,
            model: "fake".into(),
            weights: Digest([1; 32]),
            tokenizer: Digest([2; 32]),
            profile: "plain".into(),
            profile_digest: Digest([3; 32]),
            chunk_tokens: 16,
            unit_rows: 1,
            language: "english".into(),
            kv_shape: KvShape { layers, kv_heads, head_dim: 4, hidden: 8, kv_dtype },
            calibration: None,
            rope: "interleaved".into(),
            dtype: "f32".into(),
            kernel: "cpu-f32-v1".into(),
        };
        let mut hasher = UnitsHasher::default();
        (0..units).for_each(|unit| hasher.add(u64::from(unit), &Digest([unit as u8; 32])));
        let notes = StoreNotes { model: Some("tiny".to_owned()), ..StoreNotes::default() };
        let input = hasher.finish();
        let (span_units, patience_seconds, objects) = (16, 90, None);
        BuildPlan { fingerprint, input, span_units, patience_seconds, notes, objects }
    }

    #[test]
    fn a_plan_comes_back_and_no_byte_may_change() {
        let plan = plan(33);
        let bytes = plan.to_bytes();
        assert_eq!(BuildPlan::parse(&bytes), Ok(plan.clone()));
        for at in 0..bytes.len() - 1 {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_ne!(BuildPlan::parse(&changed), Ok(plan.clone()), "byte {at}");
        }
        let later = Fingerprint { format_version: 99, ..plan.fingerprint.clone() };
        let later = BuildPlan { fingerprint: later, ..plan.clone() };
        assert!(BuildPlan::parse(&later.to_bytes()).is_err());
        assert!(BuildPlan::parse(&BuildPlan { span_units: 0, ..plan }.to_bytes()).is_err());
    }

    #[test]
    fn spans_have_every_unit_once() {
        for (units, spans) in [(0, 0), (1, 1), (16, 1), (17, 2), (33, 3)] {
            let plan = plan(units);
            assert_eq!(plan.spans(), spans);
            let all: Vec<u32> = (0..spans).flat_map(|span| plan.units_of(span)).collect();
            assert_eq!(all, (0..units).collect::<Vec<_>>());
        }
        assert!(plan(3).units_of(u32::MAX).is_empty());
    }

    #[test]
    fn the_order_and_the_bounds_of_units_matter() {
        let of = |units: &[(u64, u8)]| {
            let mut hasher = UnitsHasher::default();
            units.iter().for_each(|(rows, digest)| hasher.add(*rows, &Digest([*digest; 32])));
            hasher.finish()
        };
        let found = of(&[(1, 1), (2, 2)]);
        assert_eq!((found.units, found.rows), (2, 3));
        for other in [of(&[(2, 2), (1, 1)]), of(&[(2, 1), (1, 2)]), of(&[(1, 1)])] {
            assert_ne!(found, other);
        }
    }

    #[test]
    fn objects_are_told_apart_and_older_plans_have_none() {
        let version = |name: &str, bytes, e_tag: &str| FileVersion {
            name: name.to_owned(),
            bytes,
            e_tag: e_tag.to_owned(),
        };
        let reading = Digest([7; 32]);
        let many: Vec<_> =
            (0..500).map(|n| version(&format!("{}{n:04}", "x".repeat(1000)), n, "e")).collect();
        let objects = InputObjects::of(&many, reading).unwrap();
        let plan = BuildPlan { objects: Some(objects.clone()), ..plan(5) };
        assert!((plan.to_bytes().len() as u64) < PLAN_BYTES_MAX);
        assert_eq!(BuildPlan::parse(&plan.to_bytes()), Ok(plan.clone()));
        for n in [3, 450] {
            for (bytes, e_tag) in [(n as u64, "other"), (9999, "e")] {
                let mut others = many.clone();
                others[n] = version(&many[n].name, bytes, e_tag);
                let others = InputObjects::of(&others, reading).unwrap();
                assert_ne!(others.digest, objects.digest);
                assert_eq!(others.difference(&objects), others.first.get(n));
            }
        }
        assert_eq!(objects.difference(&objects), None);
        assert_eq!(InputObjects::of(&[], reading), None);
        let older = BuildPlan { objects: None, ..plan };
        let bytes = older.to_bytes();
        assert!(!String::from_utf8(bytes.clone()).unwrap().contains("objects"));
        assert_eq!(BuildPlan::parse(&bytes), Ok(older));
    }
}
