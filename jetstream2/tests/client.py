"""The real `openstack` client, loaded once and forked for each command, because loading takes a second.

`Client` creates a command `openstack` that sends its arguments, working folder and environment over a socket
to the loaded process, whose child uses the caller's stdin, stdout and stderr.
"""

import array
import json
import os
import socket
import sys
from pathlib import Path

COMMAND = """#!{python} -IS
import array, json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]).encode()
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
server.sendmsg([len(request).to_bytes(4, "big")], rights)
server.sendall(request)
code = server.recv(1)
sys.exit(code[0] if code else 70)
"""


def receive(connection):
    data, ancillary, _, _ = connection.recvmsg(4, socket.CMSG_SPACE(3 * 4))
    files = array.array("i")
    files.frombytes(ancillary[0][2])
    size, request = int.from_bytes(data, "big"), b""
    while len(request) < size:
        request += connection.recv(size - len(request))
    return json.loads(request), files


def run(connection, shell):
    (arguments, environment, folder), files = receive(connection)
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    # Reopened, because Python's own were opened before the fork.
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(os.dup(number), mode) for number, mode in enumerate("rww"))
    code = shell.OpenStackShell().run(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    connection.send(bytes([min(code or 0, 255)]))


def serve(listener):
    import openstack.connection  # noqa: F401
    import openstackclient.shell as shell

    for service in ("compute", "identity", "image", "network", "object", "volume"):
        __import__(f"openstackclient.{service}.client")
    # Running a command loads the remaining modules.
    shell.OpenStackShell().run(["complete"])
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            try:
                run(connection, shell)
            finally:
                os._exit(0)
        connection.close()


class Client:
    """Provides a folder for PATH that contains `openstack`, until it is closed."""

    def __init__(self, folder: Path):
        address = str(folder / "socket")
        self.folder = folder / "bin"
        self.folder.mkdir()
        command = self.folder / "openstack"
        command.write_text(COMMAND.format(python=sys.executable, address=address))
        command.chmod(0o755)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
        listener.listen(64)
        self.process = os.fork()
        if self.process == 0:
            import signal

            # Children are reaped automatically.
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")
            try:
                serve(listener)
            finally:
                os._exit(1)
        listener.close()

    def close(self):
        os.kill(self.process, 9)
        os.waitpid(self.process, 0)
