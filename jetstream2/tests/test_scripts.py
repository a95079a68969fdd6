"""The scripts that run on instances install only the expected binary, and format only the empty disk."""

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


# Created once, because archives contain their creation time.
NO_TAR, WITHOUT_SPOOL = gzip.compress(b"no tar"), tarred("README")


@pytest.fixture
def release():
    """An HTTP server with files by path, which records its requests."""

    class Handler(BaseHTTPRequestHandler):
        files, requests = {}, []

        def do_GET(self):
            self.requests.append((self.path, self.headers.get("Authorization")))
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
        f"SPOOL_BINARY_URL={url}\nSPOOL_BINARY_SHA256={hashlib.sha256(data).hexdigest()}\n"
        f"AWS_ENDPOINT_URL={endpoint}\n"
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
    "data",
    [BINARY, tarred("spool"), tarred("spool-0.1.0-x86_64/spool")],
    ids=["binary", "tar", "tar-with-a-folder"],
)
def test_a_binary_or_archive_is_installed(release, data, tmp_path):
    release.files["/release"] = data
    done, target = fetch(tmp_path, f"{release.url}/release", data)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == BINARY and subprocess.check_output([target], text=True) == "a spool\n"
    assert release.requests[-1] == ("/release", None), "keys must be sent to the bucket only"


def test_requests_to_the_bucket_are_signed(release, tmp_path):
    release.files["/media/bin/spool"] = BINARY
    done, target = fetch(tmp_path, f"{release.url}/media/bin/spool", BINARY, endpoint=release.url)
    assert done.returncode == 0 and target.read_bytes() == BINARY, done.stderr
    authorization = release.requests[-1][1]
    assert authorization.startswith("AWS4-HMAC-SHA256 Credential=access/")
    assert "/RegionOne/s3/aws4_request" in authorization


@pytest.mark.parametrize(
    ("path", "data", "message"),
    [
        ("/release", b"another", "has the SHA-256"),
        ("/nothing", BINARY, "404"),
        ("/no-tar", NO_TAR, ""),
        ("/without", WITHOUT_SPOOL, "contains no file named spool"),
    ],
)
def test_a_wrong_file_is_not_installed(release, path, data, message, tmp_path):
    release.files |= {"/release": BINARY, "/no-tar": NO_TAR, "/without": WITHOUT_SPOOL}
    done, target = fetch(tmp_path, release.url + path, data)
    assert done.returncode != 0 and message in done.stderr and not target.exists()


# Stand-ins for the programs that inspect and format disks: lsblk reads from a file, the others log their
# arguments.
LSBLK = """#!/usr/bin/env bash
while read -r name type file_system children; do
    case "$*" in
        *NAME,TYPE*) echo "/dev/$name $type" ;;
        *"--output NAME /dev/$name") for ((line = 0; line <= children; line++)); do echo "$name"; done ;;
        *"--output FSTYPE /dev/$name") echo "${file_system/-/}" ;;
    esac
done <"$DISKS"
"""
LOG = '#!/bin/sh\necho "${0##*/} $*" >>"$CALLS"\n'


def make_scratch(folder, disks, kind="volume", labeled=False):
    programs = folder / "bin"
    programs.mkdir()
    stand_ins = {
        "lsblk": LSBLK,
        "blkid": f"#!/bin/sh\nexit {0 if labeled else 2}\n",
        "sleep": "#!/bin/sh\n",
        "grep": "#!/bin/sh\n",
        "mountpoint": "#!/bin/sh\nexit 1\n",
    } | dict.fromkeys(["mkfs.ext4", "mount", "chown"], LOG)
    for name, text in stand_ins.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (folder / "disks").write_text(disks)
    calls = folder / "calls"
    done = subprocess.run(
        [SCRIPTS / "make-scratch", kind, folder / "scratch"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": f"{programs}:/usr/bin:/bin", "DISKS": str(folder / "disks"), "CALLS": str(calls)},
    )
    return done, calls.read_text() if calls.exists() else ""


def test_the_only_empty_disk_becomes_scratch_space(tmp_path):
    # The root disk has partitions, the config drive a file system.
    done, calls = make_scratch(tmp_path, "vda disk - 2\nvdb disk iso9660 0\nvdc disk - 0\nsr0 rom - 0\n")
    assert done.returncode == 0, done.stderr
    assert "mkfs.ext4 -q -m 0 -L spool-scratch /dev/vdc" in calls and f"mount {tmp_path}/scratch" in calls
    assert f"chown spool:spool {tmp_path}/scratch" in calls


@pytest.mark.parametrize(
    ("disks", "message"),
    [
        ("vda disk - 2\n", "found 0"),
        ("vda disk - 2\nvdb disk - 0\nvdc disk - 0\n", "found 2: /dev/vdb /dev/vdc"),
    ],
)
def test_no_disk_is_formatted_if_the_choice_is_ambiguous(disks, message, tmp_path):
    done, calls = make_scratch(tmp_path, disks)
    assert done.returncode == 1 and message in done.stderr and "mkfs" not in calls


def test_a_disk_is_formatted_once(tmp_path):
    done, calls = make_scratch(tmp_path, "vda disk - 2\nvdb disk ext4 0\n", labeled=True)
    assert done.returncode == 0 and "mkfs" not in calls and "mount" in calls


def test_nothing_is_formatted_without_a_volume(tmp_path):
    done, calls = make_scratch(tmp_path, "vda disk - 2\nvdb disk - 0\n", kind="root")
    assert done.returncode == 0 and "mkfs" not in calls and "mount" not in calls


def test_spool_here_requires_root(tmp_path):
    done = subprocess.run(
        ["unshare", "--user", "--map-user=1000", SCRIPTS / "spool-here", "probe", "x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4 and "sudo spool-here probe x" in done.stderr
