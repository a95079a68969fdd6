//! Which clips is exactness tested with? Frames that carry their number, and sound that is known sample by sample.

mod picture;
mod sound;

use std::{
    io::Write as _,
    ops::Range,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub use picture::{HEIGHT, WIDTH, picture, read_number};
pub use sound::{Sound, heard};

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

    /// The number of the frame that is to be seen at every tick of the frame clock.
    pub fn seen(&self) -> Vec<u16> {
        let mut shown = 0;
        let frames = (0..self.frames).map(|frame| {
            if !self.is_dropped(frame) {
                shown = frame;
            }
            u16::try_from(shown).unwrap()
        });
        frames.collect()
    }

    /// Samples per channel that the sound of a ladder is to have: to the end of the pictures, or of the sound where it is longer.
    ///
    /// # Panics
    /// Without sound.
    pub fn samples(&self) -> usize {
        let sound = self.sound.as_ref().unwrap();
        let title = (self.seconds() * f64::from(sound.rate)).ceil() as usize;
        title.max(sound.delay_samples() + self.sounding(sound))
    }

    /// As many as [`Clip::samples`], and what fills the source's last AAC frame: no edit list of the source makes FFmpeg cut it off.
    ///
    /// # Panics
    /// Without sound.
    pub fn samples_with_filling(&self) -> usize {
        let sound = self.sound.as_ref().unwrap();
        let filled = self.sounding(sound).next_multiple_of(AAC_FRAME);
        self.samples().max(sound.delay_samples() + filled)
    }

    /// What is to be heard: one list of samples per channel of a ladder, not counting its loudness.
    pub fn heard(&self) -> Vec<Vec<f32>> {
        self.sound.as_ref().map_or_else(Vec::new, |sound| heard(sound, self.sounding(sound), self.samples()))
    }

    /// Makes the clip in a folder and returns its path.
    ///
    /// # Panics
    /// Where FFmpeg fails.
    pub fn make(&self, folder: &Path, name: &str) -> PathBuf {
        let mp4 = folder.join(format!("{name}.mp4"));
        self.encode(folder, &mp4);
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

    fn encode(&self, folder: &Path, mp4: &Path) {
        let mut command = ffmpeg();
        let (num, den) = self.rate;
        let (size, rate) = (format!("{WIDTH}x{HEIGHT}"), format!("{num}/{den}"));
        command.args(["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", &size, "-r", &rate, "-i", "pipe:0"]);
        if let Some(sound) = &self.sound {
            let raw = folder.join("sound.f32");
            sound.write(&raw, self.sounding(sound));
            let delay = format!("{}ms", sound.delay_ms);
            command.args(["-itsoffset", &delay, "-f", "f32le", "-ar", &sound.rate.to_string(), "-ac", &sound.channels.to_string()]);
            command.args(["-channel_layout", sound.layout()]).arg("-i").arg(raw);
            command.args(["-map", "1:a", "-c:a", "aac", "-aac_coder", "fast", "-b:a", &sound.bitrate_bps().to_string()]);
        }
        let params = match self.gop {
            Gop::Plain => "bframes=0",
            Gop::Closed => "bframes=3:b-adapt=0:open-gop=0",
            Gop::Open => "bframes=3:b-adapt=0:open-gop=1",
        };
        let params = format!("{params}:keyint={0}:min-keyint={0}:scenecut=0", self.keyframe_every);
        command.args(["-map", "0:v", "-c:v", "libx264", "-preset", "ultrafast", "-crf", "16", "-x264-params", &params]);
        if !self.dropped.is_empty() {
            let kept: Vec<String> = self.dropped.iter().map(|run| format!("between(n,{},{})", run.start, run.end - 1)).collect();
            command.args(["-vf", &format!("select='not({})'", kept.join("+")), "-vsync", "vfr"]);
        }
        match self.container {
            Container::Mp4Fast => command.args(["-movflags", "+faststart"]),
            Container::Mp4Fragmented => command.args(["-movflags", "+frag_keyframe+empty_moov+default_base_moof+delay_moov"]),
            _ => &mut command,
        };
        if let Some(sound) = self.sound.as_ref().filter(|sound| sound.delay_ms > 0) {
            // In the usual milliseconds, edit lists would put the start 32 samples off.
            command.args(["-movie_timescale", &sound.rate.to_string()]);
        }
        let mut child = command.arg(mp4).stdin(Stdio::piped()).spawn().expect("FFmpeg is installed");
        let mut stdin = std::io::BufWriter::with_capacity(1 << 20, child.stdin.take().unwrap());
        for number in 0..self.frames {
            stdin.write_all(&picture(u16::try_from(number).unwrap())).unwrap();
        }
        drop(stdin);
        assert!(child.wait().unwrap().success());
    }

    fn is_dropped(&self, frame: u32) -> bool {
        self.dropped.iter().any(|run| run.contains(&frame))
    }

    /// Samples of the source's sound.
    fn sounding(&self, sound: &Sound) -> usize {
        let seconds = sound.seconds.unwrap_or_else(|| self.seconds() - f64::from(sound.delay_ms) / 1000.0);
        (seconds * f64::from(sound.rate)).floor() as usize
    }
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
    fn late_and_short_sound_is_silence_where_it_is_missing() {
        let sound = Sound { delay_ms: 500, seconds: Some(1.0), ..Sound::default() };
        let clip = Clip { frames: 50, sound: Some(sound), ..Clip::default() };
        let heard = clip.heard();
        assert_eq!((heard.len(), heard[0].len()), (2, 96_000));
        let loud = |range: Range<usize>| heard[0][range].iter().any(|sample| sample.abs() > 0.01);
        assert!(!loud(0..24_000) && loud(24_000..24_100) && loud(71_900..72_000) && !loud(72_000..96_000));
    }
}
