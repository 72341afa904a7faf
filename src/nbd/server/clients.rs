//! The places of clients, which are limited.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Socket;

/// The most connections at a time. A single copy makes several.
const MAX_CLIENTS: usize = 512;
/// A client that was silent for so long makes room for another one where no place is left.
const SILENT: Duration = Duration::from_secs(60);
/// So many clients have threads enough to read several parts of a disk at once.
const FEW: usize = 64;

/// The clients that are connected.
pub(super) struct Clients {
    begin: Instant,
    list: Mutex<Vec<Arc<Client>>>,
}

struct Client {
    socket: Socket,
    /// When it was heard of last, in milliseconds since the beginning.
    heard: AtomicU64,
}

/// A client's place, which is free again when this is dropped.
pub(super) struct Place {
    clients: Arc<Clients>,
    client: Arc<Client>,
}

impl Default for Clients {
    fn default() -> Clients {
        Clients { begin: Instant::now(), list: Mutex::default() }
    }
}

impl Clients {
    fn now(&self) -> u64 {
        self.begin.elapsed().as_millis() as u64
    }

    /// Takes a place. Where none is left, the client that was silent longest is cut off, if that is long enough.
    pub fn enter(self: &Arc<Self>, socket: Socket) -> Option<Place> {
        self.enter_at(socket, self.now())
    }

    fn enter_at(self: &Arc<Self>, socket: Socket, now: u64) -> Option<Place> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() >= MAX_CLIENTS {
            let heard = |client: &Arc<Client>| client.heard.load(Ordering::Relaxed);
            let (n, client) = list.iter().enumerate().min_by_key(|(_, client)| heard(client))?;
            if now.saturating_sub(heard(client)) < SILENT.as_millis() as u64 {
                return None;
            }
            client.socket.close();
            list.swap_remove(n);
        }
        let client = Arc::new(Client { socket, heard: AtomicU64::new(now) });
        list.push(Arc::clone(&client));
        Some(Place { clients: Arc::clone(self), client })
    }

    fn count(&self) -> usize {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Place {
    /// Notes that the client was heard of.
    pub fn heard(&self) {
        self.client.heard.store(self.clients.now(), Ordering::Relaxed);
    }

    /// Whether so few clients are connected that each may have several threads.
    pub fn is_one_of_few(&self) -> bool {
        self.clients.count() <= FEW
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut list = self.clients.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.retain(|client| !Arc::ptr_eq(client, &self.client));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn who_is_silent_longest_makes_room() {
        let clients = Arc::new(Clients::default());
        let enter = |now| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            clients.enter_at(Socket::Unix(ours), now).map(|place| (place, theirs))
        };
        let mut all: Vec<_> = (0..MAX_CLIENTS as u64).map(|n| enter(1000 + n).unwrap()).collect();
        assert!(!all[0].0.is_one_of_few());
        // The first one spoke again, so the second one goes, but not before it was silent for a while.
        all[0].0.client.heard.store(5000, Ordering::Relaxed);
        assert!(enter(61_000).is_none());
        let late = enter(61_001).unwrap();
        assert_eq!(all[1].1.read(&mut [0]).unwrap(), 0);
        all[0].1.set_nonblocking(true).unwrap();
        assert_eq!(all[0].1.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(clients.count(), MAX_CLIENTS);
        drop(all);
        assert_eq!(clients.count(), 1);
        assert!(late.0.is_one_of_few());
        drop(late);
        assert_eq!(clients.count(), 0);
    }
}
