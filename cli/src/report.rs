//! Report of `spool transcode`: the published ladders, the time taken, and commands that play the ladders.

use std::time::Duration;

use comfy_table::Cell;
use serde::Serialize;
use spool_media::package::publish::Published;

use crate::{
    error::CliError,
    output::{self, bitrate, bytes, clock, right},
    paths::display_uri,
    profile::Summary,
    progress::Tally,
};

/// Report of a transcode command.
#[derive(Serialize)]
pub struct Report<'a> {
    /// One published ladder per source.
    pub published: &'a [Published],
    /// Wall-clock time of the command.
    #[serde(rename = "wall_ms", serialize_with = "as_ms")]
    pub wall: Duration,
    /// Parts that were encoded, and parts that existed already.
    pub tally: Tally,
    /// Profile of the command, if `--profile` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Summary>,
}

fn as_ms<S: serde::Serializer>(wall: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX))
}

impl Report<'_> {
    /// Prints the report as tables.
    pub fn print(&self) -> Result<(), CliError> {
        for published in self.published {
            let mut table =
                output::table(&["rendition", "size", "fps", "codecs", "average", "peak", "bytes"]);
            for r in &published.renditions {
                let (size, fps) = match r.frame_rate {
                    Some(rate) => (format!("{}x{}", r.width, r.height), format!("{:.3}", rate.to_f64())),
                    None => ("audio".to_owned(), String::new()),
                };
                table.add_row([
                    Cell::new(&r.name),
                    Cell::new(size),
                    right(fps),
                    Cell::new(&r.codecs),
                    right(bitrate(r.average_bps)),
                    right(bitrate(r.peak_bps)),
                    right(bytes(r.bytes)),
                ]);
            }
            output::print(&table.to_string())?;
            output::print(&format!("master  {}", display_uri(&published.master)))?;
        }
        let media_ms: i64 = self.published.iter().map(|p| p.duration_ms).sum();
        let media = Duration::from_millis(u64::try_from(media_ms).unwrap_or(0));
        let Tally { encoded, reused } = self.tally;
        let speed = media.as_secs_f64() / self.wall.as_secs_f64().max(0.001);
        output::print(&format!(
            "took    {} for {} of video ({speed:.1}x); encoded {encoded} parts, reused {reused}",
            clock(self.wall),
            clock(media)
        ))?;
        if let Some(published) = self.published.first() {
            output::print(&format!("play    {}", how_to_play(&published.master)))?;
        }
        self.profile.as_ref().map_or(Ok(()), Summary::print)
    }
}

/// Warns on stderr of a source that was cut off or is damaged.
pub fn warn_of_defects(source: &str, published: &Published) {
    if published.lost_ms > 0 {
        let (lost, there) = (published.lost_ms as f64 / 1000.0, published.duration_ms as f64 / 1000.0);
        eprintln!(
            "warning: {source} was cut off: it holds {there:.1} s and lacks {lost:.1} s (--strict refuses such a source)"
        );
    }
    if published.damaged_frames > 0 {
        let frames = published.damaged_frames;
        eprintln!(
            "warning: {source} is damaged: {frames} frames could not be decoded fully (--strict refuses such a source)"
        );
    }
}

/// Returns a command that plays a multivariant playlist, or, for a remote playlist, a text that tells how to
/// play it.
fn how_to_play(master: &str) -> String {
    match master.strip_prefix("file://") {
        Some(_) => format!("ffplay '{}'", display_uri(master)),
        None => format!("any HLS player, at the public URL of {master}"),
    }
}
