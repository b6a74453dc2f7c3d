//! Inputs of a build that lie in buckets. In: `s3://` URLs and logins. Out: objects that are read by ranges. It knows
//! no format of an input.

use std::sync::{Arc, Mutex, PoisonError};

use hyperrag_core::{FolderEntry, RangePlace, RangeRead, TierError};
use hyperrag_tiers::{ObjectReader, S3Spec, TierSpec};

use crate::open::tiers::TierLogins;

/// Buckets that inputs are read from, each opened once.
pub struct BucketInputs {
    logins: TierLogins,
    buckets: Mutex<Vec<(S3Spec, ObjectReader)>>,
}

/// An object or a folder of objects, as a URL names it.
struct Named<'a> {
    spec: S3Spec,
    key: &'a str,
    /// Options of the URL, with the question mark; empty if it has none.
    options: &'a str,
}

impl BucketInputs {
    /// Takes the secrets that the buckets are opened with. Nothing is sent.
    #[must_use]
    pub fn new(logins: TierLogins) -> Self {
        Self { logins, buckets: Mutex::default() }
    }

    fn reader(&self, spec: &S3Spec) -> Result<ObjectReader, TierError> {
        // A panic of another thread does not matter: every change is one step.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, reader)) = buckets.iter().find(|(opened, _)| opened == spec) {
            return Ok(reader.clone());
        }
        let reader = ObjectReader::open(&self.logins.object(spec)?)?;
        buckets.push((spec.clone(), reader.clone()));
        Ok(reader)
    }
}

impl<'a> Named<'a> {
    /// Parses `s3://BUCKET/KEY?region=..&endpoint=..`. The key is taken as it stands.
    fn parse(url: &'a str) -> Result<Self, TierError> {
        let refused = |words: &str| TierError::Refused(words.to_owned());
        let rest = url.strip_prefix("s3://");
        let rest = rest.ok_or_else(|| refused("inputs are read from paths and s3:// alone"))?;
        let (place, options) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
        let (bucket, key) = place.split_once('/').unwrap_or((place, ""));
        // Not repeated where it is none: it may be a password.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !bucket.chars().all(plain) {
            return Err(refused(
                "the URL names no bucket as s3://BUCKET/KEY; keys to it are given as AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY in the environment",
            ));
        }
        let spec = format!("s3://{bucket}{options}").parse();
        match spec.map_err(|error: hyperrag_tiers::SpecError| refused(&error.to_string()))? {
            TierSpec::S3(spec) => Ok(Self { spec, key, options }),
            _ => Err(refused("the URL names no bucket as s3://BUCKET/KEY")),
        }
    }
}

impl RangePlace for BucketInputs {
    fn open(&self, url: &str) -> Result<Option<Arc<dyn RangeRead>>, TierError> {
        let named = Named::parse(url)?;
        match named.key.is_empty() || named.key.ends_with('/') {
            true => Ok(None),
            false => self.reader(&named.spec)?.file(named.key),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<FolderEntry>, TierError> {
        let Named { spec, key, options } = Named::parse(folder)?;
        let key = key.trim_end_matches('/');
        let slash = if key.is_empty() { "" } else { "/" };
        let names = self.reader(&spec)?.list(&format!("{key}{slash}"))?;
        let listed = |name: String| {
            let name = format!("s3://{}/{key}{slash}{name}", spec.bucket);
            FolderEntry { url: format!("{name}{options}"), name }
        };
        Ok(names.into_iter().map(listed).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_buckets_and_keys_as_they_stand() {
        let parse = |url: &'static str| {
            let named = Named::parse(url).map_err(|error| error.to_string())?;
            Ok::<_, String>((named.spec.bucket, named.key, named.spec.region))
        };
        assert_eq!(parse("s3://docs"), Ok(("docs".to_owned(), "", None)));
        let odd = parse("s3://docs/a=1/b c%20@é.jsonl?region=eu-north-1");
        let region = Some("eu-north-1".to_owned());
        assert_eq!(odd, Ok(("docs".to_owned(), "a=1/b c%20@é.jsonl", region)));
        for url in
            ["s3://key:secret@docs/x", "s3://key:sec/ret@docs/x", "s3://docs/x?secret", "s3://"]
        {
            let said = parse(url).unwrap_err();
            assert!(
                !said.contains("sec/") && !said.contains("secret@") && !said.contains("?secret"),
                "{said}"
            );
        }
        assert!(parse("gs://docs/x").unwrap_err().contains("s3:// alone"));
    }
}
