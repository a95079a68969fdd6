//! A web server with one page, with configurable behaviour, that logs its responses.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
};

/// Bytes that are read and sent at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Behaviour of a web server.
#[derive(Debug, Clone, Copy)]
pub struct Behavior {
    /// Whether it serves ranges.
    pub ranges: bool,
    /// Whether it sends an ETag.
    pub etag: bool,
}

/// One response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedResponse {
    /// First and last byte that were requested; `None` if the response was the whole page.
    pub range: Option<(u64, u64)>,
    /// Bytes of body that were sent: fewer than requested if the client hung up.
    pub sent: u64,
}

/// A web server that has one page, on loopback. Its threads end with the process.
#[derive(Debug)]
pub struct Web {
    /// Address of the page.
    pub address: String,
    log: Arc<Mutex<Vec<LoggedResponse>>>,
}

impl Web {
    /// Serves this file as `/talk.mp4`.
    ///
    /// # Panics
    /// If it cannot listen.
    pub fn start(file: &Path, behavior: Behavior) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/talk.mp4", listener.local_addr().unwrap());
        let log = Arc::<Mutex<Vec<LoggedResponse>>>::default();
        let (file, logged) = (file.to_owned(), Arc::clone(&log));
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (file, log) = (file.clone(), Arc::clone(&logged));
                std::thread::spawn(move || answer_all(&socket, &file, behavior, &log));
            }
        });
        Self { address, log }
    }

    /// Returns every response since the start or the last time the log was cleared.
    ///
    /// # Panics
    /// If a thread that answered panicked.
    pub fn log(&self) -> Vec<LoggedResponse> {
        self.log.lock().unwrap().clone()
    }

    /// Returns the bytes of the page that were sent.
    pub fn bytes_sent(&self) -> u64 {
        self.log().iter().map(|answered| answered.sent).sum()
    }

    /// Clears the log.
    ///
    /// # Panics
    /// If a thread that answered panicked.
    pub fn clear_log(&self) {
        self.log.lock().unwrap().clear();
    }
}

/// Answers the requests of one connection until the client hangs up.
fn answer_all(
    socket: &TcpStream,
    file: &Path,
    behavior: Behavior,
    log: &Mutex<Vec<LoggedResponse>>,
) -> Option<()> {
    let mut lines = BufReader::new(socket.try_clone().ok()?).lines();
    loop {
        let head: Vec<String> =
            lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let with_body = !head.first()?.starts_with("HEAD");
        let range =
            head.iter().find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
        let mut page = File::open(file).ok()?;
        let length = page.metadata().ok()?.len();
        let range = range.filter(|_| behavior.ranges).and_then(|range| {
            let (first, last) = range.split_once('-')?;
            Some((first.parse::<u64>().ok()?, last.parse().unwrap_or(u64::MAX).min(length - 1)))
        });
        let mut headers = String::from("Content-Type: video/mp4\r\n");
        if behavior.etag {
            headers += "ETag: \"one\"\r\n";
        }
        let (status, first, bytes) = match range {
            Some((first, last)) => {
                headers +=
                    &format!("Accept-Ranges: bytes\r\nContent-Range: bytes {first}-{last}/{length}\r\n");
                ("206 Partial Content", first, last + 1 - first)
            }
            None => ("200 OK", 0, length),
        };
        let mut out = socket;
        write!(out, "HTTP/1.1 {status}\r\nContent-Length: {bytes}\r\n{headers}\r\n").ok()?;
        page.seek(SeekFrom::Start(first)).ok()?;
        let mut left = page.take(if with_body { bytes } else { 0 });
        let (mut sent, mut chunk) = (0, vec![0; CHUNK_BYTES]);
        let gone = loop {
            match left.read(&mut chunk).ok()? {
                0 => break false,
                count if out.write_all(&chunk[..count]).is_err() => break true,
                count => sent += count as u64,
            }
        };
        log.lock().unwrap().push(LoggedResponse { range, sent });
        if gone {
            return None;
        }
    }
}
