"""The search as a stage of a run: Ray is started or joined, and Tune runs the trials that are left."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import pyarrow as pa
from ray import tune
from ray.tune.error import TuneError

from digit_search.cluster.capacity import Capacity, snapshot_cluster
from digit_search.cluster.connect import address_to_join
from digit_search.cluster.placement import WorkerPlan, check_gpus, mps_here, plan_workers
from digit_search.cluster.session import node_resources, running_ray, send_chatter_to
from digit_search.cluster.storage_probe import StorageProbe
from digit_search.cluster.watchdog import Watchdog, own_ray_processes
from digit_search.config.settings import RunSettings, parse_duration
from digit_search.data.split import RowSplit
from digit_search.errors import ResourceError, SearchError
from digit_search.monitor.housekeeping import Housekeeping
from digit_search.monitor.progress import SearchProgress
from digit_search.monitor.ray_dashboard import RayDashboard, job_metadata
from digit_search.monitor.ray_metrics import RayMetrics
from digit_search.monitor.tensorboard import TensorBoard
from digit_search.records import TrialStatus
from digit_search.run.active_run import ActiveRun, Observer
from digit_search.run.events import NoteAdded, TrialEnded
from digit_search.run.state import RunState
from digit_search.search.failures import restart_lost_ray, why_search_ended, why_tune_ended
from digit_search.search.resume import end_decided_trials
from digit_search.search.study import Objective
from digit_search.search.study_journal import StudyJournal
from digit_search.search.time_budget import TimeBudget
from digit_search.search.trainable import TrialSetup, make_worker_class, train_trial
from digit_search.search.tune_adapter import EndSearch, SearchDriver, make_tuner
from digit_search.selection.rungs import expected_epochs, rung_steps

logger = logging.getLogger(__name__)


def search_trials(run: ActiveRun, table: pa.Table, split: RowSplit, started_at: float) -> None:
    """Run the trials that have not finished yet, with a new Ray where one is lost.

    `table` has the labelled digits; `started_at` is when the time budget began, by time.monotonic().

    Raises:
        SearchError: if every trial failed, Ray was lost again and again, or our own bug ended the search.
        ResourceError: if Ray cannot be started, or has no room for a trial.
        StorageError: if the disk does not take what the search writes.
        KeyboardInterrupt: if the user ended it. In all these cases what was recorded is in the run's folder.
    """
    send_chatter_to(run.folder.log)
    budget = TimeBudget(run.settings.search.time_budget, started_at)
    restart_lost_ray(partial(_search_on_ray, run, table, split, budget), run)
    _check_some_succeeded(run.state)
    if budget.is_spent() and run.state.num_finished < run.settings.search.samples:
        text = what_the_budget_allowed(run.settings, run.state)
        run.record(NoteAdded(text=text))
        run.say(text)


def _search_on_ray(run: ActiveRun, table: pa.Table, split: RowSplit, budget: TimeBudget) -> None:
    """Start or join Ray, and search on it, unless nothing is left to do."""
    settings = run.settings
    end_decided_trials(run)
    if run.state.num_finished >= settings.search.samples or budget.is_spent():
        _interrupt_running_trials(run)
        return
    ray_settings = settings.ray.model_copy(update={"address": address_to_join(settings.ray.address)})
    is_joined = bool(ray_settings.address)
    if is_joined:
        # Said first: a configuration from elsewhere could name a stranger's cluster, and what that answers is run here.
        run.say(f"Ray: joining the cluster at {ray_settings.address}")
    most = _most_trials_at_a_time(settings)
    with running_ray(ray_settings, job_metadata(run.folder.name, settings.search.samples, most)) as dashboard:
        run.interrupts.check()
        plan, nodes = _plan(settings, is_joined, run)
        if dashboard:
            run.say(f"Ray dashboard: {dashboard} (it asks for the token that `ray get-auth-token` prints)")
        run.say(f"workers: {plan.describe(nodes)}")
        check_gpus(plan, is_own_ray=not is_joined, say=run.say)
        _announce(settings, run)
        with _storage_probe(is_joined, run) as probe, run.interrupts.deferred():
            search_with_tune(run, table, split, budget, plan, probe)


def _most_trials_at_a_time(settings: RunSettings) -> int:
    """How many trials at a time a search can use, wherever it runs."""
    workers, samples = settings.resources.workers, settings.search.samples
    return samples if workers == "auto" else min(workers, samples)


def _plan(settings: RunSettings, is_joined: bool, run: ActiveRun) -> tuple[WorkerPlan, Sequence[dict[str, float]]]:
    """How trials share the nodes that are there. On a cluster that grows, what does not fit now may fit later."""
    nodes = node_resources()
    try:
        return plan_workers(settings.resources, nodes, has_mps=mps_here()), nodes
    except ResourceError:
        if not is_joined or not snapshot_cluster().may_grow:
            raise
    share = settings.resources.gpus_per_trial
    plan = WorkerPlan(_most_trials_at_a_time(settings), settings.resources.cpus_per_trial, 0.0 if share == "auto" else float(share))
    run.say("the cluster's nodes have no room for all of this now; its autoscaler is asked for more")
    return plan, nodes


@contextmanager
def _storage_probe(is_joined: bool, run: ActiveRun) -> Iterator[StorageProbe | None]:
    """On a joined cluster, check that its nodes can keep checkpoints in the run's folder."""
    if not is_joined:
        yield None
        return
    probe = StorageProbe(run.folder.trials_location, run.say)
    probe.begin()
    try:
        probe.wait(snapshot_cluster().nodes)
        yield probe
    finally:
        probe.end()


