"""Encodes with Spark: each of its executors runs one FFmpeg command at a time.

    spark.py EXECUTORS pieces FOLDER      runs the commands in FOLDER/*/command
    spark.py EXECUTORS split SOURCE OUT   splits SOURCE by stream copy into pieces of two minutes,
                                          encodes, joins and packages them
"""

import os
import subprocess
import sys
from pathlib import Path

# Rungs of Spool's preset `web`: height, x264's level, peak in kb/s.
RUNGS = [(1080, "4.0", 5000), (720, "3.1", 2800), (480, "3.0", 1400)]

FFMPEG = ["ffmpeg", "-nostdin", "-y", "-loglevel", "error"]


def main():
    executors, way, *paths = sys.argv[1:]
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    from pyspark.sql import SparkSession

    # Each executor is a separate process, as on a cluster.
    builder = SparkSession.builder.master(f"local-cluster[{executors},1,1024]")
    spark = builder.config("spark.ui.enabled", "false").getOrCreate()
    try:
        {"pieces": pieces, "split": split}[way](spark.sparkContext, *map(Path, paths))
    finally:
        gateway = spark.sparkContext._gateway
        spark.stop()
        # Spark's Java process ends with its input. It is waited for, since only then its processor time
        # is counted.
        gateway.shutdown()
        gateway.proc.stdin.close()
        gateway.proc.wait(timeout=60)


def run_all(context, commands):
    """Runs argument lists, each as one task."""
    context.parallelize(commands, len(commands)).foreach(lambda command: subprocess.run(command, check=True))


def pieces(context, folder):
    # Largest command first; audio is the smallest.
    commands = sorted(folder.glob("*/command"), key=lambda path: path.stat().st_size, reverse=True)
    run_all(context, [["bash", "-e", str(command)] for command in commands])


def split(context, source, out):
    work = out.parent
    copy = ["-c", "copy", "-f", "segment", "-segment_time", "120", "-reset_timestamps", "1"]
    subprocess.run([*FFMPEG, "-i", str(source), *copy, str(work / "piece-%04d.mp4")], check=True)
    found = sorted(work.glob("piece-*.mp4"))
    run_all(context, [encode(piece) for piece in found])
    # Each rung is joined by stream copy, and packaged with the audio of the first.
    out.mkdir()
    inputs, maps = [], []
    for number, (height, _, _) in enumerate(RUNGS):
        names = work / f"{height}.txt"
        names.write_text("".join(f"file '{encoded(piece, height)}'\n" for piece in found))
        inputs += ["-f", "concat", "-safe", "0", "-i", str(names)]
        maps += ["-map", f"{number}:v"]
    variants = " ".join(f"v:{number},agroup:sound" for number in range(len(RUNGS))) + " a:0,agroup:sound"
    hls = ["-f", "hls", "-hls_time", "4", "-hls_playlist_type", "vod", "-hls_segment_type", "fmp4"]
    hls += ["-hls_flags", "independent_segments"]
    hls += ["-master_pl_name", "master.m3u8", "-var_stream_map", variants, str(out / "%v" / "index.m3u8")]
    subprocess.run([*FFMPEG, *inputs, *maps, "-map", "0:a", "-c", "copy", *hls], check=True)


def encoded(piece, height):
    return piece.with_name(f"{piece.stem}-{height}.mp4")


def encode(piece):
    """Returns a command that decodes once for all rungs, on one thread: an executor has one core."""
    labels = "".join(f"[s{number}]" for number in range(len(RUNGS)))
    heights = enumerate(height for height, _, _ in RUNGS)
    scales = "".join(f";[s{number}]scale=-2:{height}[v{number}]" for number, height in heights)
    command = [*FFMPEG, "-threads", "1", "-filter_complex_threads", "1", "-i", str(piece)]
    command += ["-filter_complex", f"[0:v]split={len(RUNGS)}{labels}{scales}"]
    for number, (height, level, kbps) in enumerate(RUNGS):
        command += ["-map", f"[v{number}]", "-map", "0:a", "-c:v", "libx264", "-preset", "veryfast"]
        command += ["-profile:v", "high", "-level", level, "-pix_fmt", "yuv420p", "-threads", "1"]
        command += ["-crf", "23", "-maxrate", f"{kbps}k", "-bufsize", f"{2 * kbps}k"]
        command += ["-force_key_frames", "expr:gte(t,n_forced*4)", "-forced-idr", "1"]
        command += ["-c:a", "aac", "-b:a", "128k", "-ac", "2", str(encoded(piece, height))]
    return command


main()
