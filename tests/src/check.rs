//! Checks of a ladder's exactness: every frame once and in its place, no visible seam at a join, no sample of
//! sound lost or moved.
//!
//! The checks read the published files as a player does: the playlists, and the files that they refer to.
//! They trust FFmpeg to decode, and nothing that Spool reports about itself except the part records, which
//! give the positions of the joins.
//!
//! Limits that follow from measurements say so. `SPOOL_TEST_MEASURE=1` prints the measured values (with
//! `cargo nextest run --no-capture`).

mod pictures;
mod read;
mod sound;
mod times;
mod tools;

use std::{fmt, path::Path};

use crate::clips::Clip;

pub use pictures::{joins, numbers, pictures};
pub use read::{Ladder, MediaSegment, Part, Rendition};
pub use sound::sound;
pub use times::{frames, playlists, times};
pub use tools::{Packet, Packets, samples};

/// A property of an exact ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Frames of every rendition, and of all its parts together, are those of the frame clock.
    Frames,
    /// Times rise evenly from 0, across all joins; sound and pictures start together.
    Times,
    /// Every frame of the source is shown once, in its place.
    Pictures,
    /// Frames beside a join are as good as the others.
    Joins,
    /// The sound is the source's, sample by sample, without a seam.
    Sound,
    /// One decoder configuration per rendition, media segments at the same times in all, and playlists that
    /// agree.
    Playlists,
}

/// A deviation from exactness.
#[derive(Debug)]
pub struct Flaw {
    /// Check that found it.
    pub check: Check,
    /// Description.
    pub what: String,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.check, self.what)
    }
}

impl Check {
    /// Creates a flaw of this check.
    fn flaw(self, what: impl Into<String>) -> Flaw {
        Flaw { check: self, what: what.into() }
    }

    /// Returns a flaw unless `holds`.
    fn expect(self, holds: bool, what: impl FnOnce() -> String) -> Result<(), Flaw> {
        if holds { Ok(()) } else { Err(self.flaw(what())) }
    }
}

/// Returns the flaws of the ladder in a folder, by all checks. `source` is the file that `clip` describes.
pub fn all(folder: &Path, clip: &Clip, source: &Path) -> Vec<Flaw> {
    let ladder = match Ladder::open(folder) {
        Ok(ladder) => ladder,
        Err(flaw) => return vec![flaw],
    };
    let checks = [
        frames(&ladder, clip),
        times(&ladder, clip),
        pictures(&ladder, clip),
        joins(&ladder, clip, source),
        sound(&ladder, clip),
        playlists(&ladder, clip),
    ];
    checks.into_iter().filter_map(Result::err).collect()
}

#[cfg(test)]
mod tests;
