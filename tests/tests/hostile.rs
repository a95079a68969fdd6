//! Malicious files do no harm: each gives an error that names it, or a correct ladder, soon; none makes a
//! process reach a network or another file. A control shows that plain FFmpeg would.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "whatever goes wrong fails the test")]

use std::{
    fs,
    io::ErrorKind,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use spool_tests::{check, folder, footage, run::Spool};

/// Content of the file that must not be read.
const CANARY: &str = "canary-0b6d6f2a";
/// Longest run of one file: a scan of its content, and a second or two of pictures.
const LONGEST: Duration = Duration::from_secs(20);

/// A file with a secret, and a socket that detects connections.
struct Trap {
    folder: tempfile::TempDir,
    listener: TcpListener,
}

impl Trap {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("secret.txt"), CANARY).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { folder, listener }
    }

    fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.listener.local_addr().unwrap())
    }

    fn secret(&self) -> String {
        self.folder.path().join("secret.txt").display().to_string()
    }

    /// Returns whether a connection was made.
    fn was_reached(&self) -> bool {
        match self.listener.accept() {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                false
            }
        }
    }
}

/// Returns a box of ISO/IEC 14496-12.
fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len() + 8).unwrap();
    [&size.to_be_bytes()[..], kind, body].concat()
}

/// Returns the positions of boxes of this kind, at any depth.
fn find(bytes: &[u8], kind: &[u8; 4]) -> Vec<usize> {
    bytes.windows(4).enumerate().filter(|(_, window)| window == kind).map(|(at, _)| at - 4).collect()
}

fn size_at(bytes: &[u8], at: usize) -> usize {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// Overwrites the bytes `offset` behind the name of each box of this kind.
fn patched(bytes: &[u8], kind: &[u8; 4], offset: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for at in find(&bytes, kind) {
        let start = at + 8 + offset;
        bytes[start..start + with.len()].copy_from_slice(with);
    }
    bytes
}

/// Inserts boxes before the content of a box; it and the `outer` boxes around it grow. The bytes behind it
/// must not be referred to.
fn grown(bytes: &[u8], kinds: &[&[u8; 4]], more: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let innermost = find(&bytes, kinds.last().unwrap())[0];
    for kind in kinds {
        let at = find(&bytes, kind)[0];
        let size = u32::try_from(size_at(&bytes, at) + more.len()).unwrap();
        bytes[at..at + 4].copy_from_slice(&size.to_be_bytes());
    }
    bytes.splice(innermost + 8..innermost + 8, more.iter().copied());
    bytes
}

/// Collects the positions at which boxes begin and end, three levels deep.
fn boundaries(bytes: &[u8], start: usize, end: usize, depth: u8, found: &mut Vec<usize>) {
    let mut at = start;
    while at + 8 <= end {
        let size = size_at(bytes, at);
        if size < 8 || at + size > end {
            return;
        }
        found.extend([at, at + 4, at + 8]);
        if depth > 0
            && [b"moov", b"trak", b"mdia", b"minf", b"stbl"]
                .iter()
                .any(|kind| &bytes[at + 4..at + 8] == *kind)
        {
            boundaries(bytes, at + 8, at + size, depth - 1, found);
        }
        at += size;
    }
    found.push(at);
}

fn noise(length: usize, mut state: u64) -> Vec<u8> {
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(next).collect()
}

/// Returns texts that name other places, for programs that would go there.
fn texts(trap: &Trap) -> Vec<(String, Vec<u8>)> {
    let (url, secret) = (trap.url("x.ts"), trap.secret());
    let hls = |line: &str| format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{line}\n#EXT-X-ENDLIST\n");
    let texts = [
        ("hls-http", hls(&url)),
        ("hls-file", hls(&format!("file://{secret}"))),
        ("hls-path", hls(&secret)),
        ("hls-concat", hls(&format!("concat:{url}|{secret}"))),
        ("hls-subfile", hls(&format!("subfile,,start,0,end,9,,:{secret}"))),
        ("hls-crypto", hls(&format!("crypto+{url}"))),
        (
            "hls-key",
            format!("#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI=\"{url}\"\n#EXTINF:2,\nx.ts\n#EXT-X-ENDLIST\n"),
        ),
        ("hls-map", format!("#EXTM3U\n#EXT-X-MAP:URI=\"{url}\"\n#EXTINF:2,\nx.m4s\n#EXT-X-ENDLIST\n")),
        ("hls-master", format!("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{url}\n")),
        ("hls-bom", format!("\u{feff}{}", hls(&url))),
        ("hls-blank", format!("\n\n  {}", hls(&url))),
        ("ffconcat-http", format!("ffconcat version 1.0\nfile '{url}'\n")),
        ("ffconcat-file", format!("ffconcat version 1.0\nfile '{secret}'\n")),
        ("concat-bare", format!("file '{secret}'\nfile '{url}'\n")),
        (
            "dash",
            format!(
                "<?xml version=\"1.0\"?><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\"><BaseURL>{url}</BaseURL></MPD>"
            ),
        ),
        ("dash-bare", format!("<MPD><Period><BaseURL>{url}</BaseURL></Period></MPD>")),
        ("smooth", format!("<SmoothStreamingMedia><StreamIndex Url=\"{url}\"/></SmoothStreamingMedia>")),
        (
            "svg-image",
            format!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\"><image href=\"{url}\" width=\"9\" height=\"9\"/></svg>"
            ),
        ),
        (
            "svg-entity",
            format!("<!DOCTYPE svg [<!ENTITY x SYSTEM \"file://{secret}\">]><svg><text>&x;</text></svg>"),
        ),
        ("imf", format!("<?xml version=\"1.0\"?><CompositionPlaylist><Id>{url}</Id></CompositionPlaylist>")),
        (
            "sdp",
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nc=IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\n".to_owned(),
        ),
        ("asx", format!("<asx version=\"3.0\"><entry><ref href=\"{url}\"/></entry></asx>")),
        ("pls", format!("[playlist]\nFile1={url}\nNumberOfEntries=1\n")),
        ("webvtt", format!("WEBVTT\n\n00:00.000 --> 00:01.000\n<img src=\"{url}\">\n")),
        (
            "ass",
            format!(
                "[Script Info]\nScriptType: v4.00+\n[Events]\nDialogue: 0,0:00:00.00,0:00:01.00,,,0,0,0,,{{\\fn{url}}}x\n"
            ),
        ),
        ("srt", format!("1\n00:00:00,000 --> 00:00:02,000\n<font face=\"{url}\">x</font>\n")),
        ("avisynth", format!("DirectShowSource(\"{secret}\")\n")),
        ("vapoursynth", format!("import os\nprint(open('{secret}').read())\n")),
        ("lavfi", format!("movie={secret}[out0]\n")),
        ("html", format!("<!DOCTYPE html><video src=\"{url}\">")),
        ("json", format!("{{\"src\": \"{url}\"}}")),
        ("cue", format!("FILE \"{secret}\" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n")),
    ];
    texts.into_iter().map(|(name, text)| (format!("{name}.mp4"), text.into_bytes())).collect()
}

