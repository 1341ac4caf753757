"""Hosts of their own on one machine: each with its network, folders in /tmp, shared memory, name and processes, by Linux's namespaces.

A network of namespaces touches nothing of the machine's own: the switch between the hosts lies in a namespace too.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

HOST_MEMORY = "size=512m"
OWN_SPACES = ("unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc")
PREPARE = r"""
set -e
name=$1 hosts=$2
shift 2
mount -t tmpfs -o mode=1777 none /mnt
for path; do
    mkdir -p "/mnt/${path#/tmp/}"
    mount --bind "$path" "/mnt/${path#/tmp/}"
done
mount --bind "$hosts" /etc/hosts
mount --rbind /mnt /tmp
umount --lazy /mnt
mkdir /tmp/home
mount -t tmpfs -o mode=1777,SIZE none /dev/shm
hostname "$name"
echo ready
# A host's first process has to take in those whose parents have ended.
sleep infinity & wait
""".replace("SIZE", HOST_MEMORY)


def why_impossible() -> str:
    """Why this machine cannot have such hosts; "" where it can."""
    if sys.platform != "linux" or os.geteuid():
        return "separate hosts need network namespaces, which only root may make, on Linux"
    if missing := [name for name in ("ip", "unshare", "nsenter", "setpriv") if not shutil.which(name)]:
        return f"separate hosts need {', '.join(missing)} (iproute2, util-linux)"
    trial = ["sh", "-c", "mount -t tmpfs none /mnt && ip link add switch type bridge && ip link add wire type veth"]
    made = subprocess.run([*OWN_SPACES, "--net", *trial], capture_output=True, text=True)
    return f"this machine makes no namespaces: {made.stderr.strip()}" if made.returncode else ""


class Host:
    """One host; its first process, with whose end all of its processes end."""

    def __init__(self, name: str, ip: str, process: subprocess.Popen) -> None:
        self.name = name
        self.ip = ip
        self._process = process
        self._first = psutil.Process(process.pid).children()[0].pid

    @property
    def prefix(self) -> list[str]:
        """What makes a command one of this host's; it begins in a folder of its own."""
        spaces = ["--mount", "--uts", "--ipc", "--net", "--pid"]
        return ["nsenter", f"--target={self._first}", *spaces, "env", "--chdir=/tmp/home", "HOME=/tmp/home"]

    def lose(self) -> None:
        """End the host as a power cut does."""
        self._process.kill()
        self._process.wait(20)


class Network:
    """A switch and the hosts at it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._spaces: list[str] = []
        self._hosts: dict[str, Host] = {}
        self._switch = ""

    def start(self) -> None:
        """Put the switch there."""
        self._switch = self._space("switch")
        _run("ip", "-n", self._switch, "link", "add", "switch", "type", "bridge")
        _run("ip", "-n", self._switch, "address", "add", f"{_ip(1)}/24", "dev", "switch")
        _run("ip", "-n", self._switch, "link", "set", "switch", "up")

    def _space(self, name: str) -> str:
        space = f"digits{os.getpid()}-{name}"
        _run("ip", "netns", "add", space)
        self._spaces.append(space)
        _run("ip", "-n", space, "link", "set", "lo", "up")
        return space

    def host(self, name: str, shown: Sequence[Path]) -> Host:
        """Start a host that sees these folders, of those in /tmp, and nothing else there; this Python is installed on it."""
        number = len(self._spaces) + 1
        ip, space = _ip(number), self._space(name)
        _run("ip", "link", "add", "wire", "netns", space, "type", "veth", "peer", "name", f"port{number}", "netns", self._switch)
        _run("ip", "-n", self._switch, "link", "set", f"port{number}", "master", "switch", "up")
        _run("ip", "-n", space, "address", "add", f"{ip}/24", "dev", "wire")
        _run("ip", "-n", space, "link", "set", "wire", "up")
        # Ray asks for the way to the outside to learn a host's address.
        _run("ip", "-n", space, "route", "add", "default", "via", _ip(1))
        names = self._folder / f"hosts-{name}"
        names.write_text(f"127.0.0.1 localhost\n{ip} {name}\n")
        software = dict.fromkeys((Path(sys.prefix), Path(sys.base_prefix)))
        paths = [str(path) for path in (*software, *shown) if path.is_relative_to("/tmp")]
        # Whatever ends the tests ends their hosts.
        inside = ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", space, *OWN_SPACES]
        process = subprocess.Popen([*inside, "sh", "-c", PREPARE, "prepare", name, str(names), *paths], stdout=subprocess.PIPE, text=True)
        if process.stdout.readline() != "ready\n":
            process.kill()
            raise RuntimeError(f"host {name} did not come up")
        self._hosts[name] = Host(name, ip, process)
        return self._hosts[name]

    def wire(self, name: str, state: str) -> None:
        """Pull the host's wire (`down`), or plug it in again (`up`)."""
        _run("ip", "-n", f"digits{os.getpid()}-{name}", "link", "set", "wire", state)

    def close(self) -> None:
        """End all hosts; their wires go with them."""
        for host in self._hosts.values():
            host.lose()
        for space in self._spaces:
            with contextlib.suppress(subprocess.CalledProcessError):
                _run("ip", "netns", "delete", space)


@contextmanager
def network(folder: Path) -> Iterator[Network]:
    """A network that surely goes."""
    made = Network(folder)
    try:
        made.start()
        yield made
    finally:
        made.close()


def _ip(number: int) -> str:
    # A range for tests of networks (RFC 2544), so that it is nobody's.
    return f"198.18.77.{number}"


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
