//! Checks of times: as many frames as expected, at the expected times, and playlists that agree.

use std::fs;

use super::{Check, Flaw, Ladder, Packets, Rendition};
use crate::clips::{AAC_FRAME, Clip, Sound};

/// Playlists count in microseconds, and m3u8-rs reads a duration as a 32-bit float.
const EXTINF_TOLERANCE_S: f64 = 5e-6;

/// Samples of a frame of Opus (20 ms), and of libopus's delay before the first one that is presented.
const OPUS_FRAME: usize = 960;
const OPUS_DELAY: usize = 312;

/// Checks that each rendition has the frames of the clock, and that its parts cover them once.
///
/// # Errors
/// The first deviation.
pub fn frames(ladder: &Ladder, clip: &Clip) -> Result<(), Flaw> {
    let check = Check::Frames;
    check.expect(!ladder.videos.is_empty(), || "there are no pictures".to_owned())?;
    for rendition in &ladder.videos {
        let name = &rendition.name;
        let found = rendition.packets.list.len();
        check.expect(found == clip.frames as usize, || {
            format!("{name}: {found} frames instead of {}", clip.frames)
        })?;
        let mut end = 0;
        for part in ladder.parts_of(rendition) {
            check.expect(part.first_frame == end, || {
                format!("{name}: a part starts at {}, not at {end}", part.first_frame)
            })?;
            end += part.frames;
        }
        check.expect(end == u64::from(clip.frames), || {
            format!("{name}: parts have {end} frames instead of {}", clip.frames)
        })?;
    }
    Ok(())
}

/// Checks that times rise evenly from 0, in pictures and in sound.
///
/// # Errors
/// The first deviation.
pub fn times(ladder: &Ladder, clip: &Clip) -> Result<(), Flaw> {
    let check = Check::Times;
    for rendition in &ladder.videos {
        let name = &rendition.name;
        let packets = &rendition.packets;
        let (num, den) = (u64::from(clip.rate.0), u64::from(clip.rate.1));
        let step = u64::from(packets.timescale) * den / num;
        check.expect(u64::from(packets.timescale) * den == step * num, || {
            format!("{name}: a frame is no whole number of ticks of 1/{} s", packets.timescale)
        })?;
        evenly(name, packets, 0, i64::try_from(step).unwrap())?;
    }
    for rendition in &ladder.sounds {
        let (name, packets) = (&rendition.name, &rendition.packets);
        // Rates other than 44.1 and 48 kHz become 48 kHz.
        let rate = clip.sound.as_ref().map_or(0, Sound::output_rate);
        let (rate, delay, frame) =
            if rendition.is_opus { (48_000, OPUS_DELAY, OPUS_FRAME) } else { (rate, AAC_FRAME, AAC_FRAME) };
        check.expect(packets.timescale == rate, || {
            format!("{name}: {} ticks a second, not {rate}", packets.timescale)
        })?;
        // The first sample behind the encoder's delay is presented at 0.
        evenly(name, packets, -i64::try_from(delay).unwrap(), i64::try_from(frame).unwrap())?;
    }
    Ok(())
}

/// Checks that decoding times rise, and that presentation times are `first`, `first + step` and so on.
fn evenly(name: &str, packets: &Packets, first: i64, step: i64) -> Result<(), Flaw> {
    let check = Check::Times;
    if let Some(pair) = packets.list.windows(2).find(|pair| pair[0].dts >= pair[1].dts) {
        return Err(check.flaw(format!("{name}: decoding time {} after {}", pair[1].dts, pair[0].dts)));
    }
    let mut shown: Vec<i64> = packets.list.iter().map(|packet| packet.pts).collect();
    shown.sort_unstable();
    for (number, (pts, due)) in shown.into_iter().zip((0..).map(|number| first + number * step)).enumerate() {
        check.expect(pts == due, || {
            format!("{name}: frame {number} is shown at tick {pts} instead of {due}")
        })?;
    }
    if let Some(packet) = packets.list.iter().find(|packet| packet.dts > packet.pts) {
        return Err(
            check.flaw(format!("{name}: decoded at {}, after it is shown at {}", packet.dts, packet.pts))
        );
    }
    Ok(())
}

