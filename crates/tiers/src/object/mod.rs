//! A bucket that speaks S3 as a tier of whole shards. In: places of blocks, names of files. Out:
//! unchecked bytes as they come, files, reasons. It knows no format of a block and no cache.

mod body;
mod files;
mod health;
mod http;
mod options;
mod place;
mod ranges;
mod retry;
mod runtime;
mod stream;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use hyperrag_core::{
    Blob, FactValue, Fetch, FetchSink, Piece, Tier, TierError, TierFact, TierRole, TierShape,
};
use object_store::{ObjectStoreExt, PutMode, PutPayload};
use tokio::runtime::Handle;

pub use options::{ObjectLogin, ObjectOptions};
pub use ranges::ObjectReader;

use http::{Failure, present};
use place::Place;

/// Objects whose lengths are asked for at one time.
const HEADS: usize = 16;
/// Puts of a probe that race for one name.
const RACERS: usize = 8;

/// A bucket of immutable shards, `shards/NNNNNN.TABLE.kv`, and of files.
///
/// A request for pieces is one ranged GET for each run of pieces of one block. It is sent when its first piece
/// is allowed, and its body is read no further than is allowed. At most 64 GETs wait for bytes at one time; the
/// others are queued in order, and their time does not count. An absent shard is an absent piece. An answer of
/// status 408, 429, 500, 502, 503 or 504 and a cut body are asked for again within `patience`, from the byte
/// where the body was cut. A body of another length is an error. After some requests without an answer the place
/// is left alone for a moment: pieces get the last failure at once.
#[derive(Debug)]
pub struct ObjectTier {
    place: Arc<Place>,
    runtime: Handle,
    lanes: stream::Lanes,
    probe_writes: bool,
}

impl ObjectTier {
    /// Opens the place. Nothing is sent: [`Tier::probe`] tells whether it can be reached.
    ///
    /// # Errors
    /// [`TierError::Refused`] for a URL or an endpoint that cannot be, plain HTTP
    /// without leave, or if the system gives no thread.
    pub fn open(options: &ObjectOptions) -> Result<Self, TierError> {
        let runtime = runtime::handle()?;
        let place = Arc::new(Place::open(options)?);
        let lanes = stream::Lanes::default();
        Ok(Self { place, runtime, lanes, probe_writes: options.probe_writes })
    }
}

impl Tier for ObjectTier {
    fn name(&self) -> &str {
        &self.place.name
    }

    fn shape(&self) -> TierShape {
        let role = TierRole::Home;
        TierShape { frame_bytes: stream::FRAME, streams: true, immediate: false, role }
    }

    fn fetch(
        &self,
        pieces: &[Piece],
        patience: Duration,
        to: Arc<dyn FetchSink>,
    ) -> Box<dyn Fetch> {
        Box::new(stream::start(&self.runtime, &self.place, &self.lanes, pieces, patience, &to))
    }

    fn put(&self, _: &Blob, _: &Bytes) -> Result<(), TierError> {
        Err(TierError::Refused("it holds whole shards, no single blocks".to_owned()))
    }

    fn holds(&self, blobs: &[Blob]) -> Result<Vec<bool>, TierError> {
        let names: Vec<String> = blobs.iter().map(stream::shard_name).collect();
        let mut asked = names.clone();
        asked.sort_unstable();
        asked.dedup();
        let place = Arc::clone(&self.place);
        let lengths: HashMap<String, u64> = self.wait(async move {
            let heads = asked.into_iter().map(|name| {
                let place = &place;
                async move {
                    let head = present(place.head(&place.path(&name)?).await)?;
                    Ok((name, head.map_or(0, |(bytes, _)| bytes)))
                }
            });
            let heads = futures_util::stream::iter(heads).buffer_unordered(HEADS);
            heads.collect::<Vec<_>>().await.into_iter().collect()
        })?;
        let end = |blob: &Blob| blob.offset.checked_add(blob.bytes);
        let holds = |(blob, name)| end(blob).is_some_and(|end| lengths[name] >= end);
        Ok(blobs.iter().zip(&names).map(holds).collect())
    }

    fn probe(&self) -> Result<Vec<TierFact>, TierError> {
        let place = Arc::clone(&self.place);
        let latency = self.wait(async move {
            // A GET, not a HEAD: it alone tells an absent bucket from an absent object.
            let path = place.path("CURRENT")?;
            present(place.small(&path, 1 << 20).await)?;
            let start = Instant::now();
            present(place.head(&path).await)?;
            Ok(start.elapsed())
        })?;
        let text = |name, text: &str| TierFact { name, value: FactValue::Text(text.to_owned()) };
        let millis = FactValue::Number(latency.as_secs_f64() * 1e3);
        let mut facts = vec![
            text("endpoint", &self.place.endpoint),
            TierFact { name: "latency_ms", value: millis },
        ];
        if self.probe_writes {
            let place = Arc::clone(&self.place);
            facts.push(text("conditional_puts", self.wait(async move { race(&place).await })?));
        }
        Ok(facts)
    }
}

/// Creates one object by several puts at once, and removes it.
async fn race(place: &Place) -> Result<&'static str, TierError> {
    let path = place.path(&format!("probes/{:016x}{:016x}", retry::random(), retry::random()))?;
    let create = |n: usize| {
        let put = place.objects().put_opts(
            &path,
            PutPayload::from(vec![n as u8]),
            PutMode::Create.into(),
        );
        async { tokio::time::timeout(place.patience, put).await }
    };
    let puts = join_all((0..RACERS).map(create)).await;
    let removed = retry::repeated(place.patience, || place.objects().delete(&path)).await;
    present(removed)?;
    let mut won = 0;
    for put in puts {
        match put.map(|put| put.map_err(Failure::from)) {
            Ok(Ok(_)) => won += 1,
            Ok(Err(Failure::Tier(error @ TierError::Refused(_)))) => return Err(error),
            Ok(Err(_)) | Err(_) => {}
        }
    }
    Ok(match won {
        0 => "none wins",
        1 => "atomic",
        _ => "not atomic",
    })
}
