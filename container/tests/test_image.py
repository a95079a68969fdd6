"""The image contains all files that FFmpeg needs.

Its root is built by the Containerfile's own script, from the packages that are installed here.
"""

import os
import platform
import re
import shutil
import subprocess

import pytest
from files import FOLDER, SPOOL, image

LOADERS = {"x86_64": "lib64/ld-linux-x86-64.so.2", "aarch64": "lib/ld-linux-aarch64.so.1"}


def run(*command, **options):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, **options)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Builds the root of the image, without Debian's base except the C library."""
    folder = tmp_path_factory.mktemp("image")
    before, root = folder / "before", folder / "root"
    before.write_text("")
    result = run(FOLDER / "ffmpeg-closure", before, root)
    assert result.returncode == 0, result.stderr
    for name in ("bin", "lib", "lib64"):
        (root / "usr" / name).mkdir(exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    loader = LOADERS[platform.machine()]
    shutil.copy(f"/{loader}", root / loader)
    for name in ("proc", "dev", "sys", "tmp", "etc", "scratch", "usr/local/bin"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "usr/local/bin/spool").touch()
    (root / "tmp").chmod(0o1777)
    os.chown(root / "scratch", 10001, 10001)
    return root


def test_the_pinned_versions_are_available():
    """Asks apt-get itself, because it defines what a version pattern matches."""
    text = (FOLDER / "Containerfile").read_text().replace("\\\n", "")
    pins = re.search(r'^ARG FFMPEG="(.*?)"', text, re.MULTILINE)[1].split()
    assert pins[0].startswith("ffmpeg=") and "*" not in pins[0]
    result = run(
        "apt-get",
        "install",
        "--simulate",
        "--reinstall",
        "--allow-downgrades",
        "--no-install-recommends",
        *pins,
    )
    assert result.returncode == 0, "Debian has other versions now, see container/README.md:\n" + result.stderr


def test_a_missing_version_is_reported_with_the_remedy(tmp_path):
    """Uses an apt-get that finds no package."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "apt-get").write_text('#!/bin/sh\n[ "$1" = update ]\n')
    (programs / "apt-get").chmod(0o755)
    script = (FOLDER / "ffmpeg-packages").read_text().replace("/root/before", str(tmp_path / "before"))
    copy = tmp_path / "ffmpeg-packages"
    copy.write_text(script)
    result = run("sh", copy, "", "ffmpeg=7:0", env={"PATH": f"{programs}:/usr/bin:/bin"})
    assert (
        result.returncode == 1 and "ffmpeg=7:0" in result.stderr and "--build-arg SNAPSHOT=" in result.stderr
    )
    assert "dpkg" in (tmp_path / "before").read_text().splitlines()


def test_packages_of_the_base_are_left_out(tmp_path):
    result = run("dpkg-query", "--show", "--showformat", "${Package}\n")
    before = tmp_path / "before"
    before.write_text("\n".join(name for name in result.stdout.split() if name != "libx264-164") + "\n")
    result = run(FOLDER / "ffmpeg-closure", before, tmp_path / "root")
    assert result.returncode == 0, result.stderr
    files = [path.name for path in (tmp_path / "root/usr/lib").rglob("*") if path.is_file()]
    assert files == ["libx264.so.164"]


def test_each_package_has_a_status_entry_and_a_license(root):
    packages = {path.name for path in (root / "var/lib/dpkg/status.d").iterdir()}
    assert {"ffmpeg", "libavcodec59", "libx264-164", "libx265-199", "libc6"} <= packages
    for package in packages:
        assert f"Package: {package}\n" in (root / "var/lib/dpkg/status.d" / package).read_text()
        assert (root / "usr/share/doc" / package / "copyright").stat().st_size > 0


@pytest.mark.skipif(os.getuid() != 0, reason="chroot needs root")
def test_doctor_passes_with_a_read_only_root_and_no_privileges(root):
    """Runs `spool doctor` as in a container: read-only root except scratch, unnamed user, no capabilities."""
    capabilities = "-all,+sys_chroot,+setuid,+setgid"
    enter = f"""
        set -e
        mount --make-rprivate /
        mount --bind {root} {root}
        mount --bind {os.path.realpath(SPOOL)} {root}/usr/local/bin/spool
        mount -t proc proc {root}/proc
        mount --rbind /dev {root}/dev
        mount --rbind /sys {root}/sys
        mount --bind {root}/scratch {root}/scratch
        mount -o remount,bind,ro {root}
        cd {root}
        exec setpriv --no-new-privs --bounding-set={capabilities} --inh-caps=-all \\
            chroot --userspec=10001:10001 --groups= {root} "$@"
    """
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin", **image().environment}

    def inside(*words):
        return run(
            "unshare", "--mount", "--pid", "--fork", "sh", "-c", enter, "enter", *words, env=environment
        )

    result = inside("/usr/local/bin/spool", "doctor")
    assert result.returncode == 0, result.stdout + result.stderr
    for line in ("ffmpeg", "encoders", "ffprobe", "sandbox", "engine"):
        assert re.search(rf"^ok +{line}: ", result.stdout, re.MULTILINE), result.stdout
    assert not re.search("^fail", result.stdout, re.MULTILINE), result.stdout
    # Every user may write to /tmp, but the root is read-only.
    written = inside(
        "/usr/bin/ffmpeg",
        "-loglevel",
        "error",
        "-f",
        "lavfi",
        "-i",
        "color",
        "-frames:v",
        "1",
        "/tmp/frame.png",
    )
    assert written.returncode != 0 and "Could not open file" in written.stderr
    written = inside(
        "/usr/bin/ffmpeg",
        "-loglevel",
        "error",
        "-f",
        "lavfi",
        "-i",
        "color",
        "-frames:v",
        "1",
        "/scratch/frame.png",
    )
    assert written.returncode == 0, written.stderr
