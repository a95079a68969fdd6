//! Is a ladder exact? Every frame once and in its place, no seam to be seen at a join, no sample of sound lost or moved.
//!
//! The checks read what was published as a player would: the playlists, and what they refer to. They trust FFmpeg to decode
//! and nothing that Spool says about itself, but for the part records, which tell where the joins are.
//!
//! Limits that follow from measurements say so. `SPOOL_TEST_MEASURE=1` prints what is found (with `cargo nextest run --no-capture`).

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

/// What is to be exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Frames of every rendition, and of all its parts together, are those of the frame clock.
    Frames,
    /// Times rise evenly from 0 on, across all joins; sound and pictures start together.
    Times,
    /// Every frame of the source is shown once, in its place.
    Pictures,
    /// Frames beside a join are as good as the others.
    Joins,
    /// The sound is the source's, sample by sample, without a seam.
    Sound,
    /// One decoder configuration per rendition, media segments at the same times on all, and playlists that say so.
    Playlists,
}

/// Where a ladder is not exact.
#[derive(Debug)]
pub struct Flaw {
    /// Which check found it.
    pub check: Check,
    /// What it found.
    pub what: String,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.check, self.what)
    }
}

impl Check {
    /// A flaw that this check found.
    fn flaw(self, what: impl Into<String>) -> Flaw {
        Flaw { check: self, what: what.into() }
    }

    /// Nothing where it holds, else the flaw.
    fn expect(self, holds: bool, what: impl FnOnce() -> String) -> Result<(), Flaw> {
        if holds { Ok(()) } else { Err(self.flaw(what())) }
    }
}

/// What all checks have against the ladder in a folder: nothing where it is exact. `source` is the file that `clip` describes.
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