/// Returns files with false headers.
fn headers(trap: &Trap, mp4: &[u8], fast: &[u8]) -> Vec<(String, Vec<u8>)> {
    let url = format!("{}\0", trap.url("x.mov")).into_bytes();
    let reference = {
        let rdrf = boxed(
            b"rdrf",
            &[&[0; 4][..], b"url ", &u32::try_from(url.len()).unwrap().to_be_bytes(), &url].concat(),
        );
        boxed(b"moov", &boxed(b"rmra", &boxed(b"rmda", &rdrf)))
    };
    let ftyp = boxed(b"ftyp", b"qt  \0\0\0\0qt  ");
    // Data entries that are not "in this file", with a place.
    let outside = {
        let entry = boxed(b"url ", &[&[0; 4][..], &url].concat());
        let dref = boxed(b"dref", &[&[0, 0, 0, 0, 0, 0, 0, 1][..], &entry].concat());
        let mut bytes = mp4.to_vec();
        for at in find(&bytes, b"dref").into_iter().rev() {
            let size = size_at(&bytes, at);
            bytes.splice(at..at + size, dref.iter().copied());
        }
        // The boxes around them have other sizes now.
        let more = dref.len() - 28;
        let tracks = find(&bytes, b"trak");
        for kind in [b"dinf", b"minf", b"mdia", b"trak"] {
            for at in find(&bytes, kind) {
                let size = u32::try_from(size_at(&bytes, at) + more).unwrap();
                bytes[at..at + 4].copy_from_slice(&size.to_be_bytes());
            }
        }
        let moov = find(&bytes, b"moov")[0];
        let size = u32::try_from(size_at(&bytes, moov) + more * tracks.len()).unwrap();
        bytes[moov..moov + 4].copy_from_slice(&size.to_be_bytes());
        bytes
    };
    let track = {
        let at = find(mp4, b"trak")[0];
        mp4[at..at + size_at(mp4, at)].to_vec()
    };
    let moov = |body: &[u8]| [&ftyp[..], &boxed(b"moov", body)].concat();
    let nested = (0..20_000)
        .fold(Vec::new(), |inner, _| if inner.len() < 160_000 { boxed(b"trak", &inner) } else { inner });
    let all = u32::MAX.to_be_bytes();
    vec![
        ("reference-movie.mov".to_owned(), [&ftyp[..], &reference].concat()),
        ("outside.mov".to_owned(), outside),
        ("bomb-header.mp4".to_owned(), patched(mp4, b"avc1", 24, &[0xff; 4])),
        ("streams-200.mp4".to_owned(), grown(mp4, &[b"moov"], &track.repeat(200))),
        ("streams-20000.mp4".to_owned(), grown(mp4, &[b"moov"], &track.repeat(20_000))),
        ("samples-all.mp4".to_owned(), patched(mp4, b"stsz", 8, &all)),
        ("sample-sizes.mp4".to_owned(), patched(mp4, b"stsz", 4, &all)),
        ("times-all.mp4".to_owned(), patched(mp4, b"stts", 8, &all)),
        ("times-zero.mp4".to_owned(), patched(mp4, b"stts", 12, &[0; 4])),
        ("times-long.mp4".to_owned(), patched(mp4, b"stts", 12, &[0x7f, 0xff, 0xff, 0xff])),
        ("chunks-all.mp4".to_owned(), patched(mp4, b"stsc", 4, &all)),
        ("offsets-all.mp4".to_owned(), patched(mp4, b"stco", 4, &all)),
        ("offset-beyond.mp4".to_owned(), patched(mp4, b"stco", 8, &all)),
        ("edits-all.mp4".to_owned(), patched(mp4, b"elst", 4, &all)),
        ("edit-long.mp4".to_owned(), patched(mp4, b"elst", 8, &all)),
        ("edit-fast.mp4".to_owned(), patched(mp4, b"elst", 16, &[0x7f, 0xff, 0, 0])),
        ("timescale-zero.mp4".to_owned(), patched(mp4, b"mdhd", 12, &[0; 4])),
        ("timescale-all.mp4".to_owned(), patched(mp4, b"mdhd", 12, &all)),
        ("movie-timescale-zero.mp4".to_owned(), patched(mp4, b"mvhd", 12, &[0; 4])),
        ("matrix.mp4".to_owned(), patched(mp4, b"tkhd", 40, &[0x7f; 36])),
        ("descriptions-all.mp4".to_owned(), patched(mp4, b"stsd", 4, &all)),
        ("channels.mp4".to_owned(), patched(mp4, b"mp4a", 16, &[0xff, 0xff])),
        ("box-of-none.mp4".to_owned(), patched(fast, b"moov", 0, &[0, 0, 0, 0])),
        ("box-too-large.mp4".to_owned(), [&ftyp[..], &[0, 0, 0, 1], b"moov", &[0x7f; 8]].concat()),
        ("nested.mp4".to_owned(), moov(&nested)),
        (
            "compressed.mov".to_owned(),
            moov(&boxed(b"cmov", &[boxed(b"dcom", b"zlib"), boxed(b"cmvd", &noise(2000, 5))].concat())),
        ),
        ("brand-only.mp4".to_owned(), ftyp.clone()),
        ("empty-moov.mp4".to_owned(), moov(&[])),
        ("media-of-noise.mp4".to_owned(), {
            let mut bytes = mp4.to_vec();
            let at = find(&bytes, b"mdat")[0];
            let size = size_at(&bytes, at) - 8;
            bytes[at + 8..at + 8 + size].copy_from_slice(&noise(size, 7));
            bytes
        }),
    ]
}

