"""A search from its settings to its records: the only place where Tune is started."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa
from ray import tune
from ray.tune import Callback, FailureConfig, RunConfig, TuneConfig
from ray.tune.experiment import Trial
from ray.tune.search import ConcurrencyLimiter

from digit_search.cluster.capacity import CapacityCallback
from digit_search.cluster.placement import WorkerPlan
from digit_search.cluster.storage_probe import AvoidNodes, StorageProbe
from digit_search.cluster.watchdog import EndSearch, Watch, own_ray_processes
from digit_search.config.settings import RunSettings, parse_duration
from digit_search.data.split import RowSplit
from digit_search.errors import SearchError
from digit_search.monitor.monitor import LiveSearch, show_live
from digit_search.monitor.tensorboard import tensorboard_logger
from digit_search.records import RungDecision, TrialOrigin, TrialParams, TrialRecord, TrialStatus
from digit_search.run.events import EventLog
from digit_search.run.layout import RunFolder, trial_name
from digit_search.run.state import RunState, load_state
from digit_search.search.failures import RAY_FAILURES, reason_of
from digit_search.search.recorder import EndOfTrial, Recorder
from digit_search.search.resume import end_decided_trials, rebuild_study, search_plan
from digit_search.search.scheduler import make_scheduler
from digit_search.search.searcher import OptunaSearcher
from digit_search.search.study import Objective
from digit_search.search.trainable import TrialSetup, make_worker_class, train_trial

TUNE_ENVIRONMENT = {
    # The new output prints tables whatever the verbosity; the old one is silent at verbosity 0.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Our signal handlers decide what Ctrl-C means.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # CSV and JSON loggers would write what our own records hold already; TensorBoard's is asked for by name.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Our limit alone decides how many trials may wait for a place: they are what an autoscaler starts nodes for.
    "TUNE_MAX_PENDING_TRIALS_PG": "10000",
    # A trial that failed before its first epoch has no score to report.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "60",
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SearchControl:
    """How the search hears that it must end."""

    is_interrupted: Callable[[], bool]
    deadline: float
    """time.monotonic() at which the time budget is spent."""
    tell: Callable[[str], None] = logger.warning
    """Hears what the user must know while the search goes on."""

    def is_over(self) -> bool:
        """Whether the time budget is spent."""
        return time.monotonic() >= self.deadline


def deadline_of(settings: RunSettings, started_at: float) -> float:
    """The moment, on the clock of `started_at`, when the time budget ends."""
    return started_at + parse_duration(settings.search.time_budget)


def trial_setup(
    settings: RunSettings, folder: RunFolder, split: RowSplit, plan: WorkerPlan, reach: StorageProbe | None = None
) -> TrialSetup:
    """What every trial shares."""
    return TrialSetup(
        split=split,
        trials_location=folder.trials_location,
        max_epochs=settings.search.asha.max_epochs,
        reports_per_epoch=settings.search.reports_per_epoch,
        ema_half_life_epochs=settings.training.ema_half_life_epochs,
        precision=settings.training.precision,
        compile=settings.training.compile,
        num_threads=plan.cpus_per_trial,
        objective=objective_of(settings),
        uses_mps=plan.uses_mps,
        reach_token=reach.token if reach else "",
    )


def run_search(
    settings: RunSettings,
    folder: RunFolder,
    table: pa.Table,
    split: RowSplit,
    plan: WorkerPlan,
    control: SearchControl,
    on_end: Callable[[int], None],
    reach: StorageProbe | None = None,
) -> Sequence[TrialRecord]:
    """Run the trials that the folder's events do not hold yet, on the Ray that is up; return the records of all.

    `on_end` hears of the number of each trial that ended; `reach` knows the nodes of a cluster that was joined.

    Raises:
        SearchError: if every trial failed, with the reasons.
        RayLostError: if Ray died or gave up.
        StorageError: if the disk does not take what the search writes.
        KeyboardInterrupt: if the user ended it; in all these cases what was recorded is in the folder.
    """
    os.environ.update(TUNE_ENVIRONMENT)
    try:
        _search_once(settings, folder, table, split, plan, control, on_end, reach)
    except EndSearch as end:
        raise end.reason from None
    except (OSError, *RAY_FAILURES) as error:
        logger.exception("the search ended")
        raise reason_of(error, folder) from error
    records = load_state(folder.events).trials
    _check_some_succeeded(records)
    return records


def _search_once(
    settings: RunSettings,
    folder: RunFolder,
    table: pa.Table,
    split: RowSplit,
    plan: WorkerPlan,
    control: SearchControl,
    on_end: Callable[[int], None],
    reach: StorageProbe | None,
) -> None:
    """Give Tune what is left to try, and our records the last word when it ends, however it does."""
    events = EventLog(folder.events)
    earlier = end_decided_trials(settings, load_state(folder.events), events)
    searching = search_plan(settings, earlier.trials, len(earlier.warm))
    if not searching.numbers:
        return
    objective = objective_of(settings)
    live = show_live(settings, folder.name, earlier.trials, plan.workers, control.deadline, len(split.validation))

    def suggested(trial: int, params: TrialParams, seed: int, origin: TrialOrigin) -> None:
        events.trial_started(trial, params, seed, origin, at=time.time())
        live.suggested(trial, params)

    searcher = OptunaSearcher(
        rebuild_study(folder, objective, searching, earlier),
        searching,
        objective,
        on_suggest=suggested,
        is_over=control.is_over,
    )
    recording = _Recording(folder, events, live, control, on_end, reach)
    try:
        trainable = tune.with_parameters(train_trial, table=table, setup=trial_setup(settings, folder, split, plan, reach))
        _make_tuner(settings, trainable, plan, searcher, earlier, recording).fit()
    finally:
        live.close()
        searcher.close()
        _end_running_trials(folder, events)


def objective_of(settings: RunSettings) -> Objective:
    """How this run's metrics are told to Optuna."""
    search = settings.search
    return Objective(search.metric, search.reports_per_epoch, search.asha.max_epochs * search.reports_per_epoch)


