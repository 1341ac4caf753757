"""What the doctor says about machines, most of them made up."""

from types import SimpleNamespace

import pytest

from digit_search.doctor.machine import (
    GIB,
    MIB,
    check_cores,
    check_memory,
    check_python,
    check_results,
    check_shared_memory,
)


def disk(free, total=100 * GIB):
    return lambda folder: SimpleNamespace(free=free, total=total, used=total - free)


def only(findings):
    (finding,) = findings
    return finding


@pytest.mark.parametrize(("version", "level"), [((3, 10, 14), "problem"), ((3, 11, 0), "ok"), ((3, 14, 1), "ok")])
def test_python_below_3_11_is_a_problem(version, level):
    finding = only(check_python(version))
    assert (finding.level, "3.11 or newer" in finding.remedy) == (level, level == "problem")


@pytest.mark.parametrize(
    ("cores", "machine", "level", "found"),
    [
        (8, 8, "ok", "8"),
        (1.5, 8, "ok", "1.5 of the machine's 8, as a container"),
        (1, 8, "ok", "1 of the machine's 8"),
        (0.5, 8, "warning", "allows less than one"),
    ],
)
def test_only_cores_that_may_be_used_are_counted(cores, machine, level, found):
    finding = only(check_cores(cores, machine))
    assert finding.level == level
    assert found in finding.found


@pytest.mark.parametrize(
    ("total", "limit", "cores", "level", "text"),
    [
        (24 * GIB, 0, 8, "ok", "24.0 GiB"),
        (24 * GIB, 8 * GIB, 8, "ok", "8.0 GiB allowed by a container or service, of 24.0"),
        (24 * GIB, 32 * GIB, 8, "ok", "24.0 GiB"),
        (4 * GIB, 0, 8, "warning", "--workers 3"),
        (64 * GIB, 3 * GIB, 8, "warning", "--workers 2"),
        (64 * GIB, 1 * GIB, 8, "problem", "needs 2.0 GiB with one trial at a time"),
        (0, 0, 8, "ok", "unknown"),
    ],
)
def test_memory_must_hold_one_trial_per_core(total, limit, cores, level, text):
    finding = only(check_memory(total, limit, cores))
    assert finding.level == level
    assert text in f"{finding.found} {finding.remedy}"


@pytest.mark.parametrize(("free", "level"), [(256 * MIB - 1, "warning"), (256 * MIB, "ok")])
def test_shared_memory_must_hold_rays_object_store(tmp_path, free, level):
    finding = only(check_shared_memory(256, tmp_path, disk(free)))
    assert finding.level == level
    assert "ray.object_store_mib is 256" in finding.found
    assert ("--shm-size=512m" in finding.remedy) is (level == "warning")


@pytest.mark.parametrize(("free", "level"), [(499 * MIB, "problem"), (500 * MIB, "warning"), (1500 * MIB, "ok")])
def test_a_run_must_fit_on_the_disk_of_the_results(tmp_path, free, level):
    finding = only(check_results(str(tmp_path / "results" / "deeper"), disk(free)))
    assert finding.level == level
    assert ("--results" in finding.remedy) is (level == "problem")
    assert list(tmp_path.iterdir()) == []


def test_results_that_are_a_file_or_cannot_be_written_are_a_problem(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    assert only(check_results(str(tmp_path / "file"))).level == "problem"

    def refuse(**given):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("digit_search.doctor.machine.tempfile.TemporaryFile", refuse)
    finding = only(check_results(str(tmp_path)))
    assert (finding.level, finding.found) == ("problem", f"{tmp_path} cannot be written: Permission denied")


def test_a_file_is_written_to_the_store_for_results_and_deleted_again(tmp_path):
    finding = only(check_results(f"file://{tmp_path}/runs"))
    assert (finding.level, "can be written, read and deleted" in finding.found) == ("ok", True)
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_store_that_cannot_be_written_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr("digit_search.files.object_store.RETRY_PAUSES_SECONDS", ())
    (tmp_path / "file").touch()
    finding = only(check_results(f"file://{tmp_path}/file/runs"))
    assert (finding.level, "cannot be written" in finding.found) == ("problem", True)
