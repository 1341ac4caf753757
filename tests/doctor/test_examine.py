"""The whole command: independent checks, one line each, and an exit code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from digit_search.doctor import cluster, devices, examine, libraries
from digit_search.doctor.examine import check_data, conclude, line_of
from digit_search.doctor.finding import guarded, ok, problem, warning
from digit_search.errors import ResourceError

ROOT = Path(__file__).parents[2]


def test_lines_are_aligned_with_the_remedy_below():
    assert line_of(ok("cores", "8")) == "ok       cores              8"
    assert line_of(warning("/dev/shm", "small", "make it larger")).splitlines() == [
        "warning  /dev/shm           small",
        "                            -> make it larger",
    ]


def test_the_last_line_counts_the_warnings_and_problems_are_an_error():
    assert conclude([ok("a", "x"), warning("b", "x", "y")]) == "1 ok, 1 warning: a search can be started"
    with pytest.raises(ResourceError, match=r"2 problems \(c, d\) and 0 warnings"):
        conclude([problem("c", "x", "y"), problem("d", "x", "y")])


@pytest.mark.parametrize(
    ("error", "found", "remedy"),
    [
        (ModuleNotFoundError("No module named 'torch'"), "No module named 'torch'", "pip install -r requirements.txt"),
        (OSError("libc10.so: undefined symbol"), "libc10.so: undefined symbol", "fix this first"),
        (ResourceError("no room.\n  Make some"), "no room. Make some", ""),
    ],
)
def test_a_check_that_raises_is_a_problem_itself(error, found, remedy):
    def check():
        yield ok("first", "x")
        raise error

    first, broken = guarded("thing", check)
    assert first.level == "ok"
    assert (broken.level, broken.name) == ("problem", "thing")
    assert found in broken.found
    assert broken.remedy.startswith(remedy)


def test_missing_data_is_a_problem_and_the_sample_a_warning(tmp_path, tiny_data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [finding.level for folder in (str(tiny_data), "auto", "nowhere") for finding in check_data(folder)] == [
        "ok",
        "warning",
        "problem",
    ]


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Replace the checks that are slow or that depend on this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(libraries, "check_libraries", lambda: [ok("libraries", "all")])
    monkeypatch.setattr(devices, "check_devices", lambda: [ok("CPU", "trains")])
    monkeypatch.setattr(cluster, "check_ray", lambda settings: [ok("Ray", f"at {settings.address or 'home'}")])
    for name in ("memory", "shared_memory", "cores"):
        monkeypatch.setattr(examine.machine, f"check_{name}", lambda *given, name=name: [ok(name, "enough")])


def test_everything_is_printed_in_order_or_as_json(quick):
    lines, text = [], []
    examine.examine(lines.append)
    examine.examine(text.append, as_json=True)
    findings = json.loads(text[0])
    assert [finding["name"] for finding in findings][:2] == ["Python", "libraries"]
    assert [line.split()[0] for line in lines[:-1]] == [finding["level"] for finding in findings]
    assert lines[-1].endswith("1 warning: a search can be started")


def test_a_cluster_is_checked_if_its_address_is_given(quick):
    lines = []
    examine.examine(lines.append, address="10.0.0.1:6379")
    assert any(line.endswith("at 10.0.0.1:6379") for line in lines)
    # Its nodes have their own shared memory.
    assert not any("shared_memory" in line for line in lines)


def test_an_invalid_configuration_is_a_problem_and_the_other_checks_still_run(quick, tmp_path):
    config = tmp_path / "my.toml"
    config.write_text("sed = 1")
    lines = []
    with pytest.raises(ResourceError, match=r"2 problems \(settings, Ray\)"):
        examine.examine(lines.append, config=config)
    assert any("sed: no such setting" in line for line in lines)
    assert any(line.startswith("ok       CPU") for line in lines)


WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from digit_search import cli
sys.exit(cli.main(["doctor"]))
"""


def test_it_works_without_any_library(tmp_path):
    missing = {"torch", "torchvision", "ray", "optuna", "pydantic", "numpy", "pandas", "pyarrow", "psutil", "tomli_w", "matplotlib"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(missing=missing)],
        cwd=ROOT,
        capture_output=True,
        check=False,
        env={"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "cp1252", "HOME": str(tmp_path)},
    )
    out, err = done.stdout.decode("cp1252"), done.stderr.decode("cp1252")
    assert done.returncode == 2, err
    assert "Traceback" not in out + err
    for name in ("torch", "ray", "pydantic", "settings", "devices"):
        line = next(line for line in out.splitlines() if line.startswith(f"problem  {name} "))
        assert "No module named" in line
    assert "pip install -r requirements.txt" in out
    assert "ok       Python" in out
    assert err.startswith("error: ")
    assert "the remedies are above" in err


@pytest.mark.ray
def test_the_command_checks_this_machine_and_starts_ray_for_real(tmp_path):
    done = subprocess.run(
        [sys.executable, "tune_main.py", "doctor", "--results", tmp_path / "results"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stdout + done.stderr
    assert "ok       Ray                2.60.0, starts and stops on this machine; 1 node" in done.stdout, done.stdout
    assert "ok       CPU                trains in float32" in done.stdout
    # This machine may really have a problem, such as a full disk.
    assert done.returncode == (2 if "\nproblem" in done.stdout else 0), done.stderr
    assert not (tmp_path / "results").exists()