@dataclass(frozen=True, slots=True)
class _Recording:
    """Where a search's reports go, and how it is ended."""

    folder: RunFolder
    events: EventLog
    live: LiveSearch
    control: SearchControl
    on_end: Callable[[int], None]
    reach: StorageProbe | None
    """Of a cluster that was joined."""


def _make_tuner(
    settings: RunSettings,
    trainable: Callable[[dict], None],
    plan: WorkerPlan,
    searcher: OptunaSearcher,
    earlier: RunState,
    recording: _Recording,
) -> tune.Tuner:
    search, objective = settings.search, objective_of(settings)
    decisions: dict[int, RungDecision] = {}
    watch = Watch(parse_duration(search.trial_timeout), own_ray_processes())
    recorder = Recorder(
        recording.events,
        recording.live,
        max_epochs=search.asha.max_epochs,
        known_epochs={record.trial: record.epochs[-1].epoch for record in earlier.trials if record.epochs},
        decisions=decisions,
        is_over=recording.control.is_over,
        is_interrupted=recording.control.is_interrupted,
        on_end=recording.on_end,
        num_hung=watch.num_hung,
    )
    resources = {"CPU": plan.cpus_per_trial, "GPU": plan.gpus_per_trial}
    place = AvoidNodes(resources, recording.reach.bad) if recording.reach else None
    scheduler = make_scheduler(
        search.asha,
        metric=objective.metric,
        mode=objective.mode,
        reports_per_epoch=search.reports_per_epoch,
        decisions=decisions,
        earlier=earlier.rungs,
        # Every result is compared with the notebook's configuration, so that one shows what it can do.
        never_stopped={0} if search.baseline else (),
        place=place,
    )
    limiter = ConcurrencyLimiter(searcher, plan.workers)
    callbacks: list[Callback] = [recorder, watch, tensorboard_logger()]
    if recording.reach:
        callbacks.append(CapacityCallback(limiter, plan, most=most_wanted(settings), reach=recording.reach, tell=recording.control.tell))
    return tune.Tuner(
        make_worker_class(trainable, recording.folder.name, {"cpu": plan.cpus_per_trial, "gpu": plan.gpus_per_trial}),
        tune_config=TuneConfig(
            search_alg=limiter,
            scheduler=scheduler,
            num_samples=search.samples,
            # A new process would import torch again for every trial, four seconds each.
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=RunConfig(
            name=recording.folder.tune.name,
            storage_path=str(recording.folder.path.resolve()),
            stop=EndOfTrial(recording.control.is_over),
            callbacks=callbacks,
            failure_config=FailureConfig(max_failures=search.max_failures),
            verbose=0,
        ),
    )


def most_wanted(settings: RunSettings) -> int:
    """How many trials at a time a search can use, wherever it runs."""
    workers, samples = settings.resources.workers, settings.search.samples
    return samples if workers == "auto" else min(workers, samples)


def _trial_name(trial: Trial) -> str:
    return trial_name(trial.config["trial"])


def _end_running_trials(folder: RunFolder, events: EventLog) -> None:
    """Whatever still counts as running when the search is over was interrupted."""
    for record in load_state(folder.events).trials:
        if record.status is TrialStatus.RUNNING:
            events.trial_ended(record.trial, TrialStatus.INTERRUPTED, at=time.time())


def _check_some_succeeded(records: Sequence[TrialRecord]) -> None:
    if records and all(record.status is TrialStatus.FAILED for record in records):
        reasons = "\n  ".join(dict.fromkeys(record.error for record in records))
        raise SearchError(f"all {len(records)} trials failed:\n  {reasons}")