/// Returns the beginnings of every container, with noise behind them.
fn noises() -> Vec<(String, Vec<u8>)> {
    let heads: [(&str, &[u8]); 12] = [
        ("mp4", b"\0\0\0\x18ftypisom\0\0\0\0isommp42"),
        (
            "mkv",
            &[
                0x1a, 0x45, 0xdf, 0xa3, 0x84, 0x42, 0x86, 0x81, 0x01, 0x18, 0x53, 0x80, 0x67, 0x01, 0xff,
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            ],
        ),
        ("flv", b"FLV\x01\x05\0\0\0\x09\0\0\0\0\x09\xff\xff\xff"),
        ("avi", b"RIFF\xff\xff\xff\xffAVI LIST\xff\xff\xff\xffhdrl"),
        ("wav", b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\xff\xff\xff\xff\xff\xff"),
        ("ogg", b"OggS\0\x02\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("mpg", &[0, 0, 1, 0xba, 0x44]),
        ("gif", b"GIF89a\xff\xff\xff\xff\xf7\0\0"),
        ("flac", b"fLaC\0\xff\xff\xff"),
        ("mp3", b"ID3\x04\0\0\x7f\x7f\x7f\x7f"),
        ("asf", &[0x30, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11, 0xa6, 0xd9]),
        ("y4m", b"YUV4MPEG2 W99999 H99999 F25:1 C420\nFRAME\n"),
    ];
    let mut found: Vec<(String, Vec<u8>)> = (1..)
        .zip(heads)
        .map(|(seed, (ending, head))| (format!("noise.{ending}"), [head, &noise(60_000, seed)].concat()))
        .collect();
    found.push(("noise.bin".to_owned(), noise(100_000, 99)));
    let packets =
        noise(188 * 400, 100).chunks_exact(188).flat_map(|packet| [&[0x47], &packet[1..]].concat()).collect();
    found.push(("noise.ts".to_owned(), packets));
    found
}

/// Checks that one file does no harm.
fn harmless(trap: &Trap, name: &str, content: &[u8], flaws: &mut Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    let out = folder.path().join("out");
    let args = [
        "transcode",
        path.to_str().unwrap(),
        "-o",
        out.to_str().unwrap(),
        "--ladder",
        "90p",
        "--progress",
        "none",
    ];
    let ran = Spool::new(args).run();
    let mut wrong = |what: String| flaws.push(format!("{name}: {what}\n{}", ran.stderr));
    if ran.took > LONGEST {
        wrong(format!("took {:?}", ran.took));
    }
    match ran.code {
        Some(0) => {
            if let Err(flaw) = check::Ladder::open(&out) {
                wrong(format!("an invalid ladder: {flaw}"));
            }
        }
        Some(1) => {
            if !ran.stderr.contains(name) || !ran.stderr.contains("error: ") {
                wrong("an error that does not name the file".to_owned());
            }
            if out.join("master.m3u8").exists() {
                wrong("refused, and published".to_owned());
            }
        }
        code => wrong(format!("ended with {code:?}")),
    }
    for noise in ["panicked", "backtrace", "core dumped", "a crash ("] {
        if ran.stderr.contains(noise) {
            wrong(format!("{noise:?}"));
        }
    }
    let tells = |text: &[u8]| text.windows(CANARY.len()).any(|window| window == CANARY.as_bytes());
    let written = if out.exists() { folder::media(&out) } else { Default::default() };
    if tells(ran.stderr.as_bytes())
        || tells(ran.stdout.as_bytes())
        || written.values().any(|bytes| tells(bytes))
    {
        wrong("the secret was read".to_owned());
    }
    if trap.was_reached() {
        wrong("the network was reached".to_owned());
    }
    ran.expect_no_leftovers();
}

/// Tries files, two at a time.
fn try_all(trap: &Trap, files: Vec<(String, Vec<u8>)>) {
    let count = files.len();
    let (files, flaws) = (std::sync::Mutex::new(files.into_iter()), std::sync::Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = files.lock().unwrap().next();
                    let Some((name, content)) = next else { break };
                    let mut found = Vec::new();
                    harmless(trap, &name, &content, &mut found);
                    flaws.lock().unwrap().append(&mut found);
                }
            });
        }
    });
    let flaws = flaws.into_inner().unwrap();
    assert!(flaws.is_empty(), "{} flaws in {count} files:\n{}", flaws.len(), flaws.join("\n"));
    println!("{count} files did no harm");
}

