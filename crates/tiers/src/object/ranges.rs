//! Objects that are read by ranges, whoever wrote them. In: keys and ranges. Out: bytes of one version of an object,
//! and names. Knows nothing of what is in them.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hyperrag_core::{FileVersion, RangeError, RangeRead, TierError};
use object_store::path::Path;
use tokio::runtime::Handle;

use super::body::Body;
use super::http::{Failure, present};
use super::options::ObjectOptions;
use super::place::Place;
use super::retry::{Backoff, repeated};
use super::runtime::{handle, wait};

/// Times by which a whole list may take longer than the answer to one request: it has a thousand names in each.
const LIST_PATIENCE: u32 = 20;

/// A bucket whose objects are read by ranges.
///
/// An answer of status 408, 429, 500, 502, 503 or 504, a wait longer than the options' `patience`, a cut body and
/// one of another length are asked for again, eight times in a row at most, from the byte where the body was cut.
/// Each request is conditional on the `ETag` that the object had when it was opened.
#[derive(Clone, Debug)]
pub struct ObjectReader {
    place: Arc<Place>,
    runtime: Handle,
}

/// One version of an object.
#[derive(Debug)]
struct ObjectFile {
    reader: ObjectReader,
    path: Path,
    version: FileVersion,
}

impl ObjectReader {
    /// Opens the bucket of the options' URL, which has no prefix. Nothing is sent.
    ///
    /// # Errors
    /// See [`ObjectTier::open`](super::ObjectTier::open).
    pub fn open(options: &ObjectOptions) -> Result<Self, TierError> {
        Ok(Self { place: Arc::new(Place::open(options)?), runtime: handle()? })
    }

    /// Opens the object of this key; `None` if there is none.
    ///
    /// # Errors
    /// [`TierError`], also if the object has no `ETag` that tells versions apart byte by byte.
    pub fn file(&self, key: &str) -> Result<Option<Arc<dyn RangeRead>>, TierError> {
        let (place, path) = (Arc::clone(&self.place), path_of(key)?);
        let asked = path.clone();
        let head = wait(&self.runtime, async move { present(place.head(&asked).await) })?;
        let Some((bytes, e_tag)) = head else { return Ok(None) };
        let strong = e_tag.filter(|e_tag| !e_tag.starts_with("W/"));
        let e_tag = strong.ok_or_else(|| {
            let words = "the object has no strong ETag, by which a change would be seen";
            TierError::Refused(words.to_owned())
        })?;
        let name = format!("{}/{key}", self.place.name);
        let version = FileVersion { name, bytes, e_tag };
        Ok(Some(Arc::new(ObjectFile { reader: self.clone(), path, version })))
    }

    /// Lists the names of the objects of a folder, which is empty or ends with a slash, without the folder's own.
    /// Those of folders below it are left out.
    ///
    /// # Errors
    /// [`TierError`].
    pub fn list(&self, folder: &str) -> Result<Vec<String>, TierError> {
        let prefix = match folder.trim_end_matches('/') {
            "" => None,
            prefix => Some(path_of(prefix)?),
        };
        let place = Arc::clone(&self.place);
        let listed = wait(&self.runtime, async move {
            let list = || async {
                let listed = place.objects().list_with_delimiter(prefix.as_ref());
                listed.await.map_err(Failure::unconditional)
            };
            Ok(repeated(place.patience * LIST_PATIENCE, list).await?)
        })?;
        let names = listed.objects.iter().filter_map(|object| object.location.filename());
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort_unstable();
        Ok(names)
    }
}

/// Returns the path of a key, which is taken as it stands.
fn path_of(key: &str) -> Result<Path, TierError> {
    Path::parse(key).map_err(|error| TierError::Refused(error.to_string()))
}

impl RangeRead for ObjectFile {
    fn version(&self) -> &FileVersion {
        &self.version
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes, RangeError> {
        if range.start > range.end || range.end > self.version.bytes {
            let words = format!("the object has no bytes {range:?}");
            return Err(TierError::Refused(words).into());
        }
        let (place, path) = (Arc::clone(&self.reader.place), self.path.clone());
        let e_tag = self.version.e_tag.clone();
        let read =
            wait(
                &self.reader.runtime,
                async move { Ok(read(&place, &path, &e_tag, range).await) },
            )?;
        read.map_err(|failure| match failure {
            Failure::Absent | Failure::Changed => RangeError::Changed,
            failure => TierError::from(failure).into(),
        })
    }
}

/// Reads a range. Bytes that came before a fault are kept, since all are of one version.
async fn read(
    place: &Arc<Place>,
    path: &Path,
    e_tag: &str,
    range: Range<u64>,
) -> Result<Bytes, Failure> {
    let mut read = BytesMut::with_capacity((range.end - range.start) as usize);
    let mut backoff = Backoff::default();
    loop {
        let rest = range.start + read.len() as u64..range.end;
        let body = Body::new(Arc::clone(place), path.clone(), rest, place.patience);
        let mut body = body.of_version(Some(e_tag.to_owned()));
        match gather(&mut body, &mut read).await {
            Ok(()) => return Ok(read.freeze()),
            Err(Failure::Tier(error)) if error.is_retryable() => backoff.pause(error, None).await?,
            Err(failure) => return Err(failure),
        }
    }
}

/// Reads a body to its end.
async fn gather(body: &mut Body, read: &mut BytesMut) -> Result<(), Failure> {
    loop {
        match body.next().await? {
            bytes if bytes.is_empty() => return Ok(()),
            bytes => read.extend_from_slice(&bytes),
        }
    }
}
