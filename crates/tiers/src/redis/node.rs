//! A node of Redis: its connections, its queue of reads, and how it fares.
//!
//! In: commands and reads. Out: answers or faults, each within a given time. It knows no slots.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyperrag_core::TierError;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo,
    RedisError, TlsCertificates, Value,
};
use tokio::time::timeout;

use super::fault::Fault;
use super::frames::FRAME_BYTES;
use super::options::RedisOptions;
use super::request::Task;
use super::slots::Address;
use crate::breaker::Breaker;

/// Longest pause of a node's breaker, for a node that is back is wanted within five seconds.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Rate that a node is believed to have before it was measured, in bytes a second.
const RATE_AT_FIRST: f64 = 500e6;
/// Time after which a measured rate is believed half.
const RATE_STALE: Duration = Duration::from_secs(5);

/// Purpose of a connection. A long write or a `WAIT` holds up nobody who reads.
#[derive(Clone, Copy)]
pub(super) enum Link {
    Read,
    Write,
    Control,
}

/// Makes connections: password, TLS, and whether replicas must be told that reads are meant.
pub(super) struct Dialer {
    tls: bool,
    ca: Option<Vec<u8>>,
    username: Option<String>,
    password: Option<String>,
    pub(super) clustered: AtomicBool,
}

impl Dialer {
    pub(super) fn new(options: &RedisOptions) -> Self {
        if options.tls {
            // An error says that there is a provider already.
            drop(rustls::crypto::ring::default_provider().install_default());
        }
        Self {
            tls: options.tls,
            ca: options.ca.clone(),
            username: options.username.clone(),
            password: options.password.clone(),
            clustered: AtomicBool::new(false),
        }
    }

    fn client(&self, to: &Address) -> Result<Client, RedisError> {
        let (host, port) = (to.host.clone(), to.port);
        let address = if self.tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let mut login = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(password) = &self.password {
            login = login.set_password(password);
            if let Some(username) = &self.username {
                login = login.set_username(username);
            }
        }
        let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
        let info = address.into_connection_info()?.set_redis_settings(login).set_tcp_settings(tcp);
        match &self.ca {
            Some(ca) if self.tls => {
                let root_cert = Some(ca.clone());
                Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })
            }
            _ => Client::open(info),
        }
    }

    /// Connects. For a connection that reads, the time of an answer without bytes comes with it.
    async fn dial(
        &self,
        to: &Address,
        link: Link,
    ) -> Result<(MultiplexedConnection, Option<Duration>), RedisError> {
        // Time-outs are those of who asks.
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let client = self.client(to)?;
        let mut made = client.get_multiplexed_async_connection_with_config(&config).await?;
        if !matches!(link, Link::Read) {
            return Ok((made, None));
        }
        if self.clustered.load(Ordering::Relaxed) {
            redis::cmd("READONLY").query_async::<()>(&mut made).await?;
        }
        let start = Instant::now();
        redis::cmd("PING").query_async::<()>(&mut made).await?;
        Ok((made, Some(start.elapsed())))
    }
}

/// A connection and its number, by which the one that failed is known from its successor.
type Numbered = Option<(u64, MultiplexedConnection)>;

/// Answers, and the connection on which they came.
pub(super) struct Spoken {
    pub(super) values: Vec<Value>,
    pub(super) number: u64,
    pub(super) connection: MultiplexedConnection,
}

/// The connection of one purpose, which one asker makes while the others wait for it.
#[derive(Default)]
struct LinkState {
    open: Mutex<Numbered>,
    making: tokio::sync::Mutex<()>,
}

impl LinkState {
    /// Locks the connection. A panic of another thread does not matter: every change is one step.
    fn open(&self) -> MutexGuard<'_, Numbered> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A node with its connections.
pub(super) struct Node {
    pub(super) address: Address,
    links: [LinkState; 3],
    state: Mutex<State>,
}

/// Queue and health of a node.
pub(super) struct State {
    pub(super) queue: VecDeque<Task>,
    pub(super) active: usize,
    pub(super) breaker: Breaker,
    /// Whether the last answer was a failure.
    pub(super) suspect: bool,
    pub(super) reviving: bool,
    /// Reason of the last failure.
    pub(super) why: Option<TierError>,
    /// Time when the cluster last named the node as a copy of slots.
    pub(super) named: Option<Instant>,
    connections: u64,
    /// Time that the reads given to this node take, to share reads by rate.
    pub(super) spent: Duration,
    /// Bytes a second of one read at a time, and when that was measured.
    rate: f64,
    measured: Option<Instant>,
    /// Time of an answer without bytes.
    idle_answer: Duration,
}

impl Node {
    pub(super) fn new(address: Address) -> Self {
        Self {
            address,
            links: Default::default(),
            state: Mutex::new(State {
                queue: VecDeque::new(),
                active: 0,
                breaker: Breaker::new(PAUSE_MAX),
                suspect: false,
                reviving: false,
                why: None,
                named: None,
                connections: 0,
                spent: Duration::ZERO,
                rate: RATE_AT_FIRST,
                measured: None,
                idle_answer: Duration::ZERO,
            }),
        }
    }

