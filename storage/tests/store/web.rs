//! Sources on the web: servers with and without ranges, ETags and dates, and presigned links.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use spool_storage::{Error, ErrorKind, Location, ObjectKind, Stores};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use super::{patterned, text};

/// Behaviour of a web server.
#[derive(Debug, Clone, Default)]
struct Page {
    body: Bytes,
    etag: Option<&'static str>,
    date: Option<&'static str>,
    ranges: bool,
    /// Whether it compares If-Match and If-Unmodified-Since.
    conditions: bool,
    /// Text in the URL without which it responds with 403.
    query: Option<&'static str>,
}

struct Web {
    page: Arc<Mutex<Page>>,
    address: std::net::SocketAddr,
}

impl Web {
    async fn start(page: Page) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let page = Arc::new(Mutex::new(page));
        let served = Arc::clone(&page);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(answer(socket, Arc::clone(&served)));
            }
        });
        Self { page, address }
    }

    fn locate(&self, path: &str) -> Location {
        Stores::with_options([("", "")]).locate(&format!("http://{}{path}", self.address)).unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut Page)) {
        change(&mut self.page.lock().unwrap());
    }
}

async fn answer(socket: TcpStream, page: Arc<Mutex<Page>>) -> std::io::Result<()> {
    let mut socket = BufReader::new(socket);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if socket.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if line.trim().is_empty() {
                break;
            }
            lines.push(line.trim().to_owned());
        }
        let header = |name: &str| {
            lines.iter().find_map(|line| line.to_lowercase().strip_prefix(name).map(|v| v.trim().to_owned()))
        };
        let page = page.lock().unwrap().clone();
        let mut head = String::new();
        if let Some(etag) = page.etag {
            head += &format!("ETag: {etag}\r\n");
        }
        if let Some(date) = page.date {
            head += &format!("Last-Modified: {date}\r\n");
        }
        let unequal = |sent: Option<String>, own: Option<&str>| {
            sent.is_some_and(|sent| Some(sent) != own.map(str::to_lowercase))
        };
        let fails = unequal(header("if-match:"), page.etag.filter(|tag| !tag.starts_with("W/")))
            || (header("if-match:").is_none() && unequal(header("if-unmodified-since:"), page.date));
        let range = header("range: bytes=").filter(|_| page.ranges);
        let (status, body) = if lines[0].starts_with("HEAD") {
            ("405 Method Not Allowed", Bytes::new())
        } else if page.query.is_some_and(|query| !lines[0].contains(query)) {
            ("403 Forbidden", Bytes::from_static(b"<Error><Code>AccessDenied</Code></Error>"))
        } else if page.conditions && fails {
            ("412 Precondition Failed", Bytes::new())
        } else if let Some((first, last)) = range.as_deref().and_then(|range| range.split_once('-')) {
            let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
            let last = last.min(page.body.len().saturating_sub(1));
            if first >= page.body.len() {
                ("416 Range Not Satisfiable", Bytes::new())
            } else {
                head += &format!("Content-Range: bytes {first}-{last}/{}\r\n", page.body.len());
                ("206 Partial Content", page.body.slice(first..=last))
            }
        } else {
            ("200 OK", page.body.clone())
        };
        head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{head}\r\n", body.len());
        socket.write_all(head.as_bytes()).await?;
        socket.write_all(&body).await?;
    }
}

const MONDAY: &str = "Mon, 01 Jan 2024 10:00:00 GMT";
const TUESDAY: &str = "Tue, 02 Jan 2024 10:00:00 GMT";

