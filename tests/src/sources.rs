//! Table of made sources, each like one that people upload, whose ladders must be exact.

use crate::clips::{Clip, Coding, Gop, Sound};

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Source {
    /// Name, for the table and for messages.
    pub name: &'static str,
    /// Its peculiarity.
    pub what: &'static str,
    /// Whether every run of the tests makes it; the others need `SPOOL_TEST_FULL=1`.
    pub always: bool,
    /// The ladder that it is transcoded to.
    pub ladder: &'static str,
    /// Further arguments of `spool transcode`.
    pub more: &'static [&'static str],
    /// Recipe.
    pub clip: Clip,
}

/// The clip's own size at the default rate, and half of it at more than the default: a clip that moves
/// everywhere starves at that.
const LADDER: &str = "180p,90p:300k";

/// Ten seconds and a bit: three rows of four seconds, the last of them short.
const FRAMES: u32 = 257;

fn clip() -> Clip {
    Clip { frames: FRAMES, ..Clip::default() }
}

fn coded(video: &'static str, audio: &'static str, file: &'static str) -> Clip {
    Clip { coding: Coding { video, audio, file, ..Coding::default() }, ..clip() }
}

/// FFmpeg 5.1 writes Opus that begins 7 ms early relative to the pictures; nothing in the file moves.
fn opus(video: &'static str) -> Clip {
    Clip {
        coding: Coding {
            video,
            audio: "-c:a libopus -b:a 256k",
            file: "webm",
            ticks: 125,
            ..Coding::default()
        },
        ..clip()
    }
}

fn filtered(filter: &'static str, video: &'static str, file: &'static str) -> Clip {
    Clip { coding: Coding { filter, video, file, ..Coding::default() }, ..clip() }
}

fn of_rate(num: u32, den: u32) -> Clip {
    Clip {
        rate: (num, den),
        frames: num * 10 / den + 7,
        keyframe_every: (num * 2 / den).max(1),
        ..Clip::default()
    }
}

const X264: &str = "-c:v libx264 -preset ultrafast -crf 14 -bf 2";
const X265_10: &str =
    "-c:v libx265 -preset ultrafast -crf 14 -x265-params log-level=error -pix_fmt yuv420p10le -tag:v hvc1";
/// How a player without HDR shows SMPTE ST 2084: in linear light, from 1,000 nits down to those of SDR.
const PQ_SHOWN: &str = "zscale=tin=smpte2084:min=bt2020nc:pin=bt2020:rin=tv:t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,\
    tonemap=tonemap=hable:desat=0:peak=10,zscale=t=bt709:m=bt709:r=tv,format=yuv420p";
const HLG_SHOWN: &str = "zscale=tin=arib-std-b67:min=bt2020nc:pin=bt2020:rin=tv:t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,\
    tonemap=tonemap=hable:desat=0:peak=10,zscale=t=bt709:m=bt709:r=tv,format=yuv420p";

/// Returns all sources: containers, pictures, sound, and the codecs of ladders.
pub fn all() -> Vec<Source> {
    let mut all = containers();
    all.extend(pictures());
    all.extend(sounds());
    all.extend(ladders());
    all
}

fn source(name: &'static str, what: &'static str, clip: Clip) -> Source {
    Source { name, what, always: false, ladder: LADDER, more: &[], clip }
}

fn always(source: Source) -> Source {
    Source { always: true, ..source }
}

