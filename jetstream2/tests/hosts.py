"""Hosts of a private network, emulated with a network namespace each, and a root overlaid on this system's.

The files that cloud-init would write to an instance are written into that root by cloud-init's own code. Then
the units' commands run there, as plain processes or under systemd as the first process of a PID namespace.
"""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import yaml
from conftest import until
from render import environment, exec_start

NETWORK = "10.42.0"
# Writes the files of user data with cloud-init's module.
WRITE_FILES = """
import sys, yaml
from cloudinit.config import cc_write_files
cc_write_files.write_files("test", yaml.safe_load(sys.stdin)["write_files"], "root:root")
"""
USER = (
    "id spool >/dev/null 2>&1 || useradd --system --home-dir /var/lib/spool --shell /usr/sbin/nologin spool"
)

# Boots systemd in the root $1. File systems that could change the real host are read-only.
BOOT = """
set -eu
cd "$1"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t tmpfs tmpfs sys/fs/cgroup
mkdir sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
mount -t tmpfs tmpfs dev
for node in null zero full random urandom tty; do
    touch "dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
mkdir dev/pts dev/shm dev/mqueue dev/hugepages
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mkdir -p mnt
pivot_root . mnt
exec chroot . /bin/sh -c 'umount -l /mnt &&
    exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
        /lib/systemd/systemd --system --unit=basic.target'
"""


def run(*command, check=True, **options):
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,
    )
    if check and done.returncode:
        raise AssertionError(f"{command}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


class Network:
    """A bridge in a network namespace, with hosts connected to it. Closing removes everything."""

    def __init__(self, folder):
        self.folder, self.name = folder, f"spool{os.getpid()}"
        self.exits = contextlib.ExitStack()
        self.namespace("net")
        run("ip", "-n", self.full("net"), "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", self.full("net"), "link", "set", "bridge", "up")

    def full(self, name):
        return f"{self.name}-{name}"

    def namespace(self, name):
        run("ip", "netns", "add", self.full(name))
        self.exits.callback(run, "ip", "netns", "del", self.full(name), check=False)
        run("ip", "-n", self.full(name), "link", "set", "lo", "up")

    def join(self, name, number):
        """Creates a namespace that is connected to the bridge with the address of this number."""
        self.namespace(name)
        run(
            "ip",
            "-n",
            self.full("net"),
            "link",
            "add",
            name,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            self.full(name),
        )
        run("ip", "-n", self.full("net"), "link", "set", name, "master", "bridge", "up")
        run("ip", "-n", self.full(name), "address", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
        run("ip", "-n", self.full(name), "link", "set", "eth0", "up")

    def start(self, name, *command, log, **options):
        """Starts a process in a namespace. It is killed when the network is closed."""
        with open(log, "wb") as file:
            # Not `ip netns exec`, which mounts another /sys over the one with the cgroups.
            process = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.full(name)}", *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                **options,
            )
        self.exits.callback(end, process)
        return process

    def run(self, name, *command, **options):
        return run("ip", "netns", "exec", self.full(name), *command, **options)

    def close(self):
        self.exits.close()


def end(process):
    if process.poll() is None:
        process.kill()
    process.wait()


class Host:
    """An instance of a role, with the files of its user data."""

    def __init__(self, network, name, number, user_data, spool):
        self.network, self.name, self.text = network, name, user_data.read_text()
        self.runcmd = yaml.safe_load(self.text)["runcmd"]
        network.join(name, number)
        folder = network.folder / name
        self.root, upper, work = folder / "root", folder / "upper", folder / "work"
        for created in (self.root, upper, work):
            created.mkdir(parents=True)
        folder.chmod(0o755)
        run(
            "mount",
            "-t",
            "overlay",
            "overlay",
            "-o",
            f"lowerdir=/,upperdir={upper},workdir={work}",
            self.root,
        )
        network.exits.callback(run, "umount", "--lazy", self.root)
        # The binary, at the path from which the release is fetched.
        (self.root / "srv" / "spool").touch()
        run("mount", "--bind", spool, self.root / "srv" / "spool")
        network.exits.callback(run, "umount", "--lazy", self.root / "srv" / "spool")
        # The real host's services are removed.
        for unit in (self.root / "etc" / "systemd" / "system").iterdir():
            run("rm", "-rf", unit)
        self.chroot("sh", "-c", USER)
        self.chroot("/usr/bin/python3", "-c", WRITE_FILES, input=self.text)

    def chroot(self, *command, **options):
        return self.network.run(self.name, "chroot", self.root, *command, **options)

    def get(self, url, *options, **more):
        """Returns the response of a URL that this host can reach."""
        curl = ["curl", "--silent", "--show-error", "--fail", "--max-time", "20"]
        return self.network.run(self.name, *curl, *options, url, **more)