/// Makes a clip, with its header at the end and at the beginning.
fn clips(folder: &Path) -> [Vec<u8>; 2] {
    let clip = footage::bunny(folder, "clip.mp4", 2, 90);
    let fast = folder.join("fast.mp4");
    footage::ffmpeg([
        "-i",
        clip.to_str().unwrap(),
        "-c",
        "copy",
        "-movflags",
        "+faststart",
        fast.to_str().unwrap(),
    ]);
    [clip, fast].map(|path: PathBuf| fs::read(path).unwrap())
}

#[test]
fn texts_that_name_other_places_reach_nothing() {
    let trap = Trap::new();
    try_all(&trap, texts(&trap));
}

#[test]
fn false_headers_do_no_harm() {
    let trap = Trap::new();
    let [mp4, fast] = clips(trap.folder.path());
    let mut files = headers(&trap, &mp4, &fast);
    // One picture larger than the limit, in a small file.
    let huge = trap.folder.path().join("huge.mov");
    footage::ffmpeg([
        "-f",
        "lavfi",
        "-i",
        "color=s=16000x16000:d=0.04",
        "-c:v",
        "png",
        huge.to_str().unwrap(),
    ]);
    files.push(("bomb.mov".to_owned(), fs::read(huge).unwrap()));
    try_all(&trap, files);
}

