"""Every setting: its name, type, range and default. Nothing else opens a configuration file.

`load_settings` merges, from weak to strong: the defaults below, a TOML file, `--set` assignments, flags; then it validates once and tells
all problems together.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from digit_search.config.messages import problem_lines
from digit_search.config.search_space import (
    Dimension,
    ParamValue,
    Settings,
    check_value,
    default_space,
    dimension_model,
    dimension_problems,
)
from digit_search.errors import ConfigError
from digit_search.files.bounded_io import is_nested_beyond, parse_toml, read_bounded
from digit_search.records import PARAM_NAMES, TrialParams

MAX_CONFIG_BYTES = 1 << 20
"""Ten thousand points to try; configs/default.toml takes 6 KB. The settings as resolved are held to it too, or a run could not go on."""
MAX_REPORTS = 10_000
"""Of one training: its whole curve is one line of events.jsonl (`events.MAX_EVENT_BYTES`)."""
MAX_DEPTH = 12
MAX_PROBLEMS = 30
SMALLEST_SHARE = 0.0001
"""Of a GPU: Ray (2.60) counts in ten-thousandths and refuses less."""

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


def parse_duration(text: str) -> float:
    """Seconds of a duration such as `90s`, `30m` or `1h30m`; infinity for the empty string.

    Raises:
        ValueError: if the text is none of these, or no time at all.
    """
    if text == "":
        return float("inf")
    match = _DURATION.fullmatch(text.strip())
    seconds = sum(float(part or 0) * unit for part, unit in zip(match.groups(), (3600, 60, 1), strict=True)) if match else 0.0
    if seconds <= 0:
        raise ValueError(f"expected a duration such as 90s, 30m or 1h30m, found {text!r}")
    return seconds


def _checked_duration(text: str) -> str:
    parse_duration(text)
    return text


def _number_or_auto(value: object) -> object:
    """`--set` hands over the text of a number where "auto" would be allowed too."""
    if isinstance(value, str) and value != "auto":
        raise ValueError(f'expected a number or "auto", found {value!r}')
    return value


Count = Annotated[int, Field(ge=1, le=10**6)]
Duration = Annotated[str, AfterValidator(_checked_duration)]
AutoInt = Annotated[Literal["auto"] | Count, BeforeValidator(_number_or_auto)]
AutoShare = Annotated[Literal["auto"] | Annotated[float, Field(ge=0, le=10**6)], BeforeValidator(_number_or_auto)]


class DataSettings(Settings):
    """Where the digits come from and how they are split."""

    dir: Annotated[str, Field(min_length=1)] = "auto"
    """A folder with train.csv and test.csv (or .gz); "auto": data/digit-recognizer where it exists, else "sample", the embedded digits."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    cache_dir: str = "auto"
    """Parsed tables are kept there as Arrow files; "auto": the user's cache folder, as for a run that goes on; "" keeps none."""
    max_csv_bytes: Annotated[int, Field(ge=1, lt=2**62)] = 1 << 30
    """A CSV that unpacks to more than this is refused."""