fn containers() -> Vec<Source> {
    vec![
        source(
            "mov-prores",
            "MOV, ProRes 4:2:2 of 10 bits, PCM of 24 bits: a camera's original",
            coded("-c:v prores_ks -profile:v 2", "-c:a pcm_s24le", "mov"),
        ),
        always(source(
            "webm-vp9",
            "WebM, VP9 and Opus",
            opus("-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 0 -crf 15"),
        )),
        source("webm-av1", "WebM, AV1 and Opus", opus("-c:v libsvtav1 -preset 10 -crf 15")),
        source(
            "mkv-hevc-flac",
            "Matroska, HEVC of 10 bits and FLAC",
            coded(X265_10, "-c:a flac", "-tag:v 0 mkv"),
        ),
        source(
            "mkv-mpeg4-pcm",
            "Matroska, MPEG-4 part 2 and PCM",
            coded("-c:v mpeg4 -q:v 2 -bf 2", "-c:a pcm_s16le", "mkv"),
        ),
        source(
            "ts-late",
            "MPEG-TS that begins after a quarter of an hour",
            coded(X264, "", "-output_ts_offset 1000 -muxrate 4M ts"),
        ),
        always(source(
            "ts-wrap",
            "MPEG-TS whose 33-bit clock wraps in the middle",
            coded(X264, "", "-output_ts_offset 95438 ts"),
        )),
        source(
            "ts-programs",
            "MPEG-TS of two programs, the second a copy of the first",
            Clip {
                coding: Coding {
                    video: X264,
                    file: "ts",
                    remux: "-map 0:v -map 0:a -program st=0:st=1 -program st=2:st=3 ts",
                    ticks: 90_000,
                    ..Coding::default()
                },
                ..clip()
            },
        ),
        source(
            "m2ts",
            "M2TS, the form of cameras and discs",
            coded(X264, "-c:a ac3 -b:a 448k", "-mpegts_m2ts_mode 1 m2ts"),
        ),
        source("avi", "AVI, MPEG-4 part 2 and PCM", coded("-c:v mpeg4 -q:v 2", "-c:a pcm_s16le", "avi")),
        source(
            "mjpeg-avi",
            "AVI of JPEGs in full range, the form of old cameras",
            coded("-c:v mjpeg -q:v 2 -pix_fmt yuvj420p", "-c:a pcm_s16le", "avi"),
        ),
        source(
            "mpeg-ps",
            "MPEG-PS, MPEG-2, sound in AC-3",
            coded("-c:v mpeg2video -q:v 2 -bf 2", "-c:a ac3 -b:a 448k", "-f vob mpg"),
        ),
        source("flv", "FLV", coded(X264, "", "flv")),
        source(
            "mxf",
            "MXF, MPEG-2 4:2:2 and PCM: a broadcaster's",
            Clip {
                sound: Some(Sound { channels: 1, ..Sound::default() }),
                ..coded("-c:v mpeg2video -pix_fmt yuv422p -q:v 2 -bf 2", "-c:a pcm_s16le", "mxf")
            },
        ),
        source("ogg", "Ogg, Theora and FLAC", coded("-c:v libtheora -q:v 10", "-c:a flac", "ogv")),
        source(
            "asf",
            "ASF, WMV 8, without sound",
            Clip { sound: None, ..coded("-c:v wmv2 -q:v 2", "", "wmv") },
        ),
        source("nut", "NUT, FFV1 and PCM", coded("-c:v ffv1", "-c:a pcm_s16le", "nut")),
        source(
            "fragmented-hevc",
            "fragmented MP4, HEVC of 10 bits",
            coded(X265_10, "", "-movflags +frag_keyframe+empty_moov+default_base_moof+delay_moov mp4"),
        ),
        source(
            "edit-lists",
            "MP4 whose edit list leaves out the start; frames before it are only decoded",
            Clip {
                coding: Coding {
                    filter: "null",
                    video: X264,
                    file: "-movie_timescale 48000 -video_track_timescale 12800 mp4",
                    ..Coding::default()
                },
                sound: Some(Sound { delay_ms: 500, ..Sound::default() }),
                ..clip()
            },
        ),
    ]
}

