//! A minimal load balancer: each connection goes to the backend that is set.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// A load balancer on loopback. Its threads end with the process.
#[derive(Debug)]
pub struct LoadBalancer {
    /// `http://127.0.0.1:PORT`.
    pub address: String,
    target: Arc<Mutex<SocketAddr>>,
}

impl LoadBalancer {
    /// Starts a load balancer in front of this server.
    ///
    /// # Panics
    /// If it cannot listen.
    pub fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let target = Arc::new(Mutex::new(socket(server)));
        let current = target.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let target = *current.lock().unwrap();
                std::thread::spawn(move || pass(client, target));
            }
        });
        Self { address, target }
    }

    /// Sets the backend of new connections.
    ///
    /// # Panics
    /// If the address cannot be parsed.
    pub fn set_backend(&self, server: &str) {
        *self.target.lock().unwrap() = socket(server);
    }
}

fn socket(server: &str) -> SocketAddr {
    server.trim_start_matches("http://").parse().unwrap()
}

/// Copies both ways until either end closes.
fn pass(client: TcpStream, target: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(target)?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Both);
    });
    let (mut from_server, mut to_client) = (server, client);
    let _ = io::copy(&mut from_server, &mut to_client);
    to_client.shutdown(Shutdown::Both)
}
