//! Completeness and quality of a ladder: frames, bytes, and SSIM against the source.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{encode::Peer, inputs::Source, report::Table};

/// Quality of a rendition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quality {
    frames: u64,
    /// SSIM of all planes against the source at the rendition's size.
    ssim: f64,
    bytes: u64,
}

/// Measures every video rendition of a published ladder, by height.
pub(super) fn of(out: &Path, source: &Path) -> BTreeMap<u32, Quality> {
    let master = std::fs::read_to_string(out.join("master.m3u8")).unwrap();
    let mut found = BTreeMap::new();
    let mut lines = master.lines();
    while let Some(line) = lines.next() {
        let Some(size) =
            line.strip_prefix("#EXT-X-STREAM-INF:").and_then(|info| info.split("RESOLUTION=").nth(1))
        else {
            continue;
        };
        let size = size.split(',').next().unwrap();
        let (width, height) = size.split_once('x').unwrap();
        let playlist = out.join(lines.next().unwrap());
        let bytes = media_files(&playlist).iter().map(|path| path.metadata().unwrap().len()).sum();
        let (frames, ssim) = compare(&playlist, source, width, height);
        eprintln!("{height}p: {frames} frames, SSIM {ssim:.4}, {bytes} bytes");
        found.insert(height.parse().unwrap(), Quality { frames, ssim, bytes });
    }
    found
}

/// Returns the files that a media playlist names.
fn media_files(playlist: &Path) -> Vec<PathBuf> {
    let folder = playlist.parent().unwrap();
    let text = std::fs::read_to_string(playlist).unwrap();
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|name| folder.join(name))
        .collect()
}

/// Returns the frames of a rendition and their SSIM against the source.
fn compare(playlist: &Path, source: &Path, width: &str, height: &str) -> (u64, f64) {
    let graph = format!(
        "[1:v:0]scale={width}:{height}:flags=bicubic+accurate_rnd+full_chroma_int,format=yuv420p,settb=AVTB,setpts=N[b];\
         [0:v:0]format=yuv420p,settb=AVTB,setpts=N[a];[a][b]ssim"
    );
    let mut command = Command::new("ffmpeg");
    command
        .args(["-nostdin", "-hide_banner", "-nostats", "-progress", "pipe:1", "-i"])
        .arg(playlist)
        .arg("-i")
        .arg(source);
    command.args(["-filter_complex", &graph, "-an", "-f", "null", "-"]);
    let output = command.output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{command:?}: {stderr}");
    let frames = stdout
        .lines()
        .filter_map(|line| line.strip_prefix("frame=")?.trim().parse().ok())
        .next_back()
        .unwrap();
    let ssim = stderr
        .split("SSIM ")
        .nth(1)
        .and_then(|text| text.split("All:").nth(1)?.split(' ').next()?.parse().ok())
        .unwrap();
    (frames, ssim)
}

/// Compares all ladders with the first.
pub(super) fn table(source: Source, all: &[(Peer, BTreeMap<u32, Quality>)]) -> Table {
    let mut table = Table::new(
        &format!("{source}: completeness and quality"),
        &["", "rung", "frames", "SSIM", "SSIM difference to the first", "MB", "bytes / bytes of the first"],
    );
    for (peer, qualities) in all {
        for (height, quality) in qualities {
            let first = &all[0].1[height];
            table.add(vec![
                peer.to_string(),
                format!("{height}p"),
                quality.frames.to_string(),
                format!("{:.4}", quality.ssim),
                format!("{:+.4}", quality.ssim - first.ssim),
                format!("{:.2}", quality.bytes as f64 / 1e6),
                format!("{:.3}", quality.bytes as f64 / first.bytes as f64),
            ]);
        }
    }
    table
}