fn pictures() -> Vec<Source> {
    let turned = |filter, remux| Clip {
        coding: Coding { filter, video: X264, file: "mp4", remux, ..Coding::default() },
        ..clip()
    };
    let interlaced = |filter, video, file| Clip {
        interlaced: true,
        coding: Coding { filter, video, file, shown: "bwdif=mode=send_frame", ..Coding::default() },
        ..clip()
    };
    let held = vec![3..17, 31..32, 40..41, 99..130, 170..171, 173..190, 240..256];
    vec![
        always(source(
            "phone",
            "a phone's recording: HEVC of 10 bits, rotated by 90 degrees, a variable rate, 44.1 kHz",
            Clip {
                dropped: held.clone(),
                sound: Some(Sound { rate: 44_100, ..Sound::default() }),
                coding: Coding {
                    filter: "transpose=clock",
                    video: X265_10,
                    file: "mp4",
                    remux: "-metadata:s:v rotate=90 mp4",
                    ticks: 44_100,
                    ..Coding::default()
                },
                ..clip()
            },
        )),
        always(source(
            "screen",
            "a screen recording: 60 fps at most, and no new frame for seconds",
            Clip {
                dropped: vec![1..120, 125..300, 301..302, 310..560],
                frames: 607,
                keyframe_every: 250,
                ..of_rate(60, 1)
            },
        )),
        source("rate-1", "one picture a second", Clip { frames: 25, ..of_rate(1, 1) }),
        source("rate-120", "120 pictures a second", of_rate(120, 1)),
        source("rate-23.976", "a film's rate", of_rate(24_000, 1001)),
        source("turned-180", "rotated by 180 degrees", turned("hflip,vflip", "-metadata:s:v rotate=180 mp4")),
        source(
            "turned-270",
            "rotated by 270 degrees",
            turned("transpose=cclock", "-metadata:s:v rotate=270 mov"),
        ),
        source(
            "portrait",
            "portrait: the short side names the rung",
            Clip {
                coding: Coding {
                    filter: "transpose=clock",
                    video: X264,
                    file: "mp4",
                    shown: "transpose=cclock",
                    made: "transpose=cclock",
                    ..Coding::default()
                },
                ..clip()
            },
        ),
        always(source(
            "anamorphic",
            "pixels that are not square",
            Clip {
                coding: Coding {
                    filter: "scale=240:180,setsar=4/3",
                    video: X264,
                    file: "mp4",
                    shown: "scale=320:180",
                    ..Coding::default()
                },
                ..clip()
            },
        )),
        source(
            "odd-size",
            "an odd width and height",
            Clip {
                coding: Coding {
                    filter: "format=yuv444p,pad=321:181",
                    video: "-c:v ffv1",
                    audio: "-c:a flac",
                    file: "mkv",
                    shown: "scale=320:180",
                    ..Coding::default()
                },
                ..clip()
            },
        ),
        always(source(
            "interlaced",
            "interlaced, upper field first, in MPEG-TS",
            interlaced(
                "interlace=scan=tff:lowpass=off",
                "-c:v mpeg2video -q:v 2 -flags +ildct+ilme -bf 2",
                "ts",
            ),
        )),
        source(
            "interlaced-bff",
            "interlaced, lower field first",
            interlaced(
                "interlace=scan=bff:lowpass=off",
                "-c:v mpeg2video -q:v 2 -flags +ildct+ilme -top 0 -bf 2",
                "mkv",
            ),
        ),
        source(
            "interlaced-h264",
            "interlaced H.264 in MP4, read in windows",
            interlaced(
                "interlace=scan=tff:lowpass=off",
                "-c:v libx264 -preset ultrafast -crf 14 -flags +ildct+ilme -x264-params tff=1",
                "mp4",
            ),
        ),
        Source {
            more: &["--deinterlace", "field"],
            ..source(
                "interlaced-fields",
                "interlaced H.264 in MP4, one picture per field",
                Clip {
                    interlaced: true,
                    both_fields: true,
                    frames: 2 * FRAMES,
                    rate: (50, 1),
                    coding: Coding {
                        filter: "interlace=scan=tff:lowpass=off",
                        video: "-c:v libx264 -preset ultrafast -crf 14 -flags +ildct+ilme -x264-params tff=1",
                        file: "mp4",
                        shown: "bwdif=mode=send_field",
                        ..Coding::default()
                    },
                    ..clip()
                },
            )
        },
        source(
            "full-range-422",
            "4:2:2 of 10 bits in full range",
            Clip {
                coding: Coding {
                    filter: "scale=out_range=pc,format=yuv422p10le",
                    video: "-c:v libx264 -preset ultrafast -crf 14 -color_range pc",
                    file: "mov",
                    shown: "scale=in_range=pc:out_range=tv",
                    ..Coding::default()
                },
                ..clip()
            },
        ),
        source(
            "bt601",
            "colours of standard definition",
            filtered(
                "null",
                "-c:v libx264 -preset ultrafast -crf 14 -colorspace smpte170m -color_primaries smpte170m -color_trc smpte170m",
                "mp4",
            ),
        ),
        source(
            "rgb",
            "RGB",
            Clip {
                coding: Coding {
                    filter: "format=gbrp",
                    video: "-c:v ffv1",
                    audio: "-c:a flac",
                    file: "mkv",
                    shown: "scale=out_color_matrix=bt709:out_range=tv",
                    ..Coding::default()
                },
                ..clip()
            },
        ),
        source("grey", "greyscale", filtered("format=gray", "-c:v ffv1", "mkv")),
        always(source(
            "hdr10",
            "HDR10: HEVC of 10 bits in SMPTE ST 2084",
            Clip {
                coding: Coding {
                    filter: "format=yuv420p10le",
                    video: "-c:v libx265 -preset ultrafast -crf 12 -x265-params log-level=error -color_range tv -color_primaries bt2020 -color_trc smpte2084 -colorspace bt2020nc -tag:v hvc1",
                    file: "mp4",
                    shown: PQ_SHOWN,
                    ..Coding::default()
                },
                ..clip()
            },
        )),
        source(
            "hlg",
            "HLG of 10 bits",
            Clip {
                coding: Coding {
                    filter: "format=yuv420p10le",
                    video: "-c:v libx265 -preset ultrafast -crf 12 -x265-params log-level=error -color_range tv -color_primaries bt2020 -color_trc arib-std-b67 -colorspace bt2020nc -tag:v hvc1",
                    file: "mp4",
                    shown: HLG_SHOWN,
                    ..Coding::default()
                },
                ..clip()
            },
        ),
        source(
            "alpha",
            "half-transparent ProRes 4444",
            Clip {
                coding: Coding {
                    filter: "format=gbrap,geq=r='r(X,Y)':g='g(X,Y)':b='b(X,Y)':a='if(lt(Y,H*0.35),128,255)',format=yuva444p10le",
                    video: "-c:v prores_ks -profile:v 4444",
                    audio: "-c:a pcm_s16le",
                    file: "mov",
                    shown: "format=gbrap,premultiply=inplace=1,format=gbrp,scale=out_color_matrix=bt709:out_range=tv",
                    ..Coding::default()
                },
                ..clip()
            },
        ),
        source(
            "cover",
            "MP4 with cover art beside the pictures",
            Clip {
                coding: Coding {
                    video: X264,
                    file: "mp4",
                    remux: "-map 0:v -c:v:1 mjpeg -frames:v:1 1 -disposition:v:1 attached_pic mp4",
                    ..Coding::default()
                },
                ..clip()
            },
        ),
        source("one-frame", "a single frame", Clip { frames: 1, sound: None, ..clip() }),
        source(
            "open-gop",
            "open GOPs, long, at 29.97",
            Clip { gop: Gop::Open, keyframe_every: 150, ..of_rate(30_000, 1001) },
        ),
    ]
}

