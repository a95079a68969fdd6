"""The scripts that run on instances: what is fetched is what was meant, and no disk is formatted but the empty one."""

import gzip
import hashlib
import io
import subprocess
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import FOLDER

SCRIPTS = FOLDER / "cloud-init" / "files"
BINARY = b"#!/bin/sh\necho a spool\n"


def tarred(name):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(BINARY)
        archive.addfile(member, io.BytesIO(BINARY))
    return data.getvalue()


# Made once: a second one would have another time in it.
NO_TAR, WITHOUT_SPOOL = gzip.compress(b"no tar"), tarred("README")


@pytest.fixture
def release():
    """A server with files by path; what it was asked is kept."""

    class Handler(BaseHTTPRequestHandler):
        files, asked = {}, []

        def do_GET(self):
            self.asked.append((self.path, self.headers.get("Authorization")))
            found = self.files.get(self.path)
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(found or b"")))
            self.end_headers()
            self.wfile.write(found or b"")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Handler.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield Handler
    server.shutdown()
    server.server_close()


def fetch(folder, url, data, endpoint="https://s3.example.com"):
    settings, target = folder / "release.env", folder / "spool"
    settings.write_text(
        f"SPOOL_BINARY_URL={url}\nSPOOL_BINARY_SHA256={hashlib.sha256(data).hexdigest()}\nAWS_ENDPOINT_URL={endpoint}\n"
        "AWS_REGION=RegionOne\nAWS_ACCESS_KEY_ID=access\nAWS_SECRET_ACCESS_KEY=secret\n"
    )
    done = subprocess.run(
        [SCRIPTS / "fetch-spool", settings, target],
        env={"PATH": "/usr/bin:/bin", "RETRIES": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, target


@pytest.mark.parametrize(
    "data", [BINARY, tarred("spool"), tarred("spool-0.1.0-x86_64/spool")], ids=["binary", "tar", "tar-with-a-folder"]
)
def test_a_release_is_installed(release, data, tmp_path):
    release.files["/release"] = data
    done, target = fetch(tmp_path, f"{release.url}/release", data)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == BINARY and subprocess.check_output([target], text=True) == "a spool\n"
    assert release.asked[-1] == ("/release", None), "keys are for the bucket alone"


def test_what_lies_in_the_bucket_is_asked_for_with_keys(release, tmp_path):
    release.files["/media/bin/spool"] = BINARY
    done, target = fetch(tmp_path, f"{release.url}/media/bin/spool", BINARY, endpoint=release.url)
    assert done.returncode == 0 and target.read_bytes() == BINARY, done.stderr
    assert (
        release.asked[-1][1].startswith("AWS4-HMAC-SHA256 Credential=access/")
        and "/RegionOne/s3/aws4_request" in release.asked[-1][1]
    )


@pytest.mark.parametrize(
    ("path", "data", "says"),
    [
        ("/release", b"another", "has the SHA-256"),
        ("/nothing", BINARY, "404"),
        ("/no-tar", NO_TAR, ""),
        ("/without", WITHOUT_SPOOL, "there is no file called spool"),
    ],
)
def test_what_is_not_the_release_is_not_installed(release, path, data, says, tmp_path):
    release.files |= {"/release": BINARY, "/no-tar": NO_TAR, "/without": WITHOUT_SPOOL}
    done, target = fetch(tmp_path, release.url + path, data)
    assert done.returncode != 0 and says in done.stderr and not target.exists()


# Stand in for what reads and makes disks: lsblk answers from a file, the others write down what they were told.
LSBLK = """#!/usr/bin/env bash
while read -r name type file_system children; do
    case "$*" in
        *NAME,TYPE*) echo "/dev/$name $type" ;;
        *"--output NAME /dev/$name") for ((line = 0; line <= children; line++)); do echo "$name"; done ;;
        *"--output FSTYPE /dev/$name") echo "${file_system/-/}" ;;
    esac
done <"$DISKS"
"""
NOTE = '#!/bin/sh\necho "${0##*/} $*" >>"$NOTES"\n'


def make_scratch(folder, disks, kind="volume", labeled=False):
    programs = folder / "bin"
    programs.mkdir()
    stand_ins = {
        "lsblk": LSBLK,
        "blkid": f"#!/bin/sh\nexit {0 if labeled else 2}\n",
        "sleep": "#!/bin/sh\n",
        "grep": "#!/bin/sh\n",
        "mountpoint": "#!/bin/sh\nexit 1\n",
    } | dict.fromkeys(["mkfs.ext4", "mount", "chown"], NOTE)
    for name, text in stand_ins.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (folder / "disks").write_text(disks)
    notes = folder / "notes"
    done = subprocess.run(
        [SCRIPTS / "make-scratch", kind, folder / "scratch"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": f"{programs}:/usr/bin:/bin", "DISKS": str(folder / "disks"), "NOTES": str(notes)},
    )
    return done, notes.read_text() if notes.exists() else ""


def test_the_one_empty_disk_becomes_scratch_space(tmp_path):
    # The root disk has partitions, the config drive a file system.
    done, notes = make_scratch(tmp_path, "vda disk - 2\nvdb disk iso9660 0\nvdc disk - 0\nsr0 rom - 0\n")
    assert done.returncode == 0, done.stderr
    assert "mkfs.ext4 -q -m 0 -L spool-scratch /dev/vdc" in notes and f"mount {tmp_path}/scratch" in notes
    assert f"chown spool:spool {tmp_path}/scratch" in notes


@pytest.mark.parametrize(
    ("disks", "says"),
    [("vda disk - 2\n", "there are 0"), ("vda disk - 2\nvdb disk - 0\nvdc disk - 0\n", "there are 2: /dev/vdb /dev/vdc")],
)
def test_no_disk_is_formatted_where_it_is_not_clear_which(disks, says, tmp_path):
    done, notes = make_scratch(tmp_path, disks)
    assert done.returncode == 1 and says in done.stderr and "mkfs" not in notes


def test_a_disk_is_formatted_once(tmp_path):
    done, notes = make_scratch(tmp_path, "vda disk - 2\nvdb disk ext4 0\n", labeled=True)
    assert done.returncode == 0 and "mkfs" not in notes and "mount" in notes


def test_without_a_volume_nothing_is_formatted(tmp_path):
    done, notes = make_scratch(tmp_path, "vda disk - 2\nvdb disk - 0\n", kind="root")
    assert done.returncode == 0 and "mkfs" not in notes and "mount" not in notes


def test_the_settings_are_roots_to_use(tmp_path):
    done = subprocess.run(
        ["unshare", "--user", "--map-user=1000", SCRIPTS / "spool-here", "probe", "x"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 4 and "sudo spool-here probe x" in done.stderr
