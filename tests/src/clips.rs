//! Which clips is exactness tested with? Frames that carry their number, and sound that is known sample by sample.

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

/// What holds the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// MP4 with `moov` behind the media, as FFmpeg writes it unless told otherwise.
    Mp4,
    /// MP4 with `moov` before the media.
    Mp4Fast,
    /// MP4 in fragments.
    Mp4Fragmented,
    /// An MPEG transport stream, remuxed from MP4.
    Ts,
    /// Matroska, remuxed from MP4.
    Mkv,
}

/// How pictures refer to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gop {
    /// No B-frames: decoded as shown.
    Plain,
    /// B-frames, and none that refers beyond the next keyframe.
    Closed,
    /// B-frames that are shown before the keyframe that they need.
    Open,
}

/// How a clip is coded, where that is not as FFmpeg does it unless told otherwise: all are FFmpeg's words.
#[derive(Debug, Clone, Copy)]
pub struct Coding {
    /// What the pictures go through before they are coded, such as `transpose=clock`.
    pub filter: &'static str,
    /// The encoder of the pictures; without, x264.
    pub video: &'static str,
    /// The encoder of the sound; without, AAC.
    pub audio: &'static str,
    /// Options of the file, the last its ending; without, what [`Container`] says.
    pub file: &'static str,
    /// The same of a second pass that codes nothing.
    pub remux: &'static str,
    /// What makes of the decoded file the pictures that a ladder is to show.
    pub shown: &'static str,
    /// What makes of a ladder's pictures those that were made, where it is right to show them otherwise.
    pub made: &'static str,
    /// Ticks per second of a file's clock: by one of them sound may be off.
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
    /// Frames from the start to the end, those that were dropped included.
    pub frames: u32,
    /// Frames that are missing: what is before them is shown for longer.
    pub dropped: Vec<Range<u32>>,
    /// How pictures refer to each other.
    pub gop: Gop,
    /// Frames from keyframe to keyframe.
    pub keyframe_every: u32,
    /// What holds it all.
    pub container: Container,
    /// How it is coded.
    pub coding: Coding,
    /// Is each frame two fields of two pictures?
    pub interlaced: bool,
    /// Does a ladder show both, and not the first alone? Rate and frames are a ladder's then.
    pub both_fields: bool,
    /// Its sound, if it has any.
    pub sound: Option<Sound>,
}

impl Default for Clip {
    /// 26 s at 25 Hz, a keyframe every 2 s, stereo at 48 kHz that lasts as long.
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
    /// Length in seconds.
    pub fn seconds(&self) -> f64 {
        f64::from(self.frames) * f64::from(self.rate.1) / f64::from(self.rate.0)
    }

    /// Frames per second.
    pub fn fps(&self) -> f64 {
        f64::from(self.rate.0) / f64::from(self.rate.1)
    }

    /// Which frame is to be seen at every tick of the frame clock.
    pub fn shown(&self) -> Vec<u32> {
        let mut shown = 0;
        let frames = (0..self.frames).map(|frame| {
            if !self.is_dropped(frame) {
                shown = frame;
            }
            shown
        });
        frames.collect()
    }

    /// The number that is to be seen at every tick.
    pub fn seen(&self) -> Vec<u16> {
        let number = |frame: u32| self.number(frame * self.pictures_per_frame());
        self.shown().into_iter().map(number).collect()
    }

    /// The number that a picture carries: both fields of a frame that of the first. What is between them is for the deinterlacer to make up.
    fn number(&self, picture: u32) -> u16 {
        u16::try_from(if self.interlaced { picture / 2 * 2 } else { picture }).unwrap()
    }

    /// Samples per channel that the sound of a ladder is to have at this rate: to the end of the pictures, or of the sound where it is longer.
    ///
    /// # Panics
    /// Without sound.
    pub fn samples(&self, rate: u32) -> usize {
        let sound = self.sound.as_ref().unwrap();
        let title = (self.seconds() * f64::from(rate)).ceil() as usize;
        title.max(sound.delay_samples(rate) + self.sounding(sound, rate))
    }

    /// As many as [`Clip::samples`], and what fills the source's last AAC frame: no edit list of the source makes FFmpeg cut it off.
    ///
    /// # Panics
    /// Without sound.
    pub fn samples_with_filling(&self, rate: u32) -> usize {
        let sound = self.sound.as_ref().unwrap();
        let filled = self.sounding(sound, sound.rate).next_multiple_of(AAC_FRAME);
        let filled = (filled as f64 * f64::from(rate) / f64::from(sound.rate)).ceil() as usize;
        self.samples(rate).max(sound.delay_samples(rate) + filled)
    }

    /// What is to be heard in so many channels at this rate: one list of samples for each, not counting its loudness.
    pub fn heard(&self, channels: usize, rate: u32) -> Vec<Vec<f32>> {
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
    /// Where FFmpeg fails.
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
            // In the usual milliseconds, edit lists would put the start 32 samples off.
            command.args(["-movie_timescale", &sound.rate.to_string()]);
        }
        command.args(options.split_whitespace());
        // SVT-AV1 tells its settings otherwise.
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

    /// Samples of the source's sound, at this rate.
    fn sounding(&self, sound: &Sound, rate: u32) -> usize {
        let seconds = sound.seconds.unwrap_or_else(|| self.seconds() - f64::from(sound.delay_ms) / 1000.0);
        (seconds * f64::from(rate)).floor() as usize
    }
}

/// The same MP4, of so many bytes in all and unlike that of any other number: behind it is a box with noise in it, which nobody reads.
///
/// Source: ISO/IEC 14496-12, section 8.1.2 (free space box).
///
/// # Panics
/// Where there is no space for a box.
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

/// FFmpeg, quiet and without questions.
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
        assert_eq!(clip.seen(), [0, 1, 1, 1, 4, 5, 5, 7]);
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
        let heard = clip.heard(2, 48_000);
        assert_eq!((heard.len(), heard[0].len()), (2, 96_000));
        let loud = |range: Range<usize>| heard[0][range].iter().any(|sample| sample.abs() > 0.01);
        assert!(!loud(0..24_000) && loud(24_000..24_100) && loud(71_900..72_000) && !loud(72_000..96_000));
    }
}