fn sounds() -> Vec<Source> {
    let sounding = |sound| Clip { sound: Some(sound), ..clip() };
    let pcm = |sound| Clip { sound: Some(sound), ..coded(X264, "-c:a pcm_s16le", "mov") };
    vec![
        always(source(
            "surround",
            "5.1, kept beside stereo",
            sounding(Sound { channels: 6, ..Sound::default() }),
        )),
        source(
            "surround-44100",
            "5.1 at 44.1 kHz",
            sounding(Sound { channels: 6, rate: 44_100, ..Sound::default() }),
        ),
        source("mono", "mono", sounding(Sound { channels: 1, ..Sound::default() })),
        source("rate-22050", "sound at 22.05 kHz", pcm(Sound { rate: 22_050, ..Sound::default() })),
        source("rate-96000", "sound at 96 kHz", pcm(Sound { rate: 96_000, ..Sound::default() })),
        source(
            "late-sound",
            "sound that begins half a second late",
            sounding(Sound { delay_ms: 500, ..Sound::default() }),
        ),
        source(
            "short-sound",
            "sound that ends early",
            sounding(Sound { seconds: Some(7.3), ..Sound::default() }),
        ),
        source(
            "long-sound",
            "sound that is longer than the pictures",
            sounding(Sound { seconds: Some(11.1), ..Sound::default() }),
        ),
        source("silent", "no sound", Clip { sound: None, ..clip() }),
    ]
}

