//! The text of argument lists, without running them.

use super::*;

#[test]
fn the_words_themselves() {
    let grid = Grid {
        rate: rational(30_000, 1001),
        source_timebase: rational(1, 90_000),
        origin: 126_000,
        frames: 960,
    };
    let source = VideoTrack { stream: 1, ..track(1920, 1080) };
    let outputs = [
        (rendition("720p", 1280, 720), PathBuf::from("/s/720p.mp4")),
        (rendition("360p", 640, 360), PathBuf::from("/s/360p.mp4")),
    ];
    let job = VideoEncode {
        input: Path::new("/s/a:b.ts"),
        demuxer: "mpegts",
        stream: 1,
        seek: Some(1_000_001),
        grid: &grid,
        first_frame: 480,
        frames: 240,
        media_segment_frames: 120,
        source: &source,
        fields: false,
        outputs: &outputs[..1],
        max_pixels: PIXELS_MAX,
        threads: 1,
    };
    let text = |args: Vec<OsString>| {
        args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    };
    insta::assert_snapshot!(text(encode_video(&job)), @"-nostdin -hide_banner -loglevel error -nostats -progress pipe:1 -stats_period 0.5 -y -filter_threads 1 -filter_complex_threads 1 -protocol_whitelist file,pipe -f mpegts -threads 1 -max_pixels 67108864 -copyts -noautorotate -reinit_filter 0 -seek_timestamp 1 -noaccurate_seek -ss 11111122us -i file:/s/a:b.ts -filter_complex [0:1]settb=1/90000,setpts=PTS-(126000),fps=30000/1001:round=near:eof_action=pass,tpad=stop_mode=clone:stop=-1,trim=start_pts=480:end_pts=720,setpts=PTS-480,split=1[s0];[s0]scale=1280:720:flags=bicubic+accurate_rnd+full_chroma_int+bitexact,setsar=1,format=yuv420p[v0] -map [v0] -c:v libx264 -preset veryfast -profile:v high -level 3.0 -forced-idr 1 -x264-params stitchable=1:bframes=3:b-pyramid=normal:open-gop=0:keyint=120:scenecut=40:vbv-init=0.90:cpu-independent=1:sliced-threads=1:force-cfr=1 -crf 23 -maxrate 400000 -bufsize 800000 -threads 1 -force_key_frames expr:not(mod(n,120)) -color_range tv -fps_mode passthrough -enc_time_base 1001:30000 -video_track_timescale 30000 -frames:v 240 -map_metadata -1 -map_chapters -1 -fflags +bitexact -flags +bitexact -movflags +empty_moov+default_base_moof+frag_keyframe -f mp4 file:/s/720p.mp4");
    let graph = encode_video(&VideoEncode {
        outputs: &outputs,
        seek: None,
        first_frame: 0,
        input: Path::new("w.mp4"),
        demuxer: "mov",
        ..job
    });
    let graph = &graph[graph.iter().position(|arg| arg == "-filter_complex").unwrap() + 1];
    insta::assert_snapshot!(graph.to_string_lossy(), @"[0:1]settb=1/90000,setpts=PTS-(126000),fps=30000/1001:round=near:eof_action=pass:start_time=0,tpad=stop_mode=clone:stop=-1,trim=start_pts=0:end_pts=240,setpts=PTS-0,split=2[s0][s1];[s0]scale=1280:720:flags=bicubic+accurate_rnd+full_chroma_int+bitexact,setsar=1,format=yuv420p[v0];[s1]scale=640:360:flags=bicubic+accurate_rnd+full_chroma_int+bitexact,setsar=1,format=yuv420p[v1]");
    let outputs = [(sound::audio_rendition(48_000, 2), PathBuf::from("/s/a.mp4"))];
    let audio = AudioEncode {
        input: Path::new("/s/w.mp4"),
        demuxer: "mov",
        stream: 0,
        discrete_channels: None,
        grid: &grid,
        outputs: &outputs,
    };
    assert_eq!(audio.title_samples(48_000), 1_537_536);
    insta::assert_snapshot!(text(encode_audio(&audio)), @"-nostdin -hide_banner -loglevel error -nostats -progress pipe:1 -stats_period 0.5 -y -protocol_whitelist file,pipe -f mov -threads 1 -max_pixels 67108864 -copyts -i file:/s/w.mp4 -filter_complex [0:0]asetpts=PTS-(round(126000*1/90000/TB)),asplit=1[s0];[s0]aresample=48000:async=1:first_pts=0:min_hard_comp=0.04,aformat=sample_fmts=fltp:sample_rates=48000:channel_layouts=stereo,apad=whole_len=1537536,atrim=end_sample=2075137536[a0] -map [a0] -c:a aac -aac_coder fast -b:a 128000 -ar 48000 -frag_duration 1000000 -map_metadata -1 -map_chapters -1 -fflags +bitexact -flags +bitexact -movflags +empty_moov+default_base_moof+delay_moov -f mp4 file:/s/a.mp4");
}

#[test]
fn far_starts_are_sought_and_near_ones_are_not() {
    let grid = Grid { rate: rational(25, 1), source_timebase: rational(1, 1000), origin: -500, frames: 5000 };
    let source = track(64, 36);
    let seek = |ticks| {
        let job = VideoEncode {
            input: Path::new("a.mkv"),
            demuxer: "matroska",
            stream: 0,
            seek: ticks,
            grid: &grid,
            first_frame: 100,
            frames: 100,
            media_segment_frames: 100,
            source: &source,
            fields: false,
            outputs: &[],
            max_pixels: PIXELS_MAX,
            threads: 1,
        };
        let args = encode_video(&job);
        args.iter().position(|arg| arg == "-ss").map(|at| args[at + 1].to_string_lossy().into_owned())
    };
    assert_eq!(
        [None, Some(-500), Some(1500), Some(1501)].map(seek),
        [None, None, None, Some("1501000us".to_owned())]
    );
    assert_eq!(seek(Some(i64::MAX)).as_deref(), Some("9223372036854775807000us"));
}
