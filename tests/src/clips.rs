//! Clips for tests of exactness: frames that carry their number, and sound that is known sample by sample.

mod picture;
mod sound;

use std::{
    io::Write as _,
    ops::Range,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use picture::moved_picture;
pub use picture::{HEIGHT, WIDTH, picture, read_number};
pub use sound::{Sound, heard};

use crate::random::Random;

/// Samples per AAC frame; the encoder's delay is one frame too.
pub const AAC_FRAME: usize = 1024;

/// Container of the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// MP4 with `moov` behind the media, FFmpeg's default.
    Mp4,
    /// MP4 with `moov` before the media.
    Mp4Fast,
    /// Fragmented MP4.
    Mp4Fragmented,
    /// MPEG transport stream, remuxed from MP4.
    Ts,
    /// Matroska, remuxed from MP4.
    Mkv,
}

/// How pictures refer to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gop {
    /// No B-frames: decoded in presentation order.
    Plain,
    /// B-frames, none of which refers beyond the next keyframe.
    Closed,
    /// B-frames that are presented before the keyframe that they need.
    Open,
}

/// Deviations from FFmpeg's default coding, as FFmpeg's options.
#[derive(Debug, Clone, Copy)]
pub struct Coding {
    /// Filter of the pictures before they are encoded, such as `transpose=clock`.
    pub filter: &'static str,
    /// Video encoder; empty for x264.
    pub video: &'static str,
    /// Audio encoder; empty for AAC.
    pub audio: &'static str,
    /// Options of the file, the last one its extension; empty for those of [`Container`].
    pub file: &'static str,
    /// Options of a second pass that only remuxes.
    pub remux: &'static str,
    /// Filter from the decoded file to the pictures that a ladder should show.
    pub shown: &'static str,
    /// Filter from a ladder's pictures to those that were made, if it should show them differently.
    pub made: &'static str,
    /// Ticks per second of the container's clock: sound may be off by one of them.
    pub ticks: u32,
}

impl Default for Coding {
    fn default() -> Self {
        Self {
            filter: "null",
            video: "",
            audio: "",
            file: "",
            remux: "",
            shown: "null",
            made: "null",
            ticks: 1000,
        }
    }
}

/// A clip to make.
#[derive(Debug, Clone)]
pub struct Clip {
    /// Frames per second, as a fraction.
    pub rate: (u32, u32),
    /// Frames from the start to the end, including dropped ones.
    pub frames: u32,
    /// Frames that are missing: the frame before them is shown for longer.
    pub dropped: Vec<Range<u32>>,
    /// How pictures refer to each other.
    pub gop: Gop,
    /// Frames from keyframe to keyframe.
    pub keyframe_every: u32,
    /// Container.
    pub container: Container,
    /// Coding.
    pub coding: Coding,
    /// Whether each frame is two fields of two pictures.
    pub interlaced: bool,
    /// Whether a ladder shows both fields, not the first alone. `rate` and `frames` are the ladder's then.
    pub both_fields: bool,
    /// Sound, if any.
    pub sound: Option<Sound>,
}

impl Default for Clip {
    /// 26 s at 25 Hz, a keyframe every 2 s, stereo at 48 kHz of the same length.
    fn default() -> Self {
        Self {
            rate: (25, 1),
            frames: 650,
            dropped: Vec::new(),
            gop: Gop::Closed,
            keyframe_every: 50,
            container: Container::Mp4,
            coding: Coding::default(),
            interlaced: false,
            both_fields: false,
            sound: Some(Sound::default()),
        }
    }
}

impl Clip {
    /// Returns the length in seconds.
    pub fn seconds(&self) -> f64 {
        f64::from(self.frames) * f64::from(self.rate.1) / f64::from(self.rate.0)
    }

    /// Returns the frames per second.
    pub fn fps(&self) -> f64 {
        f64::from(self.rate.0) / f64::from(self.rate.1)
    }

    /// Returns the frame that is shown at every tick of the frame clock.
    pub fn expected_frames(&self) -> Vec<u32> {
        let mut shown = 0;
        let frames = (0..self.frames).map(|frame| {
            if !self.is_dropped(frame) {
                shown = frame;
            }
            shown
        });
        frames.collect()
    }

    /// Returns the number that is shown at every tick of the frame clock.
    pub fn expected_numbers(&self) -> Vec<u16> {
        let number = |frame: u32| self.number(frame * self.pictures_per_frame());
        self.expected_frames().into_iter().map(number).collect()
    }

    /// Returns the number that a picture carries: both fields of a frame carry that of the first. The
    /// deinterlacer interpolates the pictures in between.
    fn number(&self, picture: u32) -> u16 {
        u16::try_from(if self.interlaced { picture / 2 * 2 } else { picture }).unwrap()
    }

