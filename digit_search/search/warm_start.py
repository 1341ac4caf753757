"""What a search learns from before its first trial: the finished trials of earlier runs, where these are comparable."""

from collections.abc import Callable
from dataclasses import asdict

from digit_search.config.loading import load_settings, to_tree
from digit_search.config.settings import RunSettings, baseline_params
from digit_search.errors import ConfigError, RunFolderError
from digit_search.records import EarlierTrial, TrialStatus
from digit_search.run.environment import recorded_environment
from digit_search.run.layout import RunFolder
from digit_search.run.state import load_state
from digit_search.storage.locate import Results, reading


def load_warm_start(
    settings: RunSettings, results: Results, train_fingerprint: str, say: Callable[[str], None]
) -> tuple[RunSettings, list[EarlierTrial]]:
    """Read the finished trials of the runs that the new run's settings name.

    Returns the settings with these runs' folders, and the trials. Runs are found by their names in `results`; `train_fingerprint` is that
    of the new run's train.csv.

    Raises:
        UserError: if a run is not there, cannot be compared with this one, is named twice or has no finished trial.
    """
    trials: list[EarlierTrial] = []
    paths: list[str] = []
    for name in settings.search.warm_start:
        with reading(name, results) as folder:
            if folder.location in paths:
                raise ConfigError(f"--warm-start {name}: expected each run once, found it twice")
            _check_comparable(settings, folder, train_fingerprint)
            run = folder.path.resolve().name
            found = [
                EarlierTrial(run, record)
                for record in load_state(folder.events).trials
                if record.status in (TrialStatus.COMPLETED, TrialStatus.STOPPED)
            ]
        if not found:
            raise RunFolderError(
                f"--warm-start {name}: expected a run with finished trials, found none in {folder.display_path(folder.events)}"
            )
        say(f"warm start: {len(found)} finished trial{'s' if len(found) > 1 else ''} of {folder.display_path()}")
        trials += found
        paths.append(folder.location)
    search = settings.search.model_copy(update={"warm_start": paths})
    return settings.model_copy(update={"search": search}), trials


def _check_comparable(settings: RunSettings, folder: RunFolder, train_fingerprint: str) -> None:
    there = recorded_environment(folder.environment).train_fingerprint
    if there != train_fingerprint:
        raise RunFolderError(
            f"--warm-start {folder.display_path()}: expected a run on the same train.csv, found one on another "
            f"(fingerprint {str(there)[:12]} instead of {train_fingerprint[:12]})"
        )
    if different := _differences(settings, load_settings(folder.config)):
        raise RunFolderError(
            f"--warm-start {folder.display_path()}: expected a run whose scores can be compared with this one's, found other settings:\n  "
            + "\n  ".join(different)
        )


def _differences(here: RunSettings, there: RunSettings) -> list[str]:
    """The settings because of which the trials of the two runs cannot be compared, one a line."""
    mine, others = _what_scores_depend_on(here), _what_scores_depend_on(there)
    return [
        f"{name}: {others.get(name, 'not set')} there, {mine.get(name, 'not set')} here"
        for name in mine | others
        if mine.get(name) != others.get(name)
    ]


def _what_scores_depend_on(settings: RunSettings) -> dict[str, object]:
    """By dotted name. The seed may differ, and so may max_epochs, because the first part of a curve is that of a shorter trial."""
    space = to_tree(settings)["search"]["space"]
    fixed = {name: value for name, value in asdict(baseline_params(settings.training)).items() if name not in space}
    return {
        "data.validation_fraction": settings.data.validation_fraction,
        "training.ema_half_life_epochs": settings.training.ema_half_life_epochs,
        "search.reports_per_epoch": settings.search.reports_per_epoch,
        **{f"search.space.{name}": value for name, value in space.items()},
        **{f"training.{name}": value for name, value in fixed.items()},
    }
