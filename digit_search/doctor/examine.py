"""All checks in order, each told as soon as it is known."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from digit_search.doctor import cluster, devices, libraries, machine
from digit_search.doctor.finding import OK, PROBLEM, WARNING, Finding, guarded, ok, problem, warning
from digit_search.errors import ResourceError

NAME_WIDTH = 18


@dataclass(frozen=True)
class DoctorOptions:
    """What a run would be given; None where that was not said."""

    address: str | None = None
    data: str | None = None
    config: Path | None = None
    results: str = "results"


def examine(wishes: DoctorOptions, say: Callable[[str], None], *, as_json: bool = False) -> None:
    """Tell what is there, with the remedy where something is missing.

    Raises:
        ResourceError: if there is a problem, after all has been told.
    """
    findings: list[Finding] = []
    for finding in all_findings(wishes):
        findings.append(finding)
        if not as_json:
            say(line_of(finding))
    if as_json:
        say(json.dumps([asdict(finding) for finding in findings], indent=2))
    conclude(findings, (lambda text: None) if as_json else say)


def conclude(findings: Sequence[Finding], say: Callable[[str], None]) -> None:
    """The last line; an error where something will fail."""
    numbers = {level: sum(finding.level == level for finding in findings) for level in (OK, WARNING, PROBLEM)}
    warnings, problems = (f"{numbers[level]} {level}{'' if numbers[level] == 1 else 's'}" for level in (WARNING, PROBLEM))
    if numbers[PROBLEM]:
        names = ", ".join(finding.name for finding in findings if finding.level == PROBLEM)
        raise ResourceError(f"{problems} ({names}) and {warnings}; the remedies are above")
    say(f"{numbers[OK]} ok, {warnings}: a search can be started")


def line_of(finding: Finding) -> str:
    """One aligned line, and one more for the remedy; plain ASCII but for what others named."""
    line = f"{finding.level:<8} {finding.name:<{NAME_WIDTH}} {finding.found}"
    return f"{line}\n{'':<{NAME_WIDTH + 9}} -> {finding.remedy}" if finding.remedy else line


def all_findings(wishes: DoctorOptions) -> Iterator[Finding]:
    """Quick ones first; Ray last, which takes seconds to start."""
    settings, found = read_settings(wishes)
    ray = settings.ray if settings else None
    yield from guarded("Python", machine.check_python)
    yield from guarded("libraries", libraries.check_libraries)
    yield from guarded("Ray's dashboard", libraries.check_dashboard)
    yield from guarded("optional programs", libraries.check_optional)
    yield from found
    yield from guarded("cores", machine.check_cores)
    yield from guarded("memory", machine.check_memory)
    if not (ray and ray.address):
        # A cluster's nodes have their own.
        yield from guarded("/dev/shm", lambda: machine.check_shared_memory(ray.object_store_mib if ray else 256))
    yield from guarded("open files", machine.check_open_files)
    yield from guarded("results", lambda: machine.check_results(wishes.results))
    yield from guarded("temporary files", machine.check_temporary)
    yield from guarded("data", lambda: check_data(settings.data.dir if settings else "auto"))
    yield from guarded("devices", devices.check_devices)
    if ray:
        yield from guarded("Ray", lambda: cluster.check_ray(ray))
    else:
        yield problem("Ray", "not tried, since the settings cannot be read", "see above")


def read_settings(wishes: DoctorOptions) -> tuple[Any, list[Finding]]:
    """The run's settings, None where they cannot be read, and what is to be said of that."""

    def read() -> Iterator[Finding]:
        from digit_search.config.loading import load_settings
        from digit_search.errors import ConfigError

        try:
            read.settings = load_settings(wishes.config, flags={"ray.address": wishes.address, "data.dir": wishes.data})
        except ConfigError as error:
            yield problem("settings", " ".join(str(error).split()), "mend the configuration; configs/default.toml shows every setting")
        else:
            if wishes.config:
                yield ok("settings", str(wishes.config))

    read.settings = None
    found = list(guarded("settings", read))
    return read.settings, found


def check_data(folder: str) -> Iterator[Finding]:
    """Whether the digits are there; what is in them is read by the run itself, within seconds."""
    from digit_search.data.source import find_digits
    from digit_search.errors import DataError

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
