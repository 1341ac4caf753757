"""Every setting: its name, type, range and default. `loading.py` reads them from files and the command line."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from digit_search.config.search_space import PARAM_BOUNDS, Dimension, ParamValue, Settings, default_space, point_problems, space_problems
from digit_search.records import PARAM_NAMES, TrialParams

MAX_REPORTS = 10_000
"""Of one training: its whole curve is one line of events.jsonl (`events.MAX_EVENT_BYTES`)."""
SMALLEST_SHARE = 0.0001
"""Of a GPU: Ray (2.60) counts in ten-thousandths and refuses less."""

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


def parse_duration(text: str) -> float:
    """Seconds of a duration such as `90s`, `30m` or `1h30m`; infinity for the empty string.

    Raises:
        ValueError: if the text is anything else, or is zero.
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


def _checked_share(gpus: Literal["auto"] | float) -> Literal["auto"] | float:
    if gpus != "auto" and gpus > 1 and gpus != int(gpus):
        raise ValueError(f"above 1, expected a whole number of GPUs, found {gpus:g}")
    if gpus != "auto" and 0 < gpus < SMALLEST_SHARE:
        raise ValueError(f"expected 0 or at least {SMALLEST_SHARE}, Ray's smallest share, found {gpus:g}")
    return gpus


Count = Annotated[int, Field(ge=1, le=10**6)]
Duration = Annotated[str, AfterValidator(_checked_duration)]
Share = Annotated[Literal["auto"] | Annotated[float, Field(ge=0, le=10**6)], AfterValidator(_checked_share)]


class DataSettings(Settings):
    """Where the digits come from and how they are split."""

    dir: Annotated[str, Field(min_length=1)] = "auto"
    """A folder with train.csv and test.csv (or .gz); "sample": the embedded digits; "auto": data/digit-recognizer, else "sample"."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    max_csv_bytes: Annotated[int, Field(ge=1, lt=2**62)] = 1 << 30
    """A CSV that unpacks to more than this is refused."""


def _bounds_of(param: str) -> Any:
    """The bounds that the parameter has where it is searched, too."""
    low, high = PARAM_BOUNDS[param]
    return Field(ge=low, le=high)


class TrainingSettings(Settings):
    """What every trial trains with, unless it is searched in `search.space`."""

    rotation_degrees: Annotated[float, _bounds_of("rotation_degrees")] = 10.0
    shift_pixels: Annotated[float, _bounds_of("shift_pixels")] = 0.0
    weight_decay: Annotated[float, _bounds_of("weight_decay")] = 0.0
    accumulation_steps: Annotated[int, _bounds_of("accumulation_steps")] = 1
    label_smoothing: Annotated[float, _bounds_of("label_smoothing")] = 0.0
    stem: Literal["imagenet", "small"] = "imagenet"
    ema_half_life_epochs: Annotated[float, Field(ge=0)] = 0.25
    """Half-life of the moving average of weights and batch-norm statistics; 0 turns it off, as in the notebook."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    compile: bool = False
    inference_batch_size: Count = 64


class AshaSettings(Settings):
    """Early stopping of trials by asynchronous successive halving (ASHA).

    max_epochs, grace_epochs and reduction_factor are the cheapest values that lost no accuracy on 32 recorded learning curves
    (`benchmarks/replay.py`).
    """

    enabled: bool = True
    max_epochs: Count = 7
    grace_epochs: Annotated[float, Field(gt=0, le=10**6)] = 1.0
    """Epochs before the first rung. A fraction of an epoch needs `search.reports_per_epoch` above 1."""
    reduction_factor: Annotated[int, Field(ge=2, le=10**6)] = 2
    """Of the trials that reached a rung so far, the best one in this many continues (2: the best half); the first always does."""


