"""What a run was made with: versions, hardware, seed, commit, data."""

import importlib.metadata
import ipaddress
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

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
    """Of ourselves, Python and the libraries whose versions can change a result."""
    versions = {"digit_search": __version__, "python": platform.python_version()}
    return versions | {name: importlib.metadata.version(name) for name in LIBRARIES}


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip() for line in cpuinfo.read_text(errors="replace").splitlines() if line.startswith("model name")
        ]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_dashboard_host(settings: RaySettings) -> None:
    """See that a dashboard which others can reach asks for Ray's token: it runs whatever it is sent. Ray 2.60 asks unless told not to.

    Raises:
        ResourceError: if it would not.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if settings.dashboard and not settings.address and not _is_loopback(settings.dashboard_host) and mode.lower() != "token":
        raise ResourceError(
            f"ray.dashboard_host {settings.dashboard_host}: expected 127.0.0.1 without Ray's token authentication, which "
            f"RAY_AUTH_MODE={mode} turns off: anybody in reach could run programs here. "
            "Unset RAY_AUTH_MODE, or leave the dashboard on 127.0.0.1"
        )


def _commit() -> str:
    """The commit that this code was checked out at, "" where there is none."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def describe_environment(settings: RunSettings, digits: Digits, split: RowSplit) -> str:
    """environment.json of a run."""
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


def recorded_surroundings(path: Path) -> tuple[tuple[str, str], dict[str, str]]:
    """The fingerprints of train.csv and test.csv, and the versions, that a run began with.

    Raises:
        RunFolderError: if they cannot be read.
    """
    try:
        begun = parse_json(read_bounded(path, MAX_JSON_BYTES))
        return (begun["data"]["train_fingerprint"], begun["data"]["test_fingerprint"]), dict(begun["versions"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path}: expected the surroundings that the run began with, found none that can be read ({error})") from error


CHANGEABLE = ("ray", "resources.workers", "data.dir", "data.max_csv_bytes", "search.warm_start")
CHANGEABLE += ("search.max_failures", "search.trial_timeout", "search.time_budget")
"""Settings that change no result of a run that has begun, so that it may go on with others: fewer workers where memory was short."""


def check_same_settings(path: Path, settings: RunSettings) -> None:
    """See that a run's config.toml says what it said when the run began.

    Raises:
        RunFolderError: naming each difference.
    """
    try:
        begun = parse_json(read_bounded(path, MAX_JSON_BYTES)).get("settings", {})
    except (OSError, ValueError, AttributeError) as error:
        raise RunFolderError(f"{path}: expected the surroundings that the run began with, found none that can be read ({error})") from error
    if changed := _changed_settings(begun, to_tree(settings)):
        raise RunFolderError(
            f"{path.with_name('config.toml')}: expected the settings that the run began with, found others: {'; '.join(changed)}. "
            "Change them back, or begin a new run."
        )


def _changed_settings(begun: Any, now: Any, key: str = "") -> list[str]:
    """The settings that differ, with both values. One that the run began without came with a later version and is left out."""
    if key in CHANGEABLE:
        return []
    if isinstance(begun, dict) and isinstance(now, dict) and key != "search.space":
        names = [name for name in begun if name in now]
        return [line for name in names for line in _changed_settings(begun[name], now[name], f"{key}.{name}".lstrip("."))]
    return [] if begun == now else [f"{key} was {begun} and is {now}"]


def check_same_run(path: Path, digits: Digits, *, force: bool) -> None:
    """See that a run goes on with the data and, unless `force`, the library versions that it began with.

    Raises:
        RunFolderError: naming each difference.
    """
    fingerprints, versions = recorded_surroundings(path)
    for name, before, now in zip(("train", "test"), fingerprints, (digits.train_fingerprint, digits.test_fingerprint), strict=True):
        if before != now:
            raise RunFolderError(
                f"{digits.source.folder}: expected the {name}.csv that the run began with, found another "
                f"(fingerprint {now[:12]} instead of {str(before)[:12]}); put the old file back, or begin a new run"
            )
    current = library_versions()
    changed = [f"{name} {versions.get(name)} is now {current[name]}" for name in current if versions.get(name) != current[name]]
    if changed and not force:
        raise RunFolderError(f"{path}: the run began with other versions: {', '.join(changed)}. Install those again, or add --force.")
