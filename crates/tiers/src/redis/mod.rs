//! Blocks in Redis or Valkey: one server, or a cluster whose copies share the reads.
//!
//! In: blocks, pieces and names of files. Out: unchecked bytes of blocks, whole fields or a reason. It knows no
//! format of blocks and reads no environment.

mod engine;
mod fault;
mod files;
mod frames;
mod health;
mod lag;
mod node;
mod options;
mod request;
mod slot_map;
mod slots;
mod topology;
mod write;

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bytes::Bytes;
use hyperrag_core::{
    Blob, Fetch, FetchSink, Piece, Tier, TierError, TierFact, TierShape, WriteWaits,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

pub use options::{Readers, RedisOptions};

use engine::Engine;
use frames::FRAME_BYTES;
use lag::Lag;
use request::{Request, Task, Ticket};
use slots::Address;

/// Blocks in Redis or Valkey. The connections live on one thread of their own.
pub struct RedisTier {
    name: String,
    engine: Arc<Engine>,
    lag: Arc<Lag>,
    runtime: Handle,
    /// Dropped with the tier, which ends the thread.
    _stop: oneshot::Sender<()>,
}

impl RedisTier {
    /// Starts the thread that will make the connections. Nothing is connected before something is asked for.
    ///
    /// # Errors
    /// [`TierError::Refused`] for options that name no node, a prefix that no key can have, or authorities that
    /// are no certificates;
    /// [`TierError::Unreachable`] if there can be no thread.
    pub fn open(options: RedisOptions) -> Result<Self, TierError> {
        let starts = options.nodes.iter().map(|node| {
            let wrong = || TierError::Refused(format!("`{node}` is no address: write host:port"));
            Address::parse(node, "").ok_or_else(wrong)
        });
        let starts = starts.collect::<Result<Vec<_>, _>>()?;
        if starts.is_empty() {
            return Err(TierError::Refused("no node is named: write host:port".to_owned()));
        }
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"{}*?[]\\".contains(&byte);
        if options.prefix.is_empty() || !options.prefix.bytes().all(is_plain) {
            return Err(TierError::Refused(
                "the prefix of keys has ASCII letters, digits and signs, no braces and no spaces"
                    .to_owned(),
            ));
        }
        if let Some(ca) = options.ca.as_ref().filter(|_| options.tls) {
            check_authorities(ca)?;
        }
        let scheme = if options.tls { "rediss" } else { "redis" };
        let name = format!("{scheme}://{}", options.nodes.join(","));
        let (runtime, stop) = start_thread()?;
        let engine = Arc::new(Engine::new(options, starts));
        Ok(Self { name, engine, lag: Arc::default(), runtime, _stop: stop })
    }

    /// Runs a future on the tier's thread and waits for it. Not to be called from a sink.
    fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, TierError>> + Send + 'static,
    ) -> Result<T, TierError> {
        let (give, take) = sync_channel(1);
        self.runtime.spawn(async move {
            // Nobody waits any more if this fails.
            drop(give.send(work.await));
        });
        let ended = || TierError::Unreachable("the connections to Redis were closed".to_owned());
        take.recv().unwrap_or_else(|_| Err(ended()))
    }

    /// Stores blocks and has their copies confirmed together, which is faster than one by one.
    ///
    /// # Errors
    /// [`TierError`]; after an error some of the blocks may be there.
    pub fn put_many(&self, blocks: &[(Blob, Bytes)]) -> Result<(), TierError> {
        self.wait(self.engine.clone().put_many(blocks.to_vec(), self.lag.clone()))
    }
}

fn check_authorities(pem: &[u8]) -> Result<(), TierError> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(()),
        _ => Err(TierError::Refused(
            "the file of trusted authorities, HYPERRAG_REDIS_CA, holds no certificates in PEM"
                .to_owned(),
        )),
    }
}

fn start_thread() -> Result<(Handle, oneshot::Sender<()>), TierError> {
    let failed =
        |error: std::io::Error| TierError::Unreachable(format!("no thread for Redis: {error}"));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel();
    let work = move || {
        // The sender is dropped with the tier.
        drop(runtime.block_on(stopped));
        runtime.shutdown_background();
    };
    std::thread::Builder::new().name("redis".to_owned()).spawn(work).map_err(failed)?;
    Ok((handle, stop))
}

impl Tier for RedisTier {
    fn name(&self) -> &str {
        &self.name
    }

    fn shape(&self) -> TierShape {
        TierShape {
            frame_bytes: FRAME_BYTES,
            streams: false,
            immediate: false,
            role: self.engine.options.role,
        }
    }

    fn fetch(
        &self,
        pieces: &[Piece],
        patience: Duration,
        to: Arc<dyn FetchSink>,
    ) -> Box<dyn Fetch> {
        let request = Request::new(to, patience);
        let prefix = &self.engine.options.prefix;
        let tasks = pieces.iter().enumerate();
        let tasks = tasks.filter_map(|(n, piece)| Task::new(&request, n, piece, prefix));
        self.runtime.spawn(self.engine.clone().start(tasks.collect(), patience));
        Box::new(Ticket(request))
    }

    fn put(&self, blob: &Blob, bytes: &Bytes) -> Result<(), TierError> {
        self.put_many(&[(*blob, bytes.clone())])
    }

    fn holds(&self, blobs: &[Blob]) -> Result<Vec<bool>, TierError> {
        self.wait(self.engine.clone().holds(blobs.to_vec()))
    }

    fn probe(&self) -> Result<Vec<TierFact>, TierError> {
        self.wait(self.engine.clone().probe())
    }

    fn ready_to_write(&self) -> Result<(), TierError> {
        self.wait(self.engine.clone().ready_to_write())
    }

    fn write_waits(&self) -> WriteWaits {
        self.lag.waits()
    }
}