class ProcessHost(Host):
    """Runs the units' commands as plain processes, with the units' environment and user."""

    def boot(self):
        # The steps of cloud-init's runcmd except the last, which starts the units with systemd.
        for command in self.runcmd:
            _, scratch, *units = command
            # The kernel's file systems are those of the real host.
            for kernel in ("proc", "dev", "sys"):
                run("mount", "--rbind", f"/{kernel}", self.root / kernel)
                run("mount", "--make-rslave", self.root / kernel)
                self.network.exits.callback(run, "umount", "--recursive", "--lazy", self.root / kernel)
            self.chroot("/usr/local/lib/spool/make-scratch", scratch)
            self.chroot("/usr/local/lib/spool/fetch-spool")
            self.chroot("install", "-d", "-o", "spool", "-g", "spool", "-m", "0700", "/var/lib/spool")
            self.started = {unit: self.start(unit) for unit in units}

    def start(self, unit):
        text = (self.root / "etc" / "systemd" / "system" / f"{unit}.service").read_text()
        settings = {}
        for line in text.splitlines():
            if line.startswith("EnvironmentFile="):
                settings |= environment(
                    (self.root / line.removeprefix("EnvironmentFile=").lstrip("/")).read_text()
                )
        environ = [f"{key}={value}" for key, value in settings.items()]
        return self.network.start(
            self.name,
            "chroot",
            self.root,
            "setpriv",
            "--reuid=spool",
            "--regid=spool",
            "--init-groups",
            "--no-new-privs",
            "env",
            "-i",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            *environ,
            *exec_start(text),
            log=self.log(unit),
        )

    def log(self, unit):
        return self.network.folder / f"{self.name}-{unit}.log"

    def output(self, unit):
        return self.log(unit).read_text()

    def stop(self, unit):
        """Sends SIGTERM to a unit's process. Returns a function that waits for its exit code."""
        self.started[unit].send_signal(signal.SIGTERM)
        return lambda: self.started[unit].wait(120)


class SystemdHost(Host):
    """Runs the units under systemd."""

    def boot(self):
        self.console = self.network.folder / f"{self.name}.log"
        group = Path("/sys/fs/cgroup/systemd") / f"{self.network.name}-{self.name}"
        group.mkdir()
        self.network.exits.callback(remove_groups, group)
        # Enters its cgroup before creating the cgroup namespace, whose root is that cgroup.
        enter = (
            f"echo $$ >{group}/cgroup.procs && "
            "exec unshare --cgroup --mount --propagation private --pid --fork --kill-child "
            f'--uts --ipc bash -c "$1" boot {self.root}'
        )
        self.process = self.network.start(self.name, "bash", "-c", enter, "enter", BOOT, log=self.console)
        try:
            self.init = until(f"{self.name} is booted", 60, self.find_init)
            until(f"{self.name} accepts commands", 60, self.accepts_commands)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.console.read_text()}") from None
        for command in self.runcmd:
            self.inside(*command)

    def accepts_commands(self):
        return self.inside("systemctl", "is-system-running", check=False).strip() in ("running", "degraded")

    def find_init(self):
        """Returns the PID of its first process in this namespace, or a false value."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return Path(f"/proc/{children[0]}/comm").read_text().strip() == "systemd" and int(children[0])

    def inside(self, *command, **options):
        return run(
            "nsenter",
            f"--target={self.init}",
            "--all",
            f"--root=/proc/{self.init}/root",
            "--wd=/",
            "env",
            "-i",
            "HOME=/root",
            "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            *command,
            **options,
        )

    def output(self, unit):
        return self.inside("journalctl", "--no-pager", "--output=cat", "--unit", unit, check=False)

    def stop(self, unit):
        begun = subprocess.Popen(
            [
                "nsenter",
                f"--target={self.init}",
                "--all",
                f"--root=/proc/{self.init}/root",
                "systemctl",
                "stop",
                unit,
            ]
        )

        def wait():
            assert begun.wait(120) == 0
            shown = self.inside("systemctl", "show", "--property=ActiveState,Result,ExecMainStatus", unit)
            assert "ActiveState=inactive" in shown and "Result=success" in shown, shown
            return int(shown.split("ExecMainStatus=")[1].split()[0])

        return wait

    def is_off(self):
        return self.process.poll() is not None


def remove_groups(group):
    """Removes cgroups from the inside out. Those of recently killed processes stay busy for a moment."""
    for _ in range(50):
        with contextlib.suppress(OSError):
            for inner, _, _ in os.walk(group, topdown=False):
                os.rmdir(inner)
            return
        time.sleep(0.1)
