//! A range of an object as its bytes come. In: path and range. Out: exactly the bytes of the range, in order, or
//! a failure. A cut body is asked for again from the byte where it was cut. Knows no block.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use hyperrag_core::TierError;
use object_store::path::Path;
use object_store::{GetOptions, GetRange};
use tokio::time::{Instant, timeout_at};

use super::http::Failure;
use super::place::Place;
use super::retry::Backoff;

/// Bytes that must come between two cuts; those that come too often end the request.
const CUT_STEP: u64 = 256 << 10;

type Source = BoxStream<'static, object_store::Result<Bytes>>;

/// A range that is being read.
pub(super) struct Body {
    place: Arc<Place>,
    path: Path,
    /// The bytes that have not come.
    range: Range<u64>,
    /// The object must have this `ETag`.
    e_tag: Option<String>,
    patience: Duration,
    source: Option<Source>,
    backoff: Backoff,
    since_cut: u64,
}

impl Body {
    /// Names a range of an object. Sends nothing.
    pub(super) fn new(
        place: Arc<Place>,
        path: Path,
        range: Range<u64>,
        patience: Duration,
    ) -> Self {
        let backoff = Backoff::default();
        Self { place, path, range, e_tag: None, patience, source: None, backoff, since_cut: 0 }
    }

    /// Refuses bytes of an object with another `ETag`. A weak one cannot be a condition.
    pub(super) fn of_version(self, e_tag: Option<String>) -> Self {
        Self { e_tag: e_tag.filter(|e_tag| !e_tag.starts_with("W/")), ..self }
    }

    /// Gives up the connection. The next bytes come from a new one.
    pub(super) fn close(&mut self) {
        self.source = None;
    }

    /// Returns the next bytes, none at the end of the range. The last ones come only if the object's answer
    /// ends with them.
    pub(super) async fn next(&mut self) -> Result<Bytes, Failure> {
        let until = Instant::now() + self.patience;
        loop {
            if self.range.is_empty() {
                return Ok(Bytes::new());
            }
            let step = timeout_at(until, self.step()).await;
            let step = step.unwrap_or(Err(TierError::Timeout(self.patience).into()));
            match step {
                Ok(bytes) => return self.taken(bytes, until).await,
                Err(Failure::Tier(error @ TierError::Unreachable(_))) => {
                    self.source = None;
                    self.since_cut = 0;
                    self.backoff.pause(error, Some(until)).await?;
                }
                Err(failure) => {
                    self.source = None;
                    return Err(failure);
                }
            }
        }
    }

    /// Counts bytes that came, and looks for the end of the answer after the last.
    async fn taken(&mut self, bytes: Bytes, until: Instant) -> Result<Bytes, Failure> {
        let left = self.range.end - self.range.start;
        if bytes.len() as u64 > left {
            return Err(TierError::Protocol(format!("more than the {left} bytes left")).into());
        }
        self.range.start += bytes.len() as u64;
        self.since_cut += bytes.len() as u64;
        if self.since_cut >= CUT_STEP {
            self.backoff = Backoff::default();
        }
        if !self.range.is_empty() {
            return Ok(bytes);
        }
        while let Some(stream) = &mut self.source {
            match timeout_at(until, stream.next()).await {
                Ok(Some(Ok(more))) if more.is_empty() => {}
                Ok(Some(Ok(_))) => {
                    return Err(
                        TierError::Protocol("more bytes than were asked for".to_owned()).into()
                    );
                }
                // Complete, however the connection ends.
                Ok(None | Some(Err(_))) | Err(_) => self.source = None,
            }
        }
        Ok(bytes)
    }

    /// Takes one step: asks for the range, or takes bytes of the answer.
    async fn step(&mut self) -> Result<Bytes, Failure> {
        loop {
            match &mut self.source {
                None => {
                    let ask = self.ask();
                    self.source = Some(ask.await?);
                }
                Some(stream) => match stream.next().await {
                    Some(bytes) => {
                        let bytes = bytes?;
                        if !bytes.is_empty() {
                            return Ok(bytes);
                        }
                    }
                    None => {
                        let left = self.range.end - self.range.start;
                        let words = format!("{left} bytes fewer than were asked for");
                        return Err(TierError::Protocol(words).into());
                    }
                },
            }
        }
    }

    /// Asks for the bytes that have not come.
    fn ask(&self) -> impl Future<Output = Result<Source, Failure>> + Send + use<> {
        let (place, path, range) = (Arc::clone(&self.place), self.path.clone(), self.range.clone());
        let e_tag = self.e_tag.clone();
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            if_match: e_tag.clone(),
            ..GetOptions::default()
        };
        async move {
            let got =
                place.objects().get_opts(&path, options).await.map_err(Failure::unconditional);
            let got = match got {
                Err(Failure::Conflict) => return Err(Failure::Changed),
                got => got?,
            };
            // Not every server heeds the condition.
            if e_tag.is_some() && got.meta.e_tag.is_some() && e_tag != got.meta.e_tag {
                return Err(Failure::Changed);
            }
            if got.range != range {
                let words = format!("bytes {:?} instead of {range:?}", got.range);
                return Err(TierError::Protocol(words).into());
            }
            Ok(got.into_stream())
        }
    }
}