class SearchSettings(Settings):
    """What to try, how often, and how to compare."""

    samples: Count = 20
    startup_trials: Count = 6
    """Trials before TPE's model suggests, random except for the baseline, the points and a warm start's trials, which count too.

    In replayed searches of 20 trials, 1 to 10 of them gave the same result within the noise of 0.1 points (`benchmarks/replay.py`).
    6 is more than the number of parameters, and leaves most of such a search to the model.
    """
    metric: Literal["val_loss", "val_accuracy"] = "val_loss"
    """What ASHA and Optuna compare; of the averaged weights if averaging is on. The loss has finer steps than the accuracy."""
    rank_by: Literal["val_loss", "val_accuracy"] = "val_accuracy"
    """What chooses the winner among the best epochs of all trials; the other one breaks ties.

    On recorded curves the accuracy chose winners whose test accuracy was 0.4 points better (`benchmarks/replay.py`).
    """
    reports_per_epoch: Annotated[int, Field(ge=1, le=100)] = 1
    max_failures: Annotated[int, Field(ge=0, le=10**6)] = 2
    """How often a trial is restarted after its worker died before it counts as failed."""
    trial_timeout: Duration = "1h"
    """A worker that sends no report for this long is killed, which counts as if it had died; "" waits forever."""
    time_budget: Duration = ""
    """The search ends after this time, e.g. "30m"; "": no limit."""
    baseline: bool = True
    """Trial 0 is the notebook's configuration."""
    space: dict[str, Dimension | ParamValue] = Field(default_factory=default_space)
    points: list[dict[str, ParamValue]] = Field(default_factory=list)
    """Parameters to try right after the baseline; a parameter missing from a point has the baseline's value."""
    warm_start: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    """Earlier runs (names or folders) on the same data and space: the suggestions learn from their finished trials."""
    asha: AshaSettings = Field(default_factory=AshaSettings)

    @model_validator(mode="after")
    def _check_space_points_and_grace(self) -> "SearchSettings":
        problems = [*space_problems(self.space), *point_problems(self.points), *self._grace_problems()]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _grace_problems(self) -> Iterator[str]:
        grace = f"asha.grace_epochs: {self.asha.grace_epochs:g}"
        grace_reports = self.asha.grace_epochs * self.reports_per_epoch
        # 0.333 is meant as a third: TOML has no fractions.
        if abs(grace_reports - round(grace_reports)) > 0.01 or round(grace_reports) < 1:
            yield f"{grace} epochs is not a whole number of reports, with {self.reports_per_epoch} an epoch"
        if self.asha.grace_epochs > self.asha.max_epochs:
            yield f"{grace} is above max_epochs {self.asha.max_epochs}"


class RetrainSettings(Settings):
    """How the winner is trained again, for the weights of the final model."""

    max_epochs: Count = 15
    patience: Count = 10
    """Epochs without a lower validation loss before it stops; the weights with the lowest loss are kept."""
    confirm: Count = 1
    """This many of the best trials are trained again with fresh seeds, and the best mean wins; 1 turns this off."""
    confirm_seeds: Count = 2
    """Fresh seeds for each of these trials."""


class ResourceSettings(Settings):
    """What one trial gets, and how many run at a time."""

    workers: Literal["auto"] | Count = "auto"
    """Trials at a time; "auto": as many as fit."""
    cpus_per_trial: Count = 1
    gpus_per_trial: Share = "auto"
    """A share of a GPU, e.g. 0.25; "auto": one GPU if there is one."""


class RaySettings(Settings):
    """How Ray is started or joined."""

    address: str = ""
    """"": start Ray on this machine; "auto" or HOST:PORT: join a running cluster."""
    dashboard: bool = True
    dashboard_host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """Where the dashboard, and no other port, of a Ray started here listens. Beyond this machine it needs Ray's token authentication."""
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
    def _check_number_of_reports(self) -> "RunSettings":
        for name, epochs in (("search.asha", self.search.asha.max_epochs), ("retrain", self.retrain.max_epochs)):
            if epochs * self.search.reports_per_epoch > MAX_REPORTS:
                raise ValueError(
                    f"{name}.max_epochs: expected at most {MAX_REPORTS} reports of one training, found {epochs} epochs with "
                    f"search.reports_per_epoch {self.search.reports_per_epoch}"
                )
        return self


def baseline_params(training: TrainingSettings) -> TrialParams:
    """The notebook's lr, gamma, step_size and batch_size; the rest from the training settings."""
    return TrialParams(**training.model_dump(include=set(PARAM_NAMES)))