    /// Locks queue and health. A panic of another thread does not matter: every change is one step.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends commands on one connection, one after the other, each after `ASKING` if so told, and returns
    /// their answers. Connecting and answering take no longer than `patience` together.
    pub(super) async fn ask(
        &self,
        dial: &Dialer,
        link: Link,
        commands: &[Cmd],
        asking: bool,
        patience: Duration,
    ) -> Result<Spoken, Fault> {
        let mut number = None;
        let exchange = async {
            let (n, mut connection) = self.connection(dial, link).await?;
            number = Some(n);
            let values = send(&mut connection, commands, asking).await?;
            Ok(Spoken { values, number: n, connection })
        };
        let fault = match timeout(patience, exchange).await {
            Ok(Ok(spoken)) => return Ok(spoken),
            Ok(Err::<_, RedisError>(error)) => Fault::of(&error, &self.address),
            Err(_) => Fault::Timeout(patience),
        };
        if fault.ends_connection() {
            let mut open = self.links[link as usize].open();
            if open.as_ref().map(|(n, _)| *n) == number {
                *open = None;
            }
        }
        Err(fault)
    }

    /// Returns the connection of a purpose, made if there is none.
    async fn connection(
        &self,
        dial: &Dialer,
        link: Link,
    ) -> Result<(u64, MultiplexedConnection), RedisError> {
        let state = &self.links[link as usize];
        let open = || state.open().clone();
        if let Some(open) = open() {
            return Ok(open);
        }
        let _making = state.making.lock().await;
        if let Some(open) = open() {
            return Ok(open);
        }
        let (made, answer) = dial.dial(&self.address, link).await?;
        let made = (self.connected(answer), made);
        *state.open() = Some(made.clone());
        Ok(made)
    }

    /// Notes a new connection and returns its number.
    fn connected(&self, answer: Option<Duration>) -> u64 {
        let mut state = self.state();
        state.idle_answer = answer.unwrap_or(state.idle_answer);
        state.connections += 1;
        state.connections
    }

    /// Asks the node on a new connection whether it can answer.
    pub(super) async fn ping(&self, dial: &Dialer, patience: Duration) -> Result<(), Fault> {
        *self.links[Link::Control as usize].open() = None;
        self.ask(dial, Link::Control, &[redis::cmd("PING")], false, patience).await?;
        Ok(())
    }
}

async fn send(
    connection: &mut MultiplexedConnection,
    commands: &[Cmd],
    asking: bool,
) -> Result<Vec<Value>, RedisError> {
    if let ([command], false) = (commands, asking) {
        return Ok(vec![command.query_async(connection).await?]);
    }
    let mut pipe = redis::pipe();
    for command in commands {
        if asking {
            pipe.cmd("ASKING").ignore();
        }
        pipe.add_command(command.clone());
    }
    pipe.query_async(connection).await
}

impl State {
    /// Notes a read of `bytes` that took `time`.
    pub(super) fn succeeded(&mut self, bytes: usize, time: Duration) {
        self.breaker.succeeded();
        self.suspect = false;
        if bytes > 0 {
            let rate = bytes as f64 / time.as_secs_f64().max(1e-6);
            self.rate = if self.measured.is_some() { 0.8 * self.rate + 0.2 * rate } else { rate };
            self.measured = Some(Instant::now());
        }
    }

    /// Notes that the node answers again: what was measured before does not count.
    pub(super) fn revived(&mut self) {
        self.breaker.succeeded();
        self.suspect = false;
        self.rate = RATE_AT_FIRST;
        self.measured = None;
    }

    /// Notes a failure and its reason.
    pub(super) fn failed(&mut self, why: TierError) {
        self.breaker.failed(Instant::now());
        self.suspect = true;
        if let TierError::Timeout(time) = &why {
            // Else a slow way would be given too little time for ever.
            self.rate = self.rate.min(FRAME_BYTES as f64 / time.as_secs_f64().max(1e-3));
        }
        self.why = Some(why);
    }

    /// Returns the time that counts when copies are compared: what was given to the node, and what waits.
    pub(super) fn burden(&self) -> Duration {
        self.spent + self.frame_time() * (self.queue.len() + self.active + 1) as u32
    }

    /// Returns the time in which one frame is expected.
    pub(super) fn frame_time(&self) -> Duration {
        let stale = self.measured.is_some_and(|when| when.elapsed() > RATE_STALE);
        let rate = if stale { (self.rate + RATE_AT_FIRST) / 2.0 } else { self.rate };
        Duration::from_secs_f64(FRAME_BYTES as f64 / rate.max(1e4))
    }

    /// Returns the number of reads that should be under way: one, more only where the way is so long that
    /// the connection stands idle between two answers.
    pub(super) fn window(&self, in_flight_max: u64) -> usize {
        let most = (in_flight_max / FRAME_BYTES).max(1) as usize;
        let idle = self.idle_answer.as_secs_f64() / self.frame_time().as_secs_f64();
        if idle > 0.2 { (1 + idle.ceil() as usize).min(most) } else { 1 }
    }
}