/// Checks that media segments start with keyframes at the same times in every rendition, that durations
/// agree, and that each rendition has one initialization segment and no file that its playlist does not name.
///
/// # Errors
/// The first deviation.
pub fn playlists(ladder: &Ladder, clip: &Clip) -> Result<(), Flaw> {
    let check = Check::Playlists;
    let due = clip.sound.as_ref().map_or(0, |sound| sound.output_channels().len());
    let codecs = if ladder.sounds.iter().any(|sound| sound.is_opus)
        && ladder.sounds.iter().any(|sound| !sound.is_opus)
    {
        2
    } else {
        1
    };
    check.expect(ladder.sounds.len() == due * codecs, || {
        format!("{} sound renditions instead of {due}", ladder.sounds.len())
    })?;
    let mut all_starts: Option<Vec<f64>> = None;
    for rendition in &ladder.videos {
        let name = &rendition.name;
        let rate_is_right = rendition.frame_rate.is_some_and(|rate| (rate - clip.fps()).abs() < 0.001);
        check.expect(rate_is_right, || format!("{name}: FRAME-RATE {:?}", rendition.frame_rate))?;
        let starts = starts(rendition, clip.seconds(), 0.0)?;
        let same = all_starts.as_ref().is_none_or(|others| *others == starts);
        check
            .expect(same, || format!("{name}: media segments at {starts:?}, elsewhere at {all_starts:?}"))?;
        all_starts = Some(starts);
    }
    let all_starts = all_starts.unwrap_or_default();
    for rendition in &ladder.sounds {
        let frame = if rendition.is_opus { OPUS_FRAME } else { AAC_FRAME };
        let frame_s = frame as f64 / f64::from(rendition.packets.timescale);
        let rate = rendition.packets.timescale;
        let [end_s, filled_s] = [clip.samples(rate), clip.samples_with_filling(rate)]
            .map(|samples| samples as f64 / f64::from(rate));
        // The encoder fills its own last frame too, and Matroska's milliseconds may need one more.
        let starts = starts(rendition, end_s, filled_s - end_s + 2.0 * frame_s)?;
        // A last media segment of pictures that is shorter than a frame of sound may have no media segment of
        // sound beside it.
        let pairs = starts.iter().zip(&all_starts);
        if let Some((start, video)) =
            pairs.clone().find(|(start, video)| !(0.0..frame_s).contains(&(**start - **video)))
        {
            return Err(check.flaw(format!(
                "{}: a media segment at {start} s beside pictures at {video} s",
                rendition.name
            )));
        }
        check.expect(starts.len() >= all_starts.len().saturating_sub(1), || {
            format!(
                "{}: {} media segments beside {} of pictures",
                rendition.name,
                starts.len(),
                all_starts.len()
            )
        })?;
    }
    Ok(())
}

/// Returns the start of each media segment in seconds, from its packets, checked against the playlist. The
/// last one ends at `end_s` or less than `slack_s` after it.
fn starts(rendition: &Rendition, end_s: f64, slack_s: f64) -> Result<Vec<f64>, Flaw> {
    let (check, name) = (Check::Playlists, &rendition.name);
    let mut starts = Vec::new();
    let mut due = 0.0;
    let packets = &rendition.packets;
    for (media_segment, inside) in rendition.media_segments.iter().zip(packets.by_media_segment(rendition)) {
        let file = &media_segment.name;
        check.expect(inside.first().is_some_and(|first| first.key), || {
            format!("{name}: {file} starts without a keyframe")
        })?;
        let first = inside.iter().map(|packet| packet.pts).min().unwrap_or(0).max(0);
        let start = first as f64 / f64::from(packets.timescale);
        let tolerance = EXTINF_TOLERANCE_S * (starts.len() + 1) as f64;
        check.expect((start - due).abs() < tolerance, || {
            format!("{name}: {file} starts at {start} s, by the playlist at {due} s")
        })?;
        starts.push(start);
        due += media_segment.seconds;
    }
    let tolerance = EXTINF_TOLERANCE_S * (starts.len() + 1) as f64;
    check.expect((-tolerance..slack_s + tolerance).contains(&(due - end_s)), || {
        format!("{name}: durations sum up to {due} s, the source lasts {end_s} s")
    })?;
    let longest =
        rendition.media_segments.iter().map(|media_segment| media_segment.seconds).fold(0.0, f64::max);
    let target = (longest.round() as u64).max(1);
    check.expect(rendition.target_seconds == target, || {
        format!(
            "{name}: TARGETDURATION {} with media segments of up to {longest} s",
            rendition.target_seconds
        )
    })?;
    check.expect(rendition.inits.len() == 1, || {
        format!("{name}: initialisation segments {:?}", rendition.inits)
    })?;
    nothing_else(rendition)?;
    Ok(starts)
}

/// Checks that a folder holds the files that its playlist names, the playlist, and nothing else.
fn nothing_else(rendition: &Rendition) -> Result<(), Flaw> {
    let named = |file: &str| {
        rendition.inits.iter().any(|init| init == file)
            || rendition.media_segments.iter().any(|m| m.name == file)
    };
    let files = fs::read_dir(&rendition.folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let strangers: Vec<String> = files.filter(|file| !named(file)).collect();
    Check::Playlists.expect(strangers.len() == 1 && strangers[0].ends_with(".m3u8"), || {
        format!("{}: files that the playlist does not name: {strangers:?}", rendition.name)
    })
}
