"""The libraries in requirements.txt: whether each is installed, in that version, and can be imported."""

import importlib
import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path

from digit_search.doctor.finding import Finding, ok, one_line, problem, warning

REQUIREMENTS = Path(__file__).parents[2] / "requirements.txt"
INSTALL = "pip install -r requirements.txt"


def pinned_versions(path: Path = REQUIREMENTS) -> dict[str, str]:
    """Names and versions of the lines `name[extras]==version`."""
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?==(\S+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE))


def installed_version(name: str) -> str | None:
    """None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def without_build(version: str) -> str:
    """Builds of one version for different CUDAs, such as 2.14.1+cu130, are the same version."""
    return version.partition("+")[0]


def check_libraries(requirements: Path = REQUIREMENTS) -> Iterator[Finding]:
    """Import each library: nothing else finds one that is installed but broken."""
    try:
        pinned = pinned_versions(requirements)
    except OSError as error:
        found = f"{requirements.name} cannot be read ({error.strerror}), so versions are not compared"
        yield warning("libraries", found, "restore that file")
        return
    as_pinned = []
    for name, version in pinned.items():
        if finding := _check_library(name, version):
            yield finding
        else:
            as_pinned.append(f"{name} {version}")
    if as_pinned:
        yield ok("libraries", f"{len(as_pinned)} of {len(pinned)} as pinned: {', '.join(as_pinned)}")


def _check_library(name: str, expected: str) -> Finding | None:
    """None if it is as expected."""
    version = installed_version(name)
    if version is None:
        return problem(name, f"not installed; expected {expected}", INSTALL)
    try:
        importlib.import_module(name)
    except Exception as error:  # noqa: BLE001
        # A library built for another machine, or for another version of a library, raises anything.
        return problem(name, f"{version} cannot be imported: {one_line(error)}", f"pip install --force-reinstall {name}=={expected}")
    if without_build(version) != expected:
        return warning(name, f"{version}; this project is tested with {expected}", INSTALL)
    return None


def dashboard_packages() -> list[str]:
    """What ray[default] adds to ray for its dashboard, on this Python and system.

    Raises:
        PackageNotFoundError: if Ray is not installed.
    """
    from packaging.requirements import Requirement

    requirements = [Requirement(line) for line in importlib.metadata.requires("ray") or []]
    return [
        requirement.name
        for requirement in requirements
        if requirement.marker and requirement.marker.evaluate({"extra": "default"}) and not requirement.marker.evaluate({"extra": ""})
    ]


def check_dashboard() -> Iterator[Finding]:
    """Whether Ray's dashboard can start."""
    missing = [name for name in dashboard_packages() if installed_version(name) is None]
    if missing:
        remedy = "pip install -r requirements.txt, which names ray[default], or run with --no-dashboard"
        yield warning("Ray's dashboard", f"cannot start, because these packages are not installed: {', '.join(missing)}", remedy)
    else:
        yield ok("Ray's dashboard", "its packages are installed")
