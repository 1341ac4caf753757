"""Separate hosts on one machine, made of Linux namespaces: each has its own network, /tmp, shared memory, host name and processes.

The machine's own network is not changed: the switch that connects the hosts is in a namespace too.
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
UNSHARE = ("unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc")
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
# The host's first process must adopt those whose parents have ended.
sleep infinity & wait
""".replace("SIZE", HOST_MEMORY)


def why_impossible() -> str:
    """Why this machine cannot run such hosts; "" if it can."""
    if sys.platform != "linux" or os.geteuid():
        return "separate hosts need root on Linux, to create network namespaces"
    if missing := [name for name in ("ip", "unshare", "nsenter", "setpriv") if not shutil.which(name)]:
        return f"separate hosts need {', '.join(missing)} (iproute2, util-linux)"
    trial = ["sh", "-c", "mount -t tmpfs none /mnt && ip link add switch type bridge && ip link add wire type veth"]
    attempt = subprocess.run([*UNSHARE, "--net", *trial], capture_output=True, text=True)
    return f"namespaces cannot be created: {attempt.stderr.strip()}" if attempt.returncode else ""


class Host:
    """One host. All of its processes end when its first process ends."""

    def __init__(self, name: str, ip: str, process: subprocess.Popen) -> None:
        self.name = name
        self.ip = ip
        self._process = process
        self._first = psutil.Process(process.pid).children()[0].pid

    @property
    def prefix(self) -> list[str]:
        """The words that, before a command, run it on this host, in the host's own home folder."""
        options = ["--mount", "--uts", "--ipc", "--net", "--pid"]
        return ["nsenter", f"--target={self._first}", *options, "env", "--chdir=/tmp/home", "HOME=/tmp/home"]

    def lose(self) -> None:
        """End the host at once, as a power cut does."""
        self._process.kill()
        self._process.wait(20)


class Network:
    """A switch and the hosts that are connected to it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._namespaces: list[str] = []
        self._hosts: dict[str, Host] = {}
        self._switch = ""

    def start(self) -> None:
        """Create the switch."""
        self._switch = self._namespace("switch")
        _run("ip", "-n", self._switch, "link", "add", "switch", "type", "bridge")
        _run("ip", "-n", self._switch, "address", "add", f"{_ip(1)}/24", "dev", "switch")
        _run("ip", "-n", self._switch, "link", "set", "switch", "up")

    def _namespace(self, name: str) -> str:
        namespace = f"digits{os.getpid()}-{name}"
        _run("ip", "netns", "add", namespace)
        self._namespaces.append(namespace)
        _run("ip", "-n", namespace, "link", "set", "lo", "up")
        return namespace

    def host(self, name: str, folders: Sequence[Path]) -> Host:
        """Start a host whose /tmp contains only these folders and this Python."""
        number = len(self._namespaces) + 1
        ip, namespace = _ip(number), self._namespace(name)
        _run("ip", "link", "add", "wire", "netns", namespace, "type", "veth", "peer", "name", f"port{number}", "netns", self._switch)
        _run("ip", "-n", self._switch, "link", "set", f"port{number}", "master", "switch", "up")
        _run("ip", "-n", namespace, "address", "add", f"{ip}/24", "dev", "wire")
        _run("ip", "-n", namespace, "link", "set", "wire", "up")
        # Ray finds a host's address by its default route.
        _run("ip", "-n", namespace, "route", "add", "default", "via", _ip(1))
        names = self._folder / f"hosts-{name}"
        names.write_text(f"127.0.0.1 localhost\n{ip} {name}\n")
        software = dict.fromkeys((Path(sys.prefix), Path(sys.base_prefix)))
        paths = [str(path) for path in (*software, *folders) if path.is_relative_to("/tmp")]
        # The hosts end with this process, whatever ends it.
        inside = ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", namespace, *UNSHARE]
        process = subprocess.Popen([*inside, "sh", "-c", PREPARE, "prepare", name, str(names), *paths], stdout=subprocess.PIPE, text=True)
        if process.stdout.readline() != "ready\n":
            process.kill()
            raise RuntimeError(f"host {name} did not start")
        self._hosts[name] = Host(name, ip, process)
        return self._hosts[name]

    def close(self) -> None:
        """End all hosts and delete the network."""
        for host in self._hosts.values():
            host.lose()
        for namespace in self._namespaces:
            with contextlib.suppress(subprocess.CalledProcessError):
                _run("ip", "netns", "delete", namespace)


@contextmanager
def temporary_network(folder: Path) -> Iterator[Network]:
    """A network that is deleted at the end."""
    network = Network(folder)
    try:
        network.start()
        yield network
    finally:
        network.close()


def _ip(number: int) -> str:
    # This range is reserved for network tests (RFC 2544).
    return f"198.18.77.{number}"


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
