"""Reads the files of a run. Most of them may be missing or broken, because an interrupted run must get a report too."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from digit_search.config.loading import load_settings
from digit_search.config.settings import RunSettings
from digit_search.errors import ConfigError, DataError
from digit_search.files.bounded_io import MAX_JSON_BYTES, parse_json, read_bounded
from digit_search.report.predictions import Predictions, load_predictions
from digit_search.run.layout import RunFolder
from digit_search.run.state import RunState, load_state


@dataclass(frozen=True, slots=True)
class RunData:
    """The parsed files of a run."""

    folder: RunFolder
    settings: RunSettings = field(default_factory=RunSettings)
    """The defaults where config.toml cannot be read; `gaps` then says so."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    state: RunState = field(default_factory=RunState)
    predictions: Predictions | None = None
    gaps: tuple[str, ...] = ()
    """What could not be read, and what that means for the report."""

    @property
    def rank_by(self) -> str:
        return self.settings.search.rank_by

    def section(self, name: str) -> Mapping[str, Any]:
        """A table of environment.json, empty where it is missing or not a table."""
        value = self.environment.get(name)
        return value if isinstance(value, Mapping) else {}

    @property
    def num_validation(self) -> int | None:
        """How many digits every trial was validated on, None where no file says so."""
        num_validation = self.section("split").get("num_validation")
        if isinstance(num_validation, int) and num_validation > 0:
            return num_validation
        return self.state.retraining.num_validation if self.state.retraining else None


def load_run_data(folder: RunFolder, state: RunState | None = None) -> RunData:
    """Read the files of the run; events.jsonl only where `state` is None.

    Raises:
        RunFolderError: if events.jsonl exists but is broken. Everything else is made from it, so there is no report without it.
    """
    settings, settings_gap = load_run_settings(folder)
    environment, environment_gap = _load_environment(folder)
    state, state_gap = load_run_state(folder) if state is None else (state, "")
    predictions, predictions_gap = _load_predictions(folder)
    gaps = tuple(gap for gap in (settings_gap, environment_gap, state_gap, predictions_gap) if gap)
    return RunData(folder, settings, environment, state, predictions, gaps)


def load_run_settings(folder: RunFolder) -> tuple[RunSettings, str]:
    """The run's settings, or the defaults and what is wrong with config.toml."""
    try:
        return load_settings(folder.config), ""
    except ConfigError as error:
        return RunSettings(), f"config.toml could not be read, so this report uses the default settings ({error})"


def _load_environment(folder: RunFolder) -> tuple[Mapping[str, Any], str]:
    try:
        environment = parse_json(read_bounded(folder.environment, MAX_JSON_BYTES))
    except FileNotFoundError:
        return {}, "environment.json is missing: versions, hardware and the size of the validation set are unknown"
    except (OSError, ValueError) as error:
        return {}, f"environment.json could not be read ({error}): versions, hardware and the size of the validation set are unknown"
    if not isinstance(environment, dict):
        return {}, "environment.json does not hold a JSON object, so nothing of it is shown"
    return environment, ""


def load_run_state(folder: RunFolder) -> tuple[RunState, str]:
    """The run's state, or an empty one and what is wrong where there are no events.

    Raises:
        RunFolderError: if events.jsonl is broken.
    """
    if not folder.events.exists():
        return RunState(), "events.jsonl is missing: no trial of this run is known"
    return load_state(folder.events), ""


def _load_predictions(folder: RunFolder) -> tuple[Predictions | None, str]:
    if not folder.validation.exists():
        return None, ""
    try:
        return load_predictions(folder.validation), ""
    except DataError as error:
        return None, f"The final model's validation predictions are left out: {error}"
