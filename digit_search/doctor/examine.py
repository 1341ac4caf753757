"""All checks in order, each printed as soon as it is done."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from digit_search.data.source import find_digits
from digit_search.doctor import libraries, machine
from digit_search.doctor.finding import OK, PROBLEM, WARNING, Finding, guarded, ok, problem, problem_of, warning
from digit_search.errors import DataError, ResourceError

if TYPE_CHECKING:
    from digit_search.config.settings import RaySettings, RunSettings

NAME_WIDTH = 18


def examine(
    say: Callable[[str], None],
    *,
    address: str | None = None,
    data: str | None = None,
    config: Path | None = None,
    results: str = "results",
    as_json: bool = False,
) -> None:
    """Print every finding for a run with these options, with the remedy if there is something to fix.

    Raises:
        ResourceError: after all findings, if one of them is a problem.
    """
    settings, about_settings = _read_settings(config, {"ray.address": address, "data.dir": data})
    findings: list[Finding] = []
    for finding in _all_findings(settings, about_settings, results):
        findings.append(finding)
        if not as_json:
            say(line_of(finding))
    if as_json:
        say(json.dumps([asdict(finding) for finding in findings], indent=2))
    summary = conclude(findings)
    if not as_json:
        say(summary)


def conclude(findings: Sequence[Finding]) -> str:
    """The last line.

    Raises:
        ResourceError: if a finding is a problem.
    """
    numbers = {level: sum(finding.level == level for finding in findings) for level in (OK, WARNING, PROBLEM)}
    warnings, problems = (f"{numbers[level]} {level}{'' if numbers[level] == 1 else 's'}" for level in (WARNING, PROBLEM))
    if numbers[PROBLEM]:
        names = ", ".join(finding.name for finding in findings if finding.level == PROBLEM)
        raise ResourceError(f"{problems} ({names}) and {warnings}; the remedies are above")
    return f"{numbers[OK]} ok, {warnings}: a search can be started"


def line_of(finding: Finding) -> str:
    """One aligned line, and a second one for the remedy."""
    line = f"{finding.level:<8} {finding.name:<{NAME_WIDTH}} {finding.found}"
    return f"{line}\n{'':<{NAME_WIDTH + 9}} -> {finding.remedy}" if finding.remedy else line


def _all_findings(settings: "RunSettings | None", about_settings: Sequence[Finding], results: str) -> Iterator[Finding]:
    """Quick checks first; last Ray, which takes seconds to start."""
    ray = settings.ray if settings else None
    yield from guarded("Python", machine.check_python)
    yield from guarded("libraries", libraries.check_libraries)
    yield from guarded("Ray's dashboard", libraries.check_dashboard)
    yield from about_settings
    yield from guarded("cores", machine.check_cores)
    yield from guarded("memory", machine.check_memory)
    if not (ray and ray.address):
        # The nodes of a cluster have their own shared memory.
        yield from guarded("/dev/shm", lambda: machine.check_shared_memory(ray.object_store_mib if ray else 256))
    yield from guarded("results", lambda: machine.check_results(results))
    yield from guarded("data", lambda: check_data(settings.data.dir if settings else "auto"))
    yield from guarded("devices", _check_devices)
    if ray:
        yield from guarded("Ray", lambda: _check_ray(ray))
    else:
        yield problem("Ray", "not tried, because the settings cannot be read", "see above")


def _read_settings(config: Path | None, flags: Mapping[str, str | None]) -> "tuple[RunSettings | None, list[Finding]]":
    """The run's settings, None if they cannot be read, and what to print about them."""
    try:
        from digit_search.config.loading import load_settings

        settings = load_settings(config, flags=flags)
    except Exception as error:  # noqa: BLE001
        # A setting is wrong; or pydantic, or what it needs, is missing or broken.
        return None, [problem_of("settings", error)]
    return settings, [ok("settings", str(config))] if config else []


def check_data(folder: str) -> Iterator[Finding]:
    """Whether the CSV files are there. A run reads them within seconds, so their content is not checked here."""
    try:
        source = find_digits(folder)
    except DataError as error:
        yield problem("data", str(error), "unpack Kaggle's digit-recognizer.zip and name its folder with --data")
        return
    if source.embedded:
        remedy = "put Kaggle's train.csv and test.csv into data/digit-recognizer/, or name their folder with --data"
        yield warning("data", "only the embedded sample of 5,000 digits", remedy)
    else:
        yield ok("data", f"{source.train}, {source.test}")


# These two need libraries that may be missing or broken. They are imported inside the check, so that this becomes a finding.


def _check_devices() -> Iterator[Finding]:
    from digit_search.doctor.devices import check_devices

    yield from check_devices()


def _check_ray(settings: "RaySettings") -> Iterator[Finding]:
    from digit_search.doctor.cluster import check_ray

    yield from check_ray(settings)
