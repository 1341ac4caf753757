"""environment.json: the versions, hardware, seed, commit and data of a run; and the checks that a resumed run still has the same ones."""

import importlib.metadata
import ipaddress
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from digit_search import __version__
from digit_search.config.loading import to_tree
from digit_search.config.settings import RaySettings, RunSettings
from digit_search.data.load import Digits
from digit_search.data.split import RowSplit
from digit_search.errors import ResourceError, RunFolderError
from digit_search.files.bounded_io import MAX_JSON_BYTES, parse_json, read_bounded
from digit_search.machine_limits import usable_cores

LIBRARIES = ("torch", "torchvision", "ray", "optuna", "pandas", "pyarrow", "numpy", "matplotlib", "pydantic")


def library_versions() -> dict[str, str]:
    """Of this package, of Python, and of the libraries whose version can change a result."""
    versions = {"digit_search": __version__, "python": platform.python_version()}
    return versions | {name: importlib.metadata.version(name) for name in LIBRARIES}


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_dashboard_host(settings: RaySettings) -> None:
    """Raise ResourceError if other machines can reach the dashboard without Ray's token: it runs any program that is sent to it.

    Ray 2.60 requires the token, unless the environment turns that off.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if settings.dashboard and not settings.address and not _is_loopback(settings.dashboard_host) and mode.lower() != "token":
        raise ResourceError(
            f"ray.dashboard_host {settings.dashboard_host}: expected 127.0.0.1 without Ray's token authentication, which "
            f"RAY_AUTH_MODE={mode} turns off: anybody who reaches it could run programs here. "
            "Unset RAY_AUTH_MODE, or leave the dashboard on 127.0.0.1"
        )


def _commit() -> str:
    """The commit of this code; "" outside a git repository."""
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def describe_environment(settings: RunSettings, digits: Digits, split: RowSplit) -> str:
    """The content of a run's environment.json."""
    values: dict[str, Any] = {
        "versions": library_versions(),
        "hardware": {
            "system": platform.platform(),
            "cpu": _processor(),
            "cores": usable_cores(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        },
        "seed": settings.seed,
        "settings": to_tree(settings),
        "commit": _commit(),
        "data": {
            "folder": str(digits.source.folder),
            "embedded": digits.source.embedded,
            "train_fingerprint": digits.train_fingerprint,
            "test_fingerprint": digits.test_fingerprint,
            "num_train_rows": digits.train.num_rows,
            "num_test_rows": digits.test.num_rows,
        },
        "split": {"num_train": len(split.train), "num_validation": len(split.validation)},
    }
    return json.dumps(values, indent=2) + "\n"


class RecordedEnvironment(NamedTuple):
    """What a run that has begun must still have when it is resumed."""

    train_fingerprint: str
    test_fingerprint: str
    versions: Mapping[str, str]
    settings: Any
    """A tree as `to_tree` makes it; {} for a run of a version that did not record it."""


def recorded_environment(path: Path) -> RecordedEnvironment:
    """Read environment.json. Raises RunFolderError if it cannot be read."""
    try:
        content = parse_json(read_bounded(path, MAX_JSON_BYTES))
        data, versions, settings = content["data"], dict(content["versions"]), content.get("settings", {})
        return RecordedEnvironment(data["train_fingerprint"], data["test_fingerprint"], versions, settings)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(f"{path}: expected the environment in which the run began, found none that can be read ({error})") from error


CHANGEABLE = frozenset(
    {
        "ray",
        "resources.workers",
        "data.dir",
        "data.max_csv_bytes",
        "search.warm_start",
        "search.max_failures",
        "search.trial_timeout",
        "search.time_budget",
    }
)
"""Settings that may be changed before a run is resumed, since they do not change its result."""


def check_same_settings(path: Path, settings: RunSettings) -> None:
    """Raise RunFolderError, with each difference, unless a run's config.toml has the settings with which the run began."""
    if changed := _changed_settings(recorded_environment(path).settings, to_tree(settings)):
        raise RunFolderError(
            f"{path.with_name('config.toml')}: expected the settings that the run began with, found others: {'; '.join(changed)}. "
            "Change them back, or start a new run."
        )


def _changed_settings(recorded: Any, current: Any, key: str = "") -> list[str]:
    """The settings that differ, with both values. A setting that the run did not record is from a later version, and is ignored."""
    if key in CHANGEABLE:
        return []
    if isinstance(recorded, dict) and isinstance(current, dict) and key != "search.space":
        names = [name for name in recorded if name in current]
        return [line for name in names for line in _changed_settings(recorded[name], current[name], f"{key}.{name}".lstrip("."))]
    return [] if recorded == current else [f"{key} was {recorded} and is {current}"]


def check_same_run(path: Path, digits: Digits, *, force: bool) -> None:
    """Raise RunFolderError unless a run is resumed with the data and, unless `force`, the library versions with which it began."""
    recorded = recorded_environment(path)
    fingerprints = {
        "train": (recorded.train_fingerprint, digits.train_fingerprint),
        "test": (recorded.test_fingerprint, digits.test_fingerprint),
    }
    for name, (before, now) in fingerprints.items():
        if before != now:
            raise RunFolderError(
                f"{digits.source.folder}: expected the {name}.csv that the run began with, found another one "
                f"(fingerprint {now[:12]} instead of {str(before)[:12]}); put the old file back, or start a new run"
            )
    changed = [
        f"{name} {recorded.versions.get(name)} is now {version}"
        for name, version in library_versions().items()
        if recorded.versions.get(name) != version
    ]
    if changed and not force:
        raise RunFolderError(f"{path}: the run began with other versions: {', '.join(changed)}. Install those again, or add --force.")
