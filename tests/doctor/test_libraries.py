"""Libraries that are missing, of another version, or broken."""

import pytest

from digit_search.doctor.libraries import REQUIREMENTS, check_dashboard, check_libraries, check_optional, pinned_versions


@pytest.fixture
def check(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text("torch==2.14.1\nray[default,tune]==2.60.0\n")

    def check(installed, broken=()):
        def load(name):
            if name in broken:
                raise OSError("libcudart.so.13: cannot open shared object file")

        return list(check_libraries(path, installed.get, load))

    return check


def test_our_requirements_are_all_read():
    pinned = pinned_versions()
    assert len(pinned) == len(REQUIREMENTS.read_text().splitlines())
    assert "ray" in pinned


def test_the_pinned_versions_are_right_whatever_cuda_they_are_built_for(check):
    (finding,) = check({"torch": "2.14.1+cu130", "ray": "2.60.0"})
    assert (finding.level, finding.found) == ("ok", "2 of 2 as pinned: torch 2.14.1, ray 2.60.0")


def test_a_missing_library_is_a_problem_that_hides_no_other(check):
    missing, rest = check({"ray": "2.60.0"})
    assert (missing.level, missing.name, missing.found) == ("problem", "torch", "not installed; expected 2.14.1")
    assert missing.remedy == "pip install -r requirements.txt"
    assert (rest.level, rest.found) == ("ok", "1 of 2 as pinned: ray 2.60.0")


def test_another_version_is_a_warning(check):
    other, _ = check({"torch": "2.14.1", "ray": "2.59.0"})
    assert (other.level, other.name, other.found) == ("warning", "ray", "2.59.0; this project is tested with 2.60.0")


def test_a_library_that_cannot_be_imported_is_a_problem(check):
    broken, _ = check({"torch": "2.14.1", "ray": "2.60.0"}, broken={"torch"})
    assert (broken.level, broken.name) == ("problem", "torch")
    assert "cannot be imported: OSError: libcudart.so.13" in broken.found
    assert broken.remedy == "pip install --force-reinstall torch==2.14.1"


def test_requirements_that_are_not_there_are_a_warning(tmp_path):
    (finding,) = check_libraries(tmp_path / "requirements.txt")
    assert (finding.level, "versions are not compared" in finding.found) == ("warning", True)


def test_a_ray_without_its_dashboard_is_a_warning():
    def load(name):
        raise ModuleNotFoundError("No module named 'aiohttp_cors'")

    (finding,) = check_dashboard(load)
    assert (finding.level, "aiohttp_cors" in finding.found, "--no-dashboard" in finding.remedy) == ("warning", True, True)
    (finding,) = check_dashboard()
    assert finding.level == "ok"


def test_programs_that_a_run_does_without_are_never_missed():
    findings = list(check_optional({"tensorboard": "2.21.0"}.get))
    assert [finding.level for finding in findings] == ["ok", "ok"]
    assert "no run needs it" in findings[0].found
    assert findings[1].found == "2.21.0"