def search_with_tune(
    run: ActiveRun,
    table: pa.Table,
    split: RowSplit,
    budget: TimeBudget,
    plan: WorkerPlan,
    probe: StorageProbe | None = None,
    more_observers: Sequence[Observer] = (),
) -> None:
    """On the Ray that is up, let Tune run what is left. Whatever still runs when it ends, however it does, was interrupted."""
    settings = run.settings
    try:
        watchdog = Watchdog(parse_duration(settings.search.trial_timeout), own_ray_processes())
        capacity = Capacity(plan, most=_most_trials_at_a_time(settings), probe=probe, say=run.say) if probe else None
        driver = SearchDriver(run, budget, watchdog, plan.workers, capacity)
        setup = TrialSetup(
            split=split,
            trials_location=run.folder.trials_location,
            max_epochs=settings.search.asha.max_epochs,
            training=settings.training,
            num_threads=plan.cpus_per_trial,
            objective=Objective.of(settings),
            uses_mps=plan.uses_mps,
            probe_token=probe.token if probe else "",
        )
        trainable = tune.with_parameters(train_trial, table=table, setup=setup)
        workers = make_worker_class(trainable, run.folder.name, {"cpu": plan.cpus_per_trial, "gpu": plan.gpus_per_trial})
        with run.observed_by([*_observers(run, plan, budget, len(split.validation)), *more_observers]):
            _run_tuner(make_tuner(run, driver, workers, plan, probe.bad if probe else None), run)
    except (EndSearch, Exception) as error:
        logger.exception("the search ended")
        raise why_search_ended(error.reason if isinstance(error, EndSearch) else error, run) from error
    finally:
        _interrupt_running_trials(run)


def _run_tuner(tuner: tune.Tuner, run: ActiveRun) -> None:
    try:
        tuner.fit()
    except (RuntimeError, TuneError) as error:
        raise why_tune_ended(error, run) from error


def _observers(run: ActiveRun, plan: WorkerPlan, budget: TimeBudget, num_validation: int) -> list[Observer]:
    """Everything that shows or keeps what happens in the search."""
    settings, search, folder = run.settings, run.settings.search, run.folder
    objective = Objective.of(settings)
    about, _ = expected_epochs(search.asha, search.reports_per_epoch, search.samples)

    def seconds_left(state: RunState) -> float | None:
        left = state.seconds_left(
            num_samples=search.samples,
            workers=plan.workers,
            epochs_per_trial=about / search.samples,
            max_epochs=search.asha.max_epochs,
        )
        return None if left is None else min(left, budget.seconds_left())

    observers: list[Observer] = [
        SearchProgress(run.state, seconds_left, num_samples=search.samples, num_validation=num_validation),
        StudyJournal(folder.study, folder.name, search.space, objective, run.state),
        TensorBoard(folder, objective.step),
        Housekeeping(folder, search.rank_by),
        RayMetrics(folder.name, search.samples),
    ]
    return [*observers, RayDashboard(folder.name)] if settings.ray.dashboard else observers


def _interrupt_running_trials(run: ActiveRun) -> None:
    """Whatever still counts as running when the search is over was interrupted."""
    for record in run.state.trials:
        if record.status is TrialStatus.RUNNING:
            run.record(TrialEnded(trial=record.trial, status=TrialStatus.INTERRUPTED))


def _check_some_succeeded(state: RunState) -> None:
    records = state.trials
    if records and all(record.status is TrialStatus.FAILED for record in records):
        reasons = "\n  ".join(dict.fromkeys(record.error for record in records))
        raise SearchError(f"all {len(records)} trials failed:\n  {reasons}")


def what_the_budget_allowed(settings: RunSettings, state: RunState) -> str:
    """How much of a search its time budget allowed."""
    search, records = settings.search, state.trials
    cut = state.count(TrialStatus.INTERRUPTED)
    epochs = sum(record.epochs[-1].epoch for record in records if record.epochs)
    about, _ = expected_epochs(search.asha, search.reports_per_epoch, search.samples)
    return (
        f"the time budget of {search.time_budget} ended the search: {len(records) - cut} of {search.samples} trials ended by themselves, "
        f"{cut} were cut short, {search.samples - len(records)} were never started; {epochs:g} of about {about:.0f} epochs"
    )


def _announce(settings: RunSettings, run: ActiveRun) -> None:
    """Say what the search will cost before it starts."""
    search, retrain = settings.search, settings.retrain
    rungs = [f"{step / search.reports_per_epoch:.3g}" for step in rung_steps(search.asha, search.reports_per_epoch)]
    about, most = expected_epochs(search.asha, search.reports_per_epoch, search.samples)
    stops = f"the worse ones stopped after epoch {', '.join(rungs)}" if rungs else "none stopped early"
    run.say(
        f"search: {search.samples} trials of up to {search.asha.max_epochs} epochs, {stops}: about {about:.0f} epochs, at most {most:.0f}"
    )
    if retrain.confirm > 1:
        most = retrain.confirm * retrain.confirm_seeds * retrain.max_epochs
        run.say(
            f"then the {retrain.confirm} best are trained again with {retrain.confirm_seeds} fresh seeds each: at most {most} epochs more"
        )