fn ladders() -> Vec<Source> {
    let of = |name, what, ladder| Source { ladder, ..source(name, what, clip()) };
    vec![
        always(of("to-hevc", "a ladder of HEVC", "180p-hevc,90p-hevc:300k")),
        always(of("to-av1", "a ladder of AV1", "180p-av1,90p-av1:300k")),
        always(of("to-vp9", "a ladder of VP9", "180p-vp9,90p-vp9:300k")),
        always(Source {
            ladder: "180p,180p-hevc,90p-av1:300k,90p-vp9:300k,aac,opus",
            ..source(
                "to-all",
                "a ladder of all codecs, sound in both, 5.1 beside stereo",
                Clip { sound: Some(Sound { channels: 6, ..Sound::default() }), ..clip() },
            )
        }),
        Source {
            ladder: "180p-hevc,90p-av1:300k,aac,opus",
            ..source(
                "phone-to-new",
                "a phone's clip to new codecs",
                Clip {
                    dropped: vec![3..17, 99..130, 240..256],
                    sound: Some(Sound { rate: 44_100, ..Sound::default() }),
                    coding: Coding {
                        filter: "transpose=clock",
                        video: X265_10,
                        file: "mp4",
                        remux: "-metadata:s:v rotate=90 mp4",
                        ticks: 44_100,
                        ..Coding::default()
                    },
                    ..clip()
                },
            )
        },
        Source {
            more: &["--threads", "2"],
            ..of("to-two-threads", "two threads each", "180p,180p-hevc,90p-vp9:300k")
        },
    ]
}

/// Returns the table as it stands in the docs.
pub fn table() -> String {
    let mut text = "# Tested sources\n\n\
        `tests/tests/sources.rs` transcodes each of these sources and checks the ladder frame by frame\n\
        and sample by sample: every frame once and in its place, times that rise evenly, joins as good as\n\
        the frames beside them, the source's sound without a seam, one decoder configuration, and\n\
        playlists that agree. `make test` runs the marked ones, `make test-full` runs all.\n\n\
        | source | peculiarity | ladder | always |\n\
        | --- | --- | --- | --- |\n"
        .to_owned();
    for source in all() {
        let Source { name, what, ladder, more, always, .. } = source;
        let arguments = [&[ladder], more].concat().join(" ");
        text.push_str(&format!(
            "| {name} | {what} | `{arguments}` | {} |\n",
            if always { "yes" } else { "" }
        ));
    }
    text.push_str(
        "\nOther tests cover 28 clips with two cuts each (`tests/tests/exact.rs`); files that are truncated\n\
        or damaged, several audio tracks, gaps, a drifting clock, channels without positions, sound alone\n\
        in seven containers, a mirrored picture, an edit list of several edits\n\
        (`tests/tests/odd_sources.rs`); and some 170 malicious files (`tests/tests/hostile.rs`).\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_enough_and_each_has_a_name() {
        let all = all();
        let mut names: Vec<_> = all.iter().map(|source| source.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
        assert!(all.len() >= 40 && all.iter().filter(|source| source.always).count() >= 12);
    }
}