class TrainingSettings(Settings):
    """What every trial trains with, unless `search.space` searches it."""

    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    shift_pixels: Annotated[float, Field(ge=0, le=14)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    accumulation_steps: Count = 1
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    stem: Literal["imagenet", "small"] = "imagenet"
    ema_half_life_epochs: Annotated[float, Field(ge=0)] = 0.25
    """Half-life of the moving average of weights and batch-norm statistics; 0 is off, the notebook's way."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    compile: bool = False
    inference_batch_size: Count = 64


class AshaSettings(Settings):
    """Early stopping of trials by asynchronous successive halving (ASHA).

    max_epochs, grace_epochs and reduction_factor are the cheapest that lose nothing that 32 recorded learning curves can tell
    (`benchmarks/replay.py`).
    """

    enabled: bool = True
    max_epochs: Count = 7
    grace_epochs: Annotated[float, Field(gt=0, le=10**6)] = 1.0
    """The first rung. A fraction of an epoch needs `search.reports_per_epoch` above 1."""
    reduction_factor: Annotated[int, Field(ge=2, le=10**6)] = 2
    """A trial passes a rung if it is among the best one in this many of those that reached it before; the first always passes."""


class SearchSettings(Settings):
    """What to try, how often, and how to compare."""

    samples: Count = 20
    startup_trials: Count = 6
    """Trials that are spread at random before TPE's model is asked; the baseline, the points and a warm start's trials count.

    Replayed searches of 20 trials end alike, within the noise of 0.1 points, with 1 to 10 of them (`benchmarks/replay.py`); 6 leave
    most of such a search to the model, which begins with more trials than there are parameters.
    """
    metric: Literal["val_loss", "val_accuracy"] = "val_loss"
    """What ASHA and Optuna compare, of the averaged weights where averaging is on. The loss moves in finer steps than the accuracy."""
    rank_by: Literal["val_loss", "val_accuracy"] = "val_accuracy"
    """What chooses the winner among the best epochs of all trials; ties go by the other.

    Over recorded curves the accuracy picks winners whose test accuracy is 0.4 points better (`benchmarks/replay.py`).
    """
    reports_per_epoch: Annotated[int, Field(ge=1, le=100)] = 1
    max_failures: Annotated[int, Field(ge=0, le=10**6)] = 2
    """How often a trial whose worker died is begun again before it counts as failed."""
    trial_timeout: Duration = "1h"
    """A worker that sends no report for this long hangs: it is ended, which counts as if it had died; "" waits for ever."""
    time_budget: Duration = ""
    """The search ends after this long, e.g. "30m"; "" never."""
    baseline: bool = True
    """Trial 0 is the notebook's configuration."""
    space: dict[str, Dimension | ParamValue] = Field(default_factory=default_space)
    points: list[dict[str, ParamValue]] = Field(default_factory=list)
    """Parameters to try right after the baseline; what a point leaves out keeps the baseline's value."""
    warm_start: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    """Runs on the same data and space whose finished trials the suggestions learn from; names in the results folder, or folders."""
    asha: AshaSettings = Field(default_factory=AshaSettings)

    @model_validator(mode="after")
    def _space_and_points_make_sense(self) -> "SearchSettings":
        problems = [problem for name, value in self.space.items() for problem in dimension_problems(name, value, self.space)]
        for index, point in enumerate(self.points):
            for name, value in point.items():
                try:
                    if name not in PARAM_NAMES:
                        raise ValueError(f"points[{index}].{name}: no such parameter; there are {', '.join(PARAM_NAMES)}")
                    check_value(name, value, f"points[{index}].{name}")
                except ValueError as error:
                    problems.append(str(error))
        if not any(isinstance(value, Dimension) for value in self.space.values()):
            problems.append("space: every parameter is fixed, so there is nothing to search")
        grace_reports = self.asha.grace_epochs * self.reports_per_epoch
        # 0.333 is meant as a third: TOML has no fractions.
        if abs(grace_reports - round(grace_reports)) > 0.01 or round(grace_reports) < 1:
            problems.append(
                f"asha.grace_epochs: {self.asha.grace_epochs:g} epochs is no whole number of reports at {self.reports_per_epoch} an epoch"
            )
        if self.asha.grace_epochs > self.asha.max_epochs:
            problems.append(f"asha.grace_epochs: {self.asha.grace_epochs:g} is above max_epochs {self.asha.max_epochs}")
        if problems:
            raise ValueError("\n".join(problems))
        return self


class RetrainSettings(Settings):
    """How the winner is trained again, for the weights that are handed over."""

    max_epochs: Count = 15
    patience: Count = 10
    """Epochs without a lower validation loss before it stops; the weights of the lowest are kept."""
    confirm: Count = 1
    """So many of the best trials are trained again with fresh seeds, and the best mean wins; 1 is off."""
    confirm_seeds: Count = 2
    """Fresh seeds for each of them."""


class ResourceSettings(Settings):
    """What one trial gets, and how many run at a time."""

    workers: AutoInt = "auto"
    """Trials at a time; "auto": as many as fit."""
    cpus_per_trial: Count = 1
    gpus_per_trial: AutoShare = "auto"
    """A share of a GPU, e.g. 0.25; "auto": one where there is one."""


class RaySettings(Settings):
    """How Ray is started or joined."""

    address: str = ""
    """"": a Ray of our own on this machine; "auto" or HOST:PORT: a running cluster."""
    dashboard: bool = True
    dashboard_host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """Where the dashboard of a Ray of our own listens, alone of all its ports; beyond this machine only with Ray's token authentication."""
    object_store_mib: Annotated[int, Field(ge=80, le=10**9)] = 256
    start_timeout_seconds: Annotated[float, Field(gt=0, le=10**6)] = 120.0


class RunSettings(Settings):
    """All settings of a run."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataSettings = Field(default_factory=DataSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    search: SearchSettings = Field(default_factory=SearchSettings)
    retrain: RetrainSettings = Field(default_factory=RetrainSettings)
    resources: ResourceSettings = Field(default_factory=ResourceSettings)
    ray: RaySettings = Field(default_factory=RaySettings)

    @model_validator(mode="after")
    def _curves_can_be_kept(self) -> "RunSettings":
        for name, epochs in (("search.asha", self.search.asha.max_epochs), ("retrain", self.retrain.max_epochs)):
            if epochs * self.search.reports_per_epoch > MAX_REPORTS:
                raise ValueError(
                    f"{name}.max_epochs: expected at most {MAX_REPORTS} reports of one training, found {epochs} epochs with "
                    f"search.reports_per_epoch {self.search.reports_per_epoch}"
                )
        return self

    @model_validator(mode="after")
    def _shares_of_gpus_can_be_given(self) -> "RunSettings":
        gpus = self.resources.gpus_per_trial
        if gpus != "auto" and gpus > 1 and gpus != int(gpus):
            raise ValueError(f"resources.gpus_per_trial: above 1 only whole GPUs can be given, found {gpus:g}")
        if gpus != "auto" and 0 < gpus < SMALLEST_SHARE:
            raise ValueError(
                f"resources.gpus_per_trial: expected 0 or at least {SMALLEST_SHARE}, which is as fine as Ray counts, found {gpus:g}"
            )
        return self


def baseline_params(training: TrainingSettings) -> TrialParams:
    """The notebook's lr, gamma, step_size and batch_size, the rest as the training settings fix it."""
    return TrialParams(
        rotation_degrees=training.rotation_degrees,
        shift_pixels=training.shift_pixels,
        weight_decay=training.weight_decay,
        accumulation_steps=training.accumulation_steps,
        label_smoothing=training.label_smoothing,
        stem=training.stem,
    )


def parse_assignment(text: str) -> tuple[list[str], Any]:
    """Split `a.b.c=VALUE` into its keys and its value, read as TOML where it is TOML and as a plain string elsewhere.

    Raises:
        ConfigError: if there is no `=` or a key is empty.
    """
    path, equals, raw = text.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise ConfigError(f"--set {text}: expected KEY=VALUE with a dotted key, e.g. --set search.space.lr.high=0.1")
    try:
        value = parse_toml(f"value = {raw}")["value"]
    except ValueError:
        value = raw.strip()
    return keys, value


def _assign(tree: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        if not isinstance(tree.get(key), dict):
            tree[key] = {}
        tree = tree[key]
    tree[keys[-1]] = value


def _merge(tree: dict[str, Any], over: Mapping[str, Any], path: tuple[str, ...] = ()) -> None:
    """Lay `over` upon `tree`: tables are merged key by key, but a searched parameter is replaced whole."""
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict) and path != ("search", "space"):
            _merge(tree[key], value, (*path, key))
        else:
            tree[key] = value


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        ConfigError: if it is missing, too large, no UTF-8 or no TOML, naming the place.
    """
    try:
        return parse_toml(read_bounded(path, MAX_CONFIG_BYTES).decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; configs/default.toml shows every setting") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; configs/default.toml shows every setting") from error
    except ValueError as error:
        raise ConfigError(f"{path}: expected TOML, found: {error}") from error


def validate_settings(tree: Mapping[str, Any], source: str) -> RunSettings:
    """Check a tree of settings.

    Raises:
        ConfigError: with every problem found, each with its key.
    """
    tree = {key: dict(value) if isinstance(value, Mapping) else value for key, value in tree.items()}
    problems: list[str] = []
    search = tree.get("search")
    if isinstance(search, dict) and isinstance(search.get("space"), dict):
        space: dict[str, Any] = {}
        for name, value in search["space"].items():
            try:
                space[name] = dimension_model(name, value).model_validate(value) if isinstance(value, dict) else value
            except ValidationError as error:
                known = dimension_model(name, value)
                problems += [f"search.space.{name}.{line}" for line in problem_lines(error, known)]
        # A parameter that failed alone is left out, so that the others are still checked against each other.
        search["space"] = space or default_space()
    try:
        settings = RunSettings.model_validate(tree)
    except ValidationError as error:
        problems += problem_lines(error, RunSettings)
    if problems:
        count = "one setting" if len(problems) == 1 else f"{len(problems)} settings"
        more = [f"and {len(problems) - MAX_PROBLEMS} more"] if len(problems) > MAX_PROBLEMS else []
        raise ConfigError(f"{source}: {count} cannot be used:\n  " + "\n  ".join(problems[:MAX_PROBLEMS] + more))
    if (size := len(to_toml(settings).encode())) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{source}: expected settings of at most {MAX_CONFIG_BYTES} bytes as a run's config.toml, found {size}")
    return settings


def load_settings(path: Path | None = None, assignments: Sequence[str] = (), flags: Mapping[str, Any] | None = None) -> RunSettings:
    """Resolve the settings of a run: a flag beats `--set`, which beats the file, which beats the default.

    Args:
        path: a TOML file, or None.
        assignments: `KEY=VALUE` texts.
        flags: dotted keys and values; None values are skipped.

    Raises:
        ConfigError: with every problem found, each with its key.
    """
    tree = to_tree(RunSettings())
    if path is not None:
        _merge(tree, read_toml(path))
    for text in assignments:
        _assign(tree, *parse_assignment(text))
    for key, value in (flags or {}).items():
        if value is not None:
            _assign(tree, key.split("."), value)
    source = str(path) if path else "the command line"
    if is_nested_beyond(tree, MAX_DEPTH):
        raise ConfigError(
            f"{source}: expected tables and lists at most {MAX_DEPTH} deep, found deeper ones; configs/default.toml shows every setting"
        )
    return validate_settings(tree, source)


def to_tree(settings: RunSettings) -> dict[str, Any]:
    """The settings as nested dicts of TOML's types."""
    tree = settings.model_dump(mode="json")
    for dimension in tree["search"]["space"].values():
        if isinstance(dimension, dict) and not dimension["when"]:
            del dimension["when"]
    return tree


def to_toml(settings: RunSettings) -> str:
    """The settings as TOML, so that `--config` on it repeats the run."""
    return tomli_w.dumps(to_tree(settings))