#[test]
fn files_cut_at_every_box_do_no_harm() {
    let trap = Trap::new();
    let [_, fast] = clips(trap.folder.path());
    let mut ends = Vec::new();
    boundaries(&fast, 0, fast.len(), 5, &mut ends);
    ends.sort_unstable();
    ends.dedup();
    assert!(ends.len() > 60, "{} boundaries", ends.len());
    try_all(&trap, ends.into_iter().map(|end| (format!("cut-{end}.mp4"), fast[..end].to_vec())).collect());
}

#[test]
fn noise_and_flipped_bits_do_no_harm() {
    let trap = Trap::new();
    let [mp4, _] = clips(trap.folder.path());
    let mut files = noises();
    let moov = find(&mp4, b"moov")[0];
    for seed in 1..=20_u64 {
        let mut bytes = mp4.clone();
        // Half of them in the header, half anywhere.
        let start = if seed % 2 == 0 { moov } else { 0 };
        for pair in noise(64, seed * 77).chunks_exact(4) {
            let at = start + u32::from_be_bytes(pair.try_into().unwrap()) as usize % (bytes.len() - start);
            bytes[at] ^= 1 << (pair[0] % 8);
        }
        files.push((format!("flipped-{seed}.mp4"), bytes));
    }
    for (ending, line) in
        [("mkv", "-c copy"), ("ts", "-c copy"), ("flv", "-c copy"), ("avi", "-c:v mpeg4 -c:a mp2")]
    {
        let source = trap.folder.path().join("clip.mp4");
        let path = trap.folder.path().join(format!("clip.{ending}"));
        let args = ["-i", source.to_str().unwrap()]
            .into_iter()
            .chain(line.split(' '))
            .chain([path.to_str().unwrap()]);
        footage::ffmpeg(args);
        let whole = fs::read(path).unwrap();
        for seed in 1..=4_u64 {
            let mut bytes = whole.clone();
            for pair in noise(128, seed * 31).chunks_exact(4) {
                let at = u32::from_be_bytes(pair.try_into().unwrap()) as usize % bytes.len();
                bytes[at] ^= 1 << (pair[0] % 8);
            }
            files.push((format!("flipped-{seed}.{ending}"), bytes));
        }
    }
    try_all(&trap, files);
}

#[test]
fn plain_ffmpeg_reaches_the_network_and_the_secret() {
    let trap = Trap::new();
    let play = |name: &str, text: &str, args: &[&str]| {
        let path = trap.folder.path().join(name);
        fs::write(&path, text).unwrap();
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-nostdin", "-v", "error", "-y"]).args(args).arg("-i").arg(&path);
        ffmpeg.args(["-map", "0", "-c", "copy", "-f", "data", "-"]).stderr(Stdio::null());
        let child = ffmpeg.stdout(Stdio::piped()).spawn().unwrap();
        (child, path)
    };
    let all = texts(&trap);
    let text = |name: &str| {
        String::from_utf8(all.iter().find(|(known, _)| known == name).unwrap().1.clone()).unwrap()
    };
    let (mut child, _) = play("hls.m3u8", &text("hls-http.mp4"), &["-protocol_whitelist", "file,http,tcp"]);
    spool_tests::run::wait_until("a connection of FFmpeg", LONGEST, || trap.was_reached().then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    // The concat demuxer reads a script of subtitles like any other file: here the secret, as a stream.
    let subtitles = trap.folder.path().join("secret.srt");
    fs::write(&subtitles, format!("1\n00:00:00,000 --> 00:00:02,000\n{CANARY}\n")).unwrap();
    let script = format!("ffconcat version 1.0\nfile '{}'\n", subtitles.display());
    let (child, _) = play("list.txt", &script, &["-safe", "0"]);
    let output = child.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains(CANARY), "{output:?}");
}
