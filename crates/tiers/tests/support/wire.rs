//! A way to a server: bytes take their time, break off or vanish. In: the server's port. Out: a port that leads to
//! it. It knows no protocol.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Longest time in which a change of the way is noticed.
const STEP: Duration = Duration::from_millis(20);

#[derive(Default)]
struct State {
    delay_us: AtomicU64,
    /// Bytes a second of one connection and direction; 0 is no limit.
    rate: AtomicU64,
    silent: AtomicBool,
    /// Connections before this number are broken.
    broken: AtomicUsize,
    connections: Mutex<usize>,
}

/// A way to a server. It stays until the process ends.
pub(crate) struct Wire {
    pub(crate) port: u16,
    state: Arc<State>,
}

impl Wire {
    pub(crate) fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                // Who cannot reach the server closes.
                let Ok(far) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let mut connections = shared.connections.lock().unwrap();
                let number = *connections;
                *connections += 1;
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    carry(number, from, to, &shared);
                }
            }
        });
        Self { port, state }
    }

    /// Makes the way `delay` long in each direction, and `rate` bytes a second wide.
    pub(crate) fn shape(&self, delay: Duration, rate: u64) {
        self.state.delay_us.store(delay.as_micros() as u64, SeqCst);
        self.state.rate.store(rate, SeqCst);
    }

    /// Breaks all connections.
    pub(crate) fn cut(&self) {
        let connections = self.state.connections.lock().unwrap();
        self.state.broken.store(*connections, SeqCst);
    }

    /// Lets all bytes vanish, or no more.
    pub(crate) fn silence(&self, silent: bool) {
        self.state.silent.store(silent, SeqCst);
    }
}

/// Carries bytes in one direction: one thread takes them, another gives them when they are due.
fn carry(number: usize, mut from: TcpStream, to: TcpStream, state: &Arc<State>) {
    let (sender, receiver) = channel();
    from.set_read_timeout(Some(STEP)).unwrap();
    from.set_nodelay(true).unwrap();
    let given = Arc::clone(state);
    thread::spawn(move || give(number, &receiver, to, &given));
    let state = Arc::clone(state);
    thread::spawn(move || {
        let mut bytes = vec![0; 64 << 10];
        while state.broken.load(SeqCst) <= number {
            match from.read(&mut bytes) {
                Ok(0) => break,
                Ok(n) => {
                    let due = Instant::now() + Duration::from_micros(state.delay_us.load(SeqCst));
                    if sender.send((due, bytes[..n].to_vec())).is_err() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        drop(from.shutdown(Shutdown::Both));
    });
}

fn give(number: usize, bytes: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream, state: &State) {
    let mut free = Instant::now();
    while let Ok((due, bytes)) = bytes.recv() {
        let rate = state.rate.load(SeqCst);
        let takes = if rate == 0 { 0.0 } else { bytes.len() as f64 / rate as f64 };
        free = free.max(due) + Duration::from_secs_f64(takes);
        thread::sleep(free.saturating_duration_since(Instant::now()));
        if state.broken.load(SeqCst) > number {
            break;
        }
        if !state.silent.load(SeqCst) && to.write_all(&bytes).is_err() {
            break;
        }
    }
    drop(to.shutdown(Shutdown::Both));
}
