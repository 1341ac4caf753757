"""Everything that a run's folder tells, read tolerantly: a report must also come out of a run that was cut off."""

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
    """The files of a run, parsed."""

    folder: RunFolder
    settings: RunSettings = field(default_factory=RunSettings)
    """The defaults where config.toml could not be read; `gaps` then says so."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    state: RunState = field(default_factory=RunState)
    predictions: Predictions | None = None
    gaps: tuple[str, ...] = ()
    """What could not be read, and what that means for the report."""

    @property
    def rank_by(self) -> str:
        return self.settings.search.rank_by

    def section(self, name: str) -> Mapping[str, Any]:
        """A table of environment.json; an empty one where it is missing or no table."""
        value = self.environment.get(name)
        return value if isinstance(value, Mapping) else {}

    @property
    def num_validation(self) -> int | None:
        """The digits that every trial was validated on, None where no file tells."""
        told = self.section("split").get("num_validation")
        if isinstance(told, int) and told > 0:
            return told
        return self.state.retraining.num_validation if self.state.retraining else None


def load_trials(folder: RunFolder) -> tuple[RunState, str]:
    """Read what the tables need: the history (empty before the first event) and the metric that trials are ranked by.

    Raises:
        RunFolderError: if events.jsonl is broken.
    """
    settings, _ = _load_settings(folder)
    return _load_state(folder)[0], settings.search.rank_by


def load_run_data(folder: RunFolder) -> RunData:
    """Read all files of the run.

    Raises:
        RunFolderError: if events.jsonl is there but broken: it is the truth that everything else is made from.
    """
    settings, settings_gap = _load_settings(folder)
    environment, environment_gap = _load_environment(folder)
    state, state_gap = _load_state(folder)
    predictions, predictions_gap = _load_predictions(folder)
    gaps = tuple(gap for gap in (settings_gap, environment_gap, state_gap, predictions_gap) if gap)
    return RunData(folder, settings, environment, state, predictions, gaps)


def _load_settings(folder: RunFolder) -> tuple[RunSettings, str]:
    try:
        return load_settings(folder.config), ""
    except ConfigError as error:
        return RunSettings(), f"config.toml could not be read, so the default settings are taken for this report ({error})"


def _load_environment(folder: RunFolder) -> tuple[Mapping[str, Any], str]:
    try:
        environment = parse_json(read_bounded(folder.environment, MAX_JSON_BYTES))
    except FileNotFoundError:
        return {}, "environment.json is missing: versions, hardware and the size of the validation set are unknown"
    except (OSError, ValueError) as error:
        return {}, f"environment.json could not be read ({error}): versions, hardware and the size of the validation set are unknown"
    return (environment, "") if isinstance(environment, dict) else ({}, "environment.json holds no JSON object, so nothing of it is shown")


def _load_state(folder: RunFolder) -> tuple[RunState, str]:
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
