"""The libraries that requirements.txt pins: there, at that version, and importable."""

import importlib
import importlib.metadata
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from digit_search.doctor.finding import Finding, ok, one_line, problem, warning

REQUIREMENTS = Path(__file__).parents[2] / "requirements.txt"
INSTALL = "pip install -r requirements.txt"
DASHBOARD_MODULE = "ray.dashboard.optional_deps"
"""Imports all that `ray[default]` brings for the dashboard (Ray 2.60)."""
OPTIONAL = {"optuna-dashboard": "shows the study", "tensorboard": "shows the trials' curves"}


def pinned_versions(path: Path = REQUIREMENTS) -> dict[str, str]:
    """Names and versions of `name[extras]==version` lines."""
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?==(\S+)", path.read_text(), flags=re.MULTILINE))


def installed_version(name: str) -> str | None:
    """None where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_libraries(
    requirements: Path = REQUIREMENTS,
    installed: Callable[[str], str | None] = installed_version,
    load: Callable[[str], object] = importlib.import_module,
) -> Iterator[Finding]:
    """Each is imported: one that is installed and broken is found only so."""
    try:
        pinned = pinned_versions(requirements)
    except OSError as error:
        found = f"{requirements.name} cannot be read ({error.strerror}), so versions are not compared"
        yield warning("libraries", found, "restore that file")
        return
    found = [finding for name, version in pinned.items() for finding in _check_library(name, version, installed(name), load)]
    yield from found
    right = [f"{name} {version}" for name, version in pinned.items() if name not in {finding.name for finding in found}]
    if right:
        yield ok("libraries", f"{len(right)} of {len(pinned)} as pinned: {', '.join(right)}")


def _check_library(name: str, wanted: str, has: str | None, load: Callable[[str], object]) -> Iterator[Finding]:
    if has is None:
        yield problem(name, f"not installed; expected {wanted}", INSTALL)
        return
    try:
        load(name)
    except Exception as error:  # noqa: BLE001
        # A library that was built for another one, or for another machine, raises anything.
        yield problem(name, f"{has} cannot be imported: {one_line(error)}", f"pip install --force-reinstall {name}=={wanted}")
        return
    # A build for a certain CUDA, such as 2.14.1+cu130, is the same version.
    if has.partition("+")[0] != wanted:
        yield warning(name, f"{has}; this project is tested with {wanted}", INSTALL)


def check_dashboard(load: Callable[[str], object] = importlib.import_module) -> Iterator[Finding]:
    """Ray's dashboard needs what `ray[default]` brings and `ray` alone does not."""
    try:
        load(DASHBOARD_MODULE)
    except Exception as error:  # noqa: BLE001
        remedy = "pip install -r requirements.txt (it wants ray[default]), or run with --no-dashboard"
        yield warning("Ray's dashboard", f"cannot start: {one_line(error)}", remedy)
    else:
        yield ok("Ray's dashboard", "its packages are there")


def check_optional(installed: Callable[[str], str | None] = installed_version) -> Iterator[Finding]:
    """Programs that a run does without."""
    for name, use in OPTIONAL.items():
        version = installed(name)
        yield ok(name, version or f"not installed; it {use}, and no run needs it")