    /// Returns the samples per channel that the sound of a ladder should have at this rate: to the end of the
    /// pictures, or of the sound if that is longer.
    ///
    /// # Panics
    /// Without sound.
    pub fn samples(&self, rate: u32) -> usize {
        let sound = self.sound.as_ref().unwrap();
        let title = (self.seconds() * f64::from(rate)).ceil() as usize;
        title.max(sound.delay_samples(rate) + self.sounding(sound, rate))
    }

    /// Returns the number of [`Clip::samples`] plus those that fill the source's last AAC frame: no edit list
    /// of the source makes FFmpeg cut it off.
    ///
    /// # Panics
    /// Without sound.
    pub fn samples_with_filling(&self, rate: u32) -> usize {
        let sound = self.sound.as_ref().unwrap();
        let filled = self.sounding(sound, sound.rate).next_multiple_of(AAC_FRAME);
        let filled = (filled as f64 * f64::from(rate) / f64::from(sound.rate)).ceil() as usize;
        self.samples(rate).max(sound.delay_samples(rate) + filled)
    }

    /// Returns the expected samples in so many channels at this rate, one list for each, regardless of
    /// loudness.
    pub fn expected_samples(&self, channels: usize, rate: u32) -> Vec<Vec<f32>> {
        let heard =
            |sound: &Sound| heard(sound, channels, rate, self.sounding(sound, rate), self.samples(rate));
        self.sound.as_ref().map_or_else(Vec::new, heard)
    }

    fn pictures_per_frame(&self) -> u32 {
        if self.interlaced && !self.both_fields { 2 } else { 1 }
    }

    /// Makes the clip in a folder and returns its path.
    ///
    /// # Panics
    /// If FFmpeg fails.
    pub fn make(&self, folder: &Path, name: &str) -> PathBuf {
        let Coding { file, remux, .. } = self.coding;
        if !file.is_empty() {
            let (options, ending) = file.rsplit_once(' ').unwrap_or(("", file));
            let first = folder.join(format!("{name}.{ending}"));
            self.encode(folder, &first, options);
            if remux.is_empty() {
                return first;
            }
            let (options, ending) = remux.rsplit_once(' ').unwrap_or(("", remux));
            let second = folder.join(format!("{name}-2.{ending}"));
            let mut command = ffmpeg();
            command
                .arg("-i")
                .arg(&first)
                .args(["-map", "0", "-c", "copy"])
                .args(options.split_whitespace())
                .arg(&second);
            assert!(command.status().unwrap().success());
            return second;
        }
        let mp4 = folder.join(format!("{name}.mp4"));
        self.encode(folder, &mp4, "");
        let remuxed = match self.container {
            Container::Ts => folder.join(format!("{name}.ts")),
            Container::Mkv => folder.join(format!("{name}.mkv")),
            _ => return mp4,
        };
        let mut remux = ffmpeg();
        remux.arg("-i").arg(&mp4).args(["-map", "0", "-c", "copy"]).arg(&remuxed);
        assert!(remux.status().unwrap().success());
        remuxed
    }

