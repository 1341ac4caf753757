"""The limits of cgroups, read from files as Linux writes them."""

import pytest

from digit_search import machine_limits
from digit_search.machine_limits import core_limit, memory_limit, total_memory, usable_cores, usable_memory

GIB = 1 << 30


@pytest.fixture
def cgroups(tmp_path):
    """Write /proc/self/cgroup and files under /sys/fs/cgroup; return both places."""

    def write(lines, files):
        proc = tmp_path / "cgroup"
        proc.write_text("\n".join(lines) + "\n")
        root = tmp_path / "sys"
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(f"{text}\n")
        return proc, root

    return write


@pytest.mark.parametrize(
    ("lines", "files", "cores", "memory"),
    [
        pytest.param(["0::/"], {"cpu.max": "150000 100000", "memory.max": 2 * GIB}, 1.5, 2 * GIB, id="version 2, in a container"),
        pytest.param(["0::/"], {"cpu.max": "max 100000", "memory.max": "max"}, None, None, id="version 2, no limit"),
        pytest.param(
            ["0::/a.slice/b.scope"],
            {"a.slice/cpu.max": "50000 100000", "a.slice/b.scope/cpu.max": "200000 100000", "a.slice/b.scope/memory.max": GIB},
            0.5,
            GIB,
            id="version 2, the lowest of a group and those above it",
        ),
        pytest.param(
            ["4:memory:/docker/x", "3:cpu,cpuacct:/docker/x"],
            {
                "cpu,cpuacct/docker/x/cpu.cfs_quota_us": 300000,
                "cpu,cpuacct/docker/x/cpu.cfs_period_us": 100000,
                "memory/docker/x/memory.limit_in_bytes": 3 * GIB,
            },
            3.0,
            3 * GIB,
            id="version 1",
        ),
        pytest.param(
            ["4:memory:/docker/x", "1:cpu:/docker/x"],
            {"cpu/cpu.cfs_quota_us": 25000, "cpu/cpu.cfs_period_us": 50000, "memory/memory.limit_in_bytes": GIB},
            0.5,
            GIB,
            id="version 1, in a container that sees the host's path",
        ),
        pytest.param(
            ["4:memory:/", "1:cpu:/"],
            {"cpu/cpu.cfs_quota_us": -1, "cpu/cpu.cfs_period_us": 100000, "memory/memory.limit_in_bytes": 9223372036854771712},
            None,
            None,
            id="version 1, no limit",
        ),
        pytest.param(
            ["4:memory:/x", "0::/y"], {"memory/x/memory.limit_in_bytes": GIB, "unified/y/cpu.max": "100000 100000"}, 1.0, GIB, id="both"
        ),
        pytest.param(["0::/"], {"cpu.max": "", "memory.max": "much"}, None, None, id="files with other content"),
        pytest.param(["nonsense"], {}, None, None, id="a malformed list of groups"),
    ],
)
def test_the_lowest_limit_applies(cgroups, lines, files, cores, memory):
    proc, root = cgroups(lines, files)
    assert (core_limit(proc, root), memory_limit(proc, root)) == (cores, memory)


def test_a_system_without_cgroups_has_no_limits(tmp_path):
    assert core_limit(tmp_path / "none", tmp_path) is None
    assert memory_limit(tmp_path / "none", tmp_path) is None


@pytest.mark.parametrize(("affinity", "limit", "usable"), [(8, None, 8), (8, 2.5, 2.5), (2, 16.0, 2), (4, 0.5, 0.5)])
def test_usable_cores_are_the_lower_of_affinity_and_group_limit(monkeypatch, affinity, limit, usable):
    monkeypatch.setattr(machine_limits.os, "sched_getaffinity", lambda process: set(range(affinity)), raising=False)
    monkeypatch.setattr(machine_limits, "core_limit", lambda: limit)
    assert usable_cores() == usable


def test_memory_is_the_lower_of_the_machines_and_the_groups(monkeypatch):
    assert total_memory() > 0
    monkeypatch.setattr(machine_limits, "memory_limit", lambda: 5)
    assert usable_memory() == 5
    monkeypatch.setattr(machine_limits, "memory_limit", lambda: None)
    assert usable_memory() == total_memory()


def test_cores_are_counted_where_python_knows_no_affinity(monkeypatch):
    monkeypatch.delattr(machine_limits.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(machine_limits, "core_limit", lambda: None)
    assert usable_cores() == machine_limits.os.cpu_count()
