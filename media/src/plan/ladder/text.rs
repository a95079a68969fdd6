//! Parser of ladders as text: a preset's name, or the short form.

use super::{AudioCodec, AudioRung, Error, Ladder, MAX_RUNGS, Rung, VideoCodec, entry, presets, quote};

/// Longest text that is parsed, in bytes: enough for twelve rungs with all options, and spaces.
const MAX_TEXT_BYTES: usize = 512;

pub(super) fn parse(text: &str) -> Result<Ladder, Error> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Error::Empty);
    }
    if text.len() > MAX_TEXT_BYTES {
        return Err(wrong(text, "it is too long for a ladder"));
    }
    if let Some(preset) = presets::named(text) {
        return Ok(preset.ladder());
    }
    let is_word = !text.contains([',', ':', '@'])
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && sound(text)?.is_none();
    if is_word {
        return Err(Error::UnknownPreset { name: quote(text), nearest: presets::nearest(text) });
    }
    let items = text.split(',').count();
    if items > MAX_RUNGS + AudioCodec::ALL.len() {
        return Err(Error::TooManyRungs { rungs: items });
    }
    let (mut rungs, mut sounds) = (Vec::new(), Vec::new());
    for item in text.split(',') {
        let item = item.trim();
        match sound(item)? {
            Some(sound) => sounds.push(sound),
            None => rungs.push(rung(item)?),
        }
    }
    Ladder::new(rungs, sounds)
}

/// Parses `aac` or `opus:96k`; `None` if it is no audio codec.
fn sound(item: &str) -> Result<Option<AudioRung>, Error> {
    let lower = item.to_ascii_lowercase();
    let (codec, rate) =
        lower.split_once(':').map_or((lower.as_str(), None), |(codec, rate)| (codec, Some(rate)));
    let Some(codec) = entry::audio_codec(codec) else { return Ok(None) };
    let bitrate_bps = rate
        .map(|rate| {
            bits_per_second(rate)
                .ok_or_else(|| wrong(item, "a rate of sound is a number with k, such as opus:96k"))
        })
        .transpose()?;
    Ok(Some(AudioRung { codec, bitrate_bps }))
}

/// Parses one item: `720p`, `720p-av1`, `720p:2800k`, `720p@crf22`, `720p-hevc:2.8M@crf22`.
fn rung(item: &str) -> Result<Rung, Error> {
    if item.is_empty() {
        return Err(wrong(item, "between two commas must be a rung, such as 720p"));
    }
    let lower = item.to_ascii_lowercase();
    let (size, crf) = match lower.split_once('@') {
        Some((size, crf)) => (size, Some(crf)),
        None => (lower.as_str(), None),
    };
    let (size, rate) = match size.split_once(':') {
        Some((size, rate)) => (size, Some(rate)),
        None => (size, None),
    };
    if presets::named(size).is_some() {
        return Err(wrong(item, "a preset stands alone, not beside other rungs"));
    }
    let (height, codec) = match size.split_once("p-") {
        Some((height, codec)) => {
            let codec = entry::video_codec(codec);
            (
                Some(height),
                codec.ok_or_else(|| wrong(item, "a codec is h264, hevc, av1 or vp9, such as 720p-av1"))?,
            )
        }
        None => (size.strip_suffix('p'), VideoCodec::default()),
    };
    let height =
        height.and_then(digits).ok_or_else(|| wrong(item, "a rung is a height with p, such as 720p"))?;
    let max_bitrate_bps = rate
        .map(|rate| {
            bits_per_second(rate)
                .ok_or_else(|| wrong(item, "a peak rate is a number with k or M, such as 720p:2800k"))
        })
        .transpose()?;
    let crf = crf
        .map(|crf| {
            let crf = crf.strip_prefix("crf").and_then(digits).and_then(|crf| u8::try_from(crf).ok());
            crf.ok_or_else(|| wrong(item, "a rate factor is written with @crf, such as 720p@crf22"))
        })
        .transpose()?;
    Ok(Rung { codec, max_bitrate_bps, crf, ..Rung::of(height) })
}

/// Parses `2800k` or `2.8m`, with up to six digits after the point.
fn bits_per_second(rate: &str) -> Option<u32> {
    let (number, unit) = match rate.strip_suffix('k') {
        Some(number) => (number, 1000),
        None => (rate.strip_suffix('m')?, 1_000_000),
    };
    let (whole, fraction) =
        number.split_once('.').map_or((number, None), |(whole, fraction)| (whole, Some(fraction)));
    let mut bits = u64::from(digits(whole)?) * unit;
    if let Some(fraction) = fraction {
        let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok().filter(|&len| len <= 6)?)?;
        bits += u64::from(digits(fraction)?) * unit / scale;
    }
    u32::try_from(bits).ok()
}

/// Parses digits alone: `parse` would accept a sign.
fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn wrong(item: &str, problem: &'static str) -> Error {
    Error::Item { item: quote(item), problem }
}