    fn encode(&self, folder: &Path, file: &Path, options: &str) {
        let mut command = ffmpeg();
        let coding = self.coding;
        let (num, den) = self.rate;
        let (size, rate) =
            (format!("{WIDTH}x{HEIGHT}"), format!("{}/{den}", num * self.pictures_per_frame()));
        command.args(["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", &size, "-r", &rate, "-i", "pipe:0"]);
        if let Some(sound) = &self.sound {
            let raw = folder.join("sound.f32");
            sound.write(&raw, self.sounding(sound, sound.rate));
            let delay = format!("{}ms", sound.delay_ms);
            command.args([
                "-itsoffset",
                &delay,
                "-f",
                "f32le",
                "-ar",
                &sound.rate.to_string(),
                "-ac",
                &sound.channels.to_string(),
            ]);
            command.args(["-channel_layout", sound.layout()]).arg("-i").arg(raw);
            // Some containers want pictures first.
            command.args(if coding.file.is_empty() { ["-map", "1:a"] } else { ["-map", "0:v"] });
            if coding.audio.is_empty() {
                command.args(["-c:a", "aac", "-aac_coder", "fast", "-b:a", &sound.bitrate_bps().to_string()]);
            } else {
                command.args(coding.audio.split_whitespace());
            }
        }
        command.args(["-map", if self.sound.is_some() && !coding.file.is_empty() { "1:a" } else { "0:v" }]);
        if coding.video.is_empty() {
            let params = match self.gop {
                Gop::Plain => "bframes=0",
                Gop::Closed => "bframes=3:b-adapt=0:open-gop=0",
                Gop::Open => "bframes=3:b-adapt=0:open-gop=1",
            };
            let params = format!("{params}:keyint={0}:min-keyint={0}:scenecut=0", self.keyframe_every);
            command.args(["-c:v", "libx264", "-preset", "ultrafast", "-crf", "16", "-x264-params", &params]);
        } else {
            command.args(["-g", &self.keyframe_every.to_string()]).args(coding.video.split_whitespace());
        }
        let mut filters = vec![coding.filter.to_owned()];
        if !self.dropped.is_empty() {
            let kept: Vec<String> =
                self.dropped.iter().map(|run| format!("between(n,{},{})", run.start, run.end - 1)).collect();
            filters.insert(0, format!("select='not({})'", kept.join("+")));
            command.args(["-vsync", "vfr"]);
        }
        command.args(["-vf", &filters.join(",")]);
        match self.container {
            Container::Mp4Fast => command.args(["-movflags", "+faststart"]),
            Container::Mp4Fragmented => {
                command.args(["-movflags", "+frag_keyframe+empty_moov+default_base_moof+delay_moov"])
            }
            _ => &mut command,
        };
        if let Some(sound) = self.sound.as_ref().filter(|sound| sound.delay_ms > 0) {
            // In milliseconds, the default, edit lists would put the start 32 samples off.
            command.args(["-movie_timescale", &sound.rate.to_string()]);
        }
        command.args(options.split_whitespace());
        // SVT-AV1 prints its settings otherwise.
        let mut child =
            command.env("SVT_LOG", "1").arg(file).stdin(Stdio::piped()).spawn().expect("FFmpeg is installed");
        let mut stdin = std::io::BufWriter::with_capacity(1 << 20, child.stdin.take().unwrap());
        for picture in 0..self.frames * self.pictures_per_frame() {
            stdin.write_all(&moved_picture(self.number(picture), u16::try_from(picture).unwrap())).unwrap();
        }
        drop(stdin);
        assert!(child.wait().unwrap().success());
    }

    fn is_dropped(&self, frame: u32) -> bool {
        self.dropped.iter().any(|run| run.contains(&frame))
    }

    /// Returns the samples of the source's sound at this rate.
    fn sounding(&self, sound: &Sound, rate: u32) -> usize {
        let seconds = sound.seconds.unwrap_or_else(|| self.seconds() - f64::from(sound.delay_ms) / 1000.0);
        (seconds * f64::from(rate)).floor() as usize
    }
}

/// Returns the MP4 padded to so many bytes, unlike that of any other number: a box of noise is appended,
/// which players ignore.
///
/// Source: ISO/IEC 14496-12, section 8.1.2 (free space box).
///
/// # Panics
/// If the size leaves no space for a box.
pub fn padded(mp4: &[u8], bytes: usize, number: u64) -> Vec<u8> {
    let size = bytes
        .checked_sub(mp4.len())
        .filter(|size| *size >= 16)
        .unwrap_or_else(|| panic!("{} bytes are too many", mp4.len()));
    let mut padded = Vec::with_capacity(bytes + 8);
    padded.extend_from_slice(mp4);
    padded.extend_from_slice(&u32::try_from(size).unwrap().to_be_bytes());
    padded.extend_from_slice(b"free");
    padded.extend_from_slice(&number.to_be_bytes());
    let mut random = Random::of(number);
    while padded.len() < bytes {
        padded.extend_from_slice(&random.below(u64::MAX).to_be_bytes());
    }
    padded.truncate(bytes);
    padded
}

/// Returns a command of FFmpeg, quiet and non-interactive.
fn ffmpeg() -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_frames_are_covered_by_the_one_before() {
        let clip = Clip { frames: 8, dropped: vec![2..4, 6..7], ..Clip::default() };
        assert_eq!(clip.expected_numbers(), [0, 1, 1, 1, 4, 5, 5, 7]);
    }

    #[test]
    fn padding_is_one_box_and_no_two_are_alike() {
        let [one, other] = [1, 2].map(|number| padded(b"moov", 101, number));
        assert!(
            one.len() == 101
                && one.starts_with(b"moov\0\0\0\x61free")
                && one != other
                && one == padded(b"moov", 101, 1)
        );
    }

    #[test]
    fn late_and_short_sound_is_silence_where_it_is_missing() {
        let sound = Sound { delay_ms: 500, seconds: Some(1.0), ..Sound::default() };
        let clip = Clip { frames: 50, sound: Some(sound), ..Clip::default() };
        let heard = clip.expected_samples(2, 48_000);
        assert_eq!((heard.len(), heard[0].len()), (2, 96_000));
        let loud = |range: Range<usize>| heard[0][range].iter().any(|sample| sample.abs() > 0.01);
        assert!(!loud(0..24_000) && loud(24_000..24_100) && loud(71_900..72_000) && !loud(72_000..96_000));
    }
}
