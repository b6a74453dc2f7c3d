//! Whole files in an object store. In: names and files. Out: objects of the right length, files, and small
//! objects that change under a condition. Knows no block.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path as FilePath;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;
use hyperrag_core::{FileTier, Swapped, TierError};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};
use tokio::sync::mpsc;

use super::ObjectTier;
use super::body::Body;
use super::http::{Failure, of_file, present};
use super::place::{Place, too_long};
use super::retry::{Backoff, random, repeated};
use super::runtime::{stopped, wait};

/// Length of a part of a large file, in bytes. S3 takes 10,000 parts of at least 5 MiB.
const PART: u64 = 8 << 20;
/// Most parts of a file.
const PARTS_MAX: u64 = 10_000;
/// Parts that are sent at one time.
const PARTS_AT_ONCE: usize = 4;

impl FileTier for ObjectTier {
    fn name(&self) -> &str {
        &self.place.name
    }

    fn put_file(&self, name: &str, from: &FilePath) -> Result<(), TierError> {
        let path = self.place.path(name)?;
        let unread = |error| TierError::Refused(format!("cannot read {}: {error}", from.display()));
        let file = File::open(from).map_err(unread)?;
        let bytes = file.metadata().map_err(unread)?.len();
        let part = |range: std::ops::Range<u64>| {
            let mut part = vec![0; (range.end - range.start) as usize];
            file.read_exact_at(&mut part, range.start).map_err(unread)?;
            Ok(PutPayload::from(part))
        };
        if bytes <= PART {
            let (place, path, payload) = (Arc::clone(&self.place), path.clone(), part(0..bytes)?);
            self.wait(async move {
                let put = || place.objects().put(&path, payload.clone());
                unconditional(&place, put).await.map(drop)
            })?;
        } else {
            self.put_parts(&path, bytes, &part)?;
        }
        let place = Arc::clone(&self.place);
        let stored = self.wait(async move {
            place.head(&path).await.map(|(stored, _)| stored).map_err(TierError::from)
        })?;
        if stored != bytes {
            let words = format!("{name} has {stored} bytes after {bytes} were stored");
            return Err(TierError::Protocol(words));
        }
        Ok(())
    }

    fn get_file(
        &self,
        name: &str,
        bytes_max: u64,
        to: &mut File,
    ) -> Result<Option<u64>, TierError> {
        let (place, path) = (Arc::clone(&self.place), self.place.path(name)?);
        let head = self.wait(async move { present(place.head(&path).await) })?;
        let Some((bytes, e_tag)) = head else { return Ok(None) };
        let path = self.place.path(name)?;
        if bytes > bytes_max {
            return Err(too_long(&path, bytes, bytes_max).into());
        }
        let (place, patience) = (Arc::clone(&self.place), self.place.patience);
        let mut body = Body::new(place, path, 0..bytes, patience).of_version(e_tag);
        let (sender, mut receiver) = mpsc::channel(4);
        self.runtime.spawn(async move {
            let mut left = bytes;
            while left > 0 {
                let next = body.next().await.map_err(TierError::from);
                left = next.as_ref().map_or(0, |bytes| left - bytes.len() as u64);
                if sender.send(next).await.is_err() {
                    return;
                }
            }
        });
        let mut written = 0;
        io::Seek::seek(to, io::SeekFrom::End(0)).map_err(|error| of_file(&error))?;
        while let Some(next) = receiver.blocking_recv() {
            let next = next?;
            to.write_all(&next).map_err(|error| of_file(&error))?;
            written += next.len() as u64;
        }
        if written == bytes { Ok(Some(bytes)) } else { Err(stopped()) }
    }

    fn file_bytes(&self, name: &str) -> Result<Option<u64>, TierError> {
        let (place, path) = (Arc::clone(&self.place), self.place.path(name)?);
        self.wait(async move { Ok(present(place.head(&path).await)?.map(|(bytes, _)| bytes)) })
    }

    fn read_small(&self, name: &str, bytes_max: u64) -> Result<Option<Bytes>, TierError> {
        let (place, path) = (Arc::clone(&self.place), self.place.path(name)?);
        self.wait(async move {
            Ok(present(place.small(&path, bytes_max).await)?.map(|small| small.bytes))
        })
    }

    fn swap_small(&self, name: &str, old: Option<&[u8]>, new: &[u8]) -> Result<Swapped, TierError> {
        let (place, path) = (Arc::clone(&self.place), self.place.path(name)?);
        let old = old.map(Bytes::copy_from_slice);
        let new = Bytes::copy_from_slice(new);
        self.wait(async move { Ok(swap(&place, &path, old, new).await?) })
    }
}

impl ObjectTier {
    pub(super) fn wait<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, TierError>> + Send + 'static,
    ) -> Result<T, TierError> {
        wait(&self.runtime, future)
    }

    /// Stores a large file in parts, of which only some are in memory.
    fn put_parts(
        &self,
        path: &Path,
        bytes: u64,
        part: &dyn Fn(std::ops::Range<u64>) -> Result<PutPayload, TierError>,
    ) -> Result<(), TierError> {
        let len = PART.max(bytes.div_ceil(PARTS_MAX));
        let ranges = (0..bytes.div_ceil(len)).map(|n| n * len..((n + 1) * len).min(bytes));
        let ranges: Vec<_> = ranges.collect();
        let upload = Upload::begin(self, &self.place.store, path)?;
        let sent = upload.send(&ranges, part).and_then(|parts| upload.complete(parts));
        if sent.is_err() {
            upload.abort();
        }
        sent
    }
}

