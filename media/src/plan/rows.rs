//! Which rows does a title become? The grid, the cuts and the tracks, put together.

use crate::{
    Result,
    plan::{
        deinterlace::Deinterlace,
        segments::{self, Lengths, Segment},
    },
    source::{index::TrackKind, source_cache::OpenSource},
};

/// The rows of a title: a row per sound track, then contiguous rows of pictures.
///
/// # Errors
/// Where the title cannot be cut with these lengths.
pub fn rows(title: &OpenSource, lengths: Lengths) -> Result<Vec<Segment>> {
    let cuts = match title.video_track() {
        Some(pictures) => segments::cut(&title.grid, &segments::keys(&pictures.samples), lengths)?,
        None => Vec::new(),
    };
    let audio_ends: Vec<u64> = title.probe.audio.iter().map(|audio| audio_end(title, audio.stream)).collect();
    let mut rows = segments::rows(&title.source, &title.grid, &cuts, lengths, &audio_ends, title.lost_ms());
    if title.fields {
        rows.iter_mut().for_each(|row| row.deinterlace = Deinterlace::Field);
    }
    Ok(rows)
}

/// Where a sound track ends, in grid frames.
fn audio_end(title: &OpenSource, stream: u32) -> u64 {
    let track = title.index.tracks.get(stream as usize).filter(|track| track.kind == TrackKind::Audio);
    let end = track.and_then(|track| Some((track.end_pts()?, track.timebase)));
    end.map_or(title.grid.frames, |(end, timebase)| title.grid.frames_until(end, timebase))
}