#[tokio::test]
async fn a_page_with_ranges_is_read_in_ranges_and_pinned() {
    let pins = [
        Page { etag: Some("\"a\""), ..Page::default() },
        Page { date: Some(MONDAY), ..Page::default() },
        Page { etag: Some("W/\"a\""), date: Some(MONDAY), ..Page::default() },
        Page { etag: Some("W/\"a\""), ..Page::default() },
    ];
    for pin in pins {
        for conditions in [true, false] {
            let page = Page { body: patterned(1000), ranges: true, conditions, ..pin.clone() };
            let web = Web::start(page.clone()).await;
            let location = web.locate("/video%20one.mp4");
            assert_eq!(location.name(), "video one.mp4");
            assert_eq!(location.size().await.unwrap(), Some(1000));
            let reader = location.open().await.unwrap();
            assert!(!reader.must_download(), "{page:?}");
            assert_eq!(reader.read(10..20).await.unwrap(), page.body[10..20]);
            web.change(|page| {
                page.body = Bytes::from(vec![0; 1000]);
                page.etag = page.etag.map(|tag| if tag.starts_with('W') { "W/\"b\"" } else { "\"b\"" });
                page.date = page.date.map(|_| TUESDAY);
            });
            let error = reader.read(10..20).await.unwrap_err();
            assert!(matches!(error, Error::SourceChanged { .. }), "{page:?}: {error:?}");
        }
    }
}

#[tokio::test]
async fn a_page_that_cannot_be_pinned_is_downloaded_once() {
    let pages = [
        Page { ranges: true, ..Page::default() },
        Page { etag: Some("\"a\""), ..Page::default() },
        Page::default(),
    ];
    let directory = tempfile::tempdir().unwrap();
    for page in pages {
        let page = Page { body: patterned(3_000_000), ..page };
        let web = Web::start(page.clone()).await;
        let reader = web.locate("/v.mp4").open().await.unwrap();
        assert!(reader.must_download(), "{page:?}");
        assert_eq!(reader.source().bytes, 3_000_000);
        assert!(matches!(reader.read(0..10).await.unwrap_err(), Error::NoRanges { .. }));
        let copy = directory.path().join("copy");
        reader.save(&copy).await.unwrap();
        assert!(std::fs::read(&copy).unwrap() == page.body);
        assert_eq!(reader.bytes_read(), 3_000_000);
        web.change(|page| page.body = patterned(2_000_000));
        assert!(matches!(reader.save(&copy).await.unwrap_err(), Error::SourceChanged { .. }));
    }
}

#[tokio::test]
async fn an_empty_page_has_no_first_byte_and_can_be_opened() {
    let web = Web::start(Page { ranges: true, etag: Some("\"a\""), ..Page::default() }).await;
    assert_eq!(web.locate("/v.mp4").open().await.unwrap().source().bytes, 0);
}

#[tokio::test]
async fn a_presigned_link_works_and_is_never_shown() {
    let page = Page {
        body: text("0123456789"),
        etag: Some("\"a\""),
        ranges: true,
        query: Some("?X-Sig=hunter2&n=a%2Fb"),
        ..Page::default()
    };
    let web = Web::start(page).await;
    let location = web.locate("/v.mp4?X-Sig=hunter2&n=a%2Fb");
    let reader = location.open().await.unwrap();
    assert_eq!(reader.read(2..4).await.unwrap(), "23");
    assert!(location.uri().contains("hunter2"), "the address itself must lead there again");
    let reader = Stores::with_options([("", "")])
        .locate(&reader.source().uri)
        .unwrap()
        .open_pinned(reader.source())
        .await
        .unwrap();
    web.change(|page| page.query = Some("renewed"));
    let error = reader.read(2..4).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAllowed);
    assert!(error.to_string().contains("presigned link may have expired"), "{error}");
    let mut shown = format!("{error} {error:?} {location} {location:?} {reader:?}");
    let mut link: &dyn std::error::Error = &error;
    while let Some(next) = link.source() {
        shown += &format!("{next} {next:?}");
        link = next;
    }
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn the_web_is_for_reading() {
    let web = Web::start(Page { body: text("x"), ..Page::default() }).await;
    let location = web.locate("/v.mp4");
    let error = location.put(text("y"), ObjectKind::Record).await.unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }), "{error:?}");
    let refused = Stores::with_options([("", "")])
        .locate("http://127.0.0.1:1/v.mp4?secret")
        .unwrap()
        .open()
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, Error::Unreachable { uri, .. } if uri == "http://127.0.0.1:1/v.mp4"),
        "{refused:?}"
    );
}