/// A file that is being stored in parts.
struct Upload<'a> {
    tier: &'a ObjectTier,
    store: Arc<object_store::aws::AmazonS3>,
    path: Path,
    id: String,
}

impl<'a> Upload<'a> {
    fn begin(
        tier: &'a ObjectTier,
        store: &Arc<object_store::aws::AmazonS3>,
        path: &Path,
    ) -> Result<Self, TierError> {
        let (to, at, place) = (Arc::clone(store), path.clone(), Arc::clone(&tier.place));
        let id =
            tier.wait(
                async move { Ok(repeated(place.patience, || to.create_multipart(&at)).await?) },
            )?;
        Ok(Self { tier, store: Arc::clone(store), path: path.clone(), id })
    }

    fn send(
        &self,
        ranges: &[std::ops::Range<u64>],
        part: &dyn Fn(std::ops::Range<u64>) -> Result<PutPayload, TierError>,
    ) -> Result<Vec<PartId>, TierError> {
        let mut parts = Vec::with_capacity(ranges.len());
        for (group, ranges) in ranges.chunks(PARTS_AT_ONCE).enumerate() {
            let payloads: Vec<_> = ranges.iter().cloned().map(part).collect::<Result<_, _>>()?;
            let (store, path, id) = (Arc::clone(&self.store), self.path.clone(), self.id.clone());
            let place = Arc::clone(&self.tier.place);
            let first = group * PARTS_AT_ONCE;
            parts.extend(self.tier.wait(async move {
                let puts = payloads.into_iter().enumerate().map(|(n, payload)| {
                    let (store, path, id, place) = (&store, &path, &id, &place);
                    async move {
                        let put = || store.put_part(path, id, first + n, payload.clone());
                        unconditional(place, put).await
                    }
                });
                try_join_all(puts).await
            })?);
        }
        Ok(parts)
    }

    /// Makes the parts one object. If an answer was lost, the upload is gone at the next try: the length, which
    /// is looked at afterwards, decides.
    fn complete(&self, parts: Vec<PartId>) -> Result<(), TierError> {
        let (store, path, id) = (Arc::clone(&self.store), self.path.clone(), self.id.clone());
        let place = Arc::clone(&self.tier.place);
        self.tier.wait(async move {
            let mut tries = 0;
            let done = unconditional(&place, || {
                tries += 1;
                let (first, parts) = (tries == 1, parts.clone());
                let (store, path, id) = (&store, &path, &id);
                async move {
                    match store.complete_multipart(path, id, parts).await {
                        Err(object_store::Error::NotFound { .. }) if !first => Ok(()),
                        done => done.map(drop),
                    }
                }
            });
            done.await
        })
    }

    /// Has the parts removed. If that fails, a rule of the bucket must do it.
    fn abort(&self) {
        let (store, path, id) = (Arc::clone(&self.store), self.path.clone(), self.id.clone());
        let place = Arc::clone(&self.tier.place);
        let _ = self.tier.wait(async move {
            Ok(repeated(place.patience, || store.abort_multipart(&path, &id)).await?)
        });
    }
}

/// Runs a request without a condition until it succeeds or fails for good.
async fn unconditional<T, R>(place: &Place, mut request: impl FnMut() -> R) -> Result<T, TierError>
where
    R: Future<Output = object_store::Result<T>>,
{
    let once = || {
        let request = request();
        async move { request.await.map_err(Failure::unconditional) }
    };
    repeated(place.patience, once).await.map_err(TierError::from)
}

/// Changes a small object under a condition. Every attempt is marked, and only an object with the mark counts
/// as written: an answer may be lost though the put landed, and a conflict may be told though it did not. On a
/// server that drops marks, equal contents count as written, so writers should not give equal ones there.
async fn swap(
    place: &Place,
    path: &Path,
    old: Option<Bytes>,
    new: Bytes,
) -> Result<Swapped, Failure> {
    let writer = format!("{:016x}{:016x}", random(), random());
    let most = old.as_ref().map_or(0, Bytes::len).max(new.len()).max(1 << 20) as u64;
    let mut backoff = Backoff::default();
    let mut sent = false;
    loop {
        let found = match place.small(path, most).await {
            Ok(found) => Some(found),
            Err(Failure::Absent) => None,
            // Longer than both the old and the new contents.
            Err(Failure::TooLong(_)) => return Ok(Swapped::Changed),
            Err(failure) => return Err(failure),
        };
        if let Some(found) = &found
            && sent
            && (found.writer.as_ref() == Some(&writer)
                || found.writer.is_none() && found.bytes == new && old.as_ref() != Some(&new))
        {
            return Ok(Swapped::Done);
        }
        if found.as_ref().map(|found| &found.bytes) != old.as_ref() {
            return Ok(Swapped::Changed);
        }
        let mode = match found {
            None => PutMode::Create,
            Some(found) => PutMode::Update(UpdateVersion { e_tag: found.e_tag, version: None }),
        };
        let options = PutOptions { mode, attributes: Place::marked(&writer), ..Default::default() };
        let put = place.objects().put_opts(path, PutPayload::from(new.clone()), options);
        let error = match tokio::time::timeout(place.patience, put).await {
            Ok(Ok(_)) => return Ok(Swapped::Done),
            Ok(Err(error)) => Failure::from(error),
            Err(_) => TierError::Timeout(place.patience).into(),
        };
        sent = true;
        match error {
            Failure::Tier(error) if !error.is_retryable() => return Err(error.into()),
            error => backoff.pause(error, None).await?,
        }
    }
}
