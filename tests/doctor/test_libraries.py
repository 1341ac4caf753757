"""Libraries that are missing, of another version, or broken."""

import pytest

from digit_search.doctor import libraries
from digit_search.doctor.libraries import REQUIREMENTS, check_dashboard, check_libraries, dashboard_packages, pinned_versions


@pytest.fixture
def check(tmp_path, monkeypatch):
    path = tmp_path / "requirements.txt"
    path.write_text("torch==2.14.1\nray[default,tune]==2.60.0\n")

    def check(installed, broken=()):
        def load(name):
            if name in broken:
                raise OSError("libcudart.so.13: cannot open shared object file")

        with monkeypatch.context() as patch:
            patch.setattr(libraries, "installed_version", installed.get)
            patch.setattr(libraries.importlib, "import_module", load)
            return list(check_libraries(path))

    return check


def test_every_line_of_our_requirements_is_read():
    pinned = pinned_versions()
    assert len(pinned) == len(REQUIREMENTS.read_text().splitlines())
    assert "ray" in pinned


def test_a_build_for_cuda_counts_as_the_pinned_version(check):
    (finding,) = check({"torch": "2.14.1+cu130", "ray": "2.60.0"})
    assert (finding.level, finding.found) == ("ok", "2 of 2 as pinned: torch 2.14.1, ray 2.60.0")


def test_a_missing_library_is_a_problem_that_hides_no_other(check):
    missing, rest = check({"ray": "2.60.0"})
    assert (missing.level, missing.name, missing.found) == ("problem", "torch", "not installed; expected 2.14.1")
    assert missing.remedy == "pip install -r requirements.txt"
    assert (rest.level, rest.found) == ("ok", "1 of 2 as pinned: ray 2.60.0")


def test_a_different_version_is_a_warning(check):
    other, _ = check({"torch": "2.14.1", "ray": "2.59.0"})
    assert (other.level, other.name, other.found) == ("warning", "ray", "2.59.0; this project is tested with 2.60.0")


def test_a_library_that_cannot_be_imported_is_a_problem(check):
    broken, _ = check({"torch": "2.14.1", "ray": "2.60.0"}, broken={"torch"})
    assert (broken.level, broken.name) == ("problem", "torch")
    assert "cannot be imported: OSError: libcudart.so.13" in broken.found
    assert broken.remedy == "pip install --force-reinstall torch==2.14.1"


def test_a_missing_requirements_file_is_a_warning(tmp_path):
    (finding,) = check_libraries(tmp_path / "requirements.txt")
    assert (finding.level, "versions are not compared" in finding.found) == ("warning", True)


def test_a_ray_without_the_packages_of_its_dashboard_is_a_warning(monkeypatch):
    monkeypatch.setattr(libraries, "dashboard_packages", lambda: ["aiohttp", "aiohttp_cors"])
    monkeypatch.setattr(libraries, "installed_version", {"aiohttp": "3.14.4"}.get)
    (finding,) = check_dashboard()
    assert (finding.level, finding.found) == ("warning", "cannot start, because these packages are not installed: aiohttp_cors")
    assert "--no-dashboard" in finding.remedy


def test_the_packages_of_the_dashboard_are_those_of_ray_default_and_are_installed():
    packages = dashboard_packages()
    assert {"aiohttp", "aiohttp_cors", "prometheus_client"} <= set(packages)
    assert "click" not in packages, "ray needs it without the dashboard"
    assert "tensorboardX" not in packages, "ray[tune] needs it"
    (finding,) = check_dashboard()
    assert finding.level == "ok"
