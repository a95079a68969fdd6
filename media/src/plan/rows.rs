//! Rows of a source, from its grid, its cuts and its tracks.

use crate::{
    Result,
    plan::{
        deinterlace::Deinterlace,
        segments::{self, Lengths, Segment},
        timeline::Timeline,
    },
    source::index::TrackKind,
};

/// Returns the rows of a source: one per audio track, then contiguous video rows.
///
/// # Errors
/// Returns an error if the source cannot be cut with these lengths.
pub fn rows(timeline: &Timeline, lengths: Lengths) -> Result<Vec<Segment>> {
    let cuts = match timeline.source.video_track() {
        Some(pictures) => segments::cut(&timeline.grid, &segments::keys(&pictures.samples), lengths)?,
        None => Vec::new(),
    };
    let audio_ends: Vec<u64> =
        timeline.source.probe.audio.iter().map(|audio| audio_end(timeline, audio.stream)).collect();
    let mut rows = segments::rows(
        &timeline.source.source,
        &timeline.grid,
        &cuts,
        lengths,
        &audio_ends,
        timeline.source.lost_ms(),
    );
    if timeline.fields {
        rows.iter_mut().for_each(|row| row.deinterlace = Deinterlace::Field);
    }
    Ok(rows)
}

/// Returns the end of an audio track, in grid frames.
fn audio_end(timeline: &Timeline, stream: u32) -> u64 {
    let track =
        timeline.source.index.tracks.get(stream as usize).filter(|track| track.kind == TrackKind::Audio);
    let end = track.and_then(|track| Some((track.end_pts()?, track.timebase)));
    end.map_or(timeline.grid.frames, |(end, timebase)| timeline.grid.frames_until(end, timebase))
}
