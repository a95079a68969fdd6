//! Checks of the pictures: every frame of the source once, in its place, and no worse beside a join.

use std::path::Path;

use super::{
    Check, Flaw, Ladder, Rendition,
    tools::{grey_frames, similarity, source_frames},
};
use crate::clips::{Clip, HEIGHT, WIDTH, read_number};

/// Least similarity of a frame to its source. Encoded frames reached 0.95 and more, their neighbours 0.70 and
/// less.
const SAME_FRAME: f64 = 0.80;
/// How much worse than the worst frame elsewhere the worst one beside a join may be: ladders without a seam
/// showed up to 0.002.
const WORST_TOLERANCE: f64 = 0.01;
/// How much worse than the mean elsewhere the mean beside joins may be: ladders without a seam showed up to
/// 0.004, parts that each begin with a starved picture 0.02 to 0.06.
const MEAN_TOLERANCE: f64 = 0.01;
/// Frames on each side of a join that are compared.
const BESIDE: u64 = 2;

/// Checks the number that each frame carries.
///
/// # Errors
/// The first frame that is not the expected one.
pub fn pictures(ladder: &Ladder, clip: &Clip) -> Result<(), Flaw> {
    let check = Check::Pictures;
    let seen = clip.expected_numbers();
    for rendition in &ladder.videos {
        let (name, size) = (&rendition.name, size(rendition, clip)?);
        let frames = grey_frames(rendition, clip.coding.made, size)?;
        for (number, (frame, due)) in frames.iter().zip(&seen).enumerate() {
            let found = read_number(frame, size.0);
            check.expect(found == Some(*due), || {
                format!("{name}: frame {number} shows {found:?} of the source instead of {due}")
            })?;
        }
        check.expect(frames.len() == seen.len(), || {
            format!("{name}: {} frames instead of {}", frames.len(), seen.len())
        })?;
    }
    Ok(())
}

/// Returns the numbers that the frames of a rendition of the clip's own size carry.
///
/// # Errors
/// If the rendition cannot be decoded.
pub fn numbers(rendition: &Rendition) -> Result<Vec<Option<u16>>, Flaw> {
    let frames = grey_frames(rendition, "null", (WIDTH, HEIGHT))?;
    Ok(frames.iter().map(|frame| read_number(frame, WIDTH)).collect())
}

/// Checks that frames beside a join are as similar to the source as the others are.
///
/// # Errors
/// The rendition that has worse ones.
pub fn joins(ladder: &Ladder, clip: &Clip, source: &Path) -> Result<(), Flaw> {
    let check = Check::Joins;
    let decoded = source_frames(source, clip.coding.shown, WIDTH * HEIGHT * 3 / 2);
    // Frames that a ladder shows, each once: a held frame is shown again.
    let shown = clip.expected_frames();
    let kept: Vec<u32> =
        shown.iter().copied().collect::<std::collections::BTreeSet<_>>().into_iter().collect();
    assert_eq!(decoded.len(), kept.len(), "the clip itself is wrong");
    let due: Vec<&[u8]> =
        shown.iter().map(|picture| decoded[kept.binary_search(picture).unwrap()].as_slice()).collect();
    for rendition in &ladder.videos {
        let name = &rendition.name;
        let similarity = similarity(rendition, clip.coding.made, size(rendition, clip)?, &due);
        check.expect(similarity.len() == due.len(), || {
            format!("{name}: {} frames to compare", similarity.len())
        })?;
        let starts: Vec<u64> =
            ladder.parts_of(rendition).map(|part| part.first_frame).filter(|first| *first > 0).collect();
        let beside = |frame: u64| {
            starts.iter().any(|start| (start.saturating_sub(BESIDE)..start + BESIDE).contains(&frame))
        };
        let (joins, inside): (Vec<_>, Vec<_>) = (0..).zip(similarity).partition(|(frame, _)| beside(*frame));
        if let Some((frame, found)) = joins.iter().chain(&inside).find(|(_, found)| *found < SAME_FRAME) {
            return Err(check
                .flaw(format!("{name}: frame {frame} is another frame than the source's (SSIM {found})")));
        }
        if joins.is_empty() {
            continue;
        }
        let (worst, worst_elsewhere) = (worst(&joins), worst(&inside));
        let (mean, mean_elsewhere) = (mean(&joins), mean(&inside));
        if std::env::var_os("SPOOL_TEST_MEASURE").is_some() {
            println!(
                "{name}: joins worst {worst:.4} mean {mean:.4}, elsewhere worst {worst_elsewhere:.4} mean {mean_elsewhere:.4}"
            );
        }
        let seamless = worst >= worst_elsewhere - WORST_TOLERANCE && mean >= mean_elsewhere - MEAN_TOLERANCE;
        check.expect(seamless, || {
            format!("{name}: SSIM beside joins {worst} (mean {mean}), elsewhere {worst_elsewhere} (mean {mean_elsewhere})")
        })?;
    }
    Ok(())
}

fn worst(frames: &[(u64, f64)]) -> f64 {
    frames.iter().map(|(_, found)| *found).fold(1.0, f64::min)
}

fn mean(frames: &[(u64, f64)]) -> f64 {
    frames.iter().map(|(_, found)| *found).sum::<f64>() / frames.len() as f64
}

/// Returns the size of the clip's pictures, or half of it.
fn size(rendition: &Rendition, clip: &Clip) -> Result<(usize, usize), Flaw> {
    let turn = |(width, height)| {
        if clip.coding.made.contains("transpose") { (height, width) } else { (width, height) }
    };
    let known = rendition
        .size
        .map(turn)
        .filter(|(width, height)| *width == WIDTH && *height == HEIGHT || *width == WIDTH / 2);
    known.ok_or_else(|| Check::Pictures.flaw(format!("{}: RESOLUTION {:?}", rendition.name, rendition.size)))
}
