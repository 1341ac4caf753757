"""The search as a stage of a run: Ray's life around it, what is told of it, and the run's folder kept in order meanwhile."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from digit_search.cluster.capacity import snapshot_cluster
from digit_search.cluster.connect import address_to_join
from digit_search.cluster.placement import WorkerPlan, check_gpus, mps_here, plan_workers
from digit_search.cluster.session import node_resources, running_ray, send_chatter_to
from digit_search.cluster.storage_probe import StorageProbe
from digit_search.config.settings import RunSettings
from digit_search.data.load import Digits
from digit_search.data.split import RowSplit
from digit_search.errors import ResourceError
from digit_search.monitor.ray_dashboard import job_metadata
from digit_search.records import TrialRecord, TrialStatus
from digit_search.report.build import write_tables_of
from digit_search.run.events import EventLog
from digit_search.run.interrupts import Interrupts
from digit_search.run.layout import RunFolder
from digit_search.run.state import HistoryReader, load_state
from digit_search.search.failures import with_new_ray
from digit_search.search.scheduler import expected_epochs, rung_steps
from digit_search.search.tune_adapter import SearchControl, deadline_of, most_wanted, run_search
from digit_search.selection.ranking import ranked

Say = Callable[[str], None]
TABLES_EVERY_SECONDS = 5.0


def search_trials(
    settings: RunSettings, folder: RunFolder, digits: Digits, split: RowSplit, started_at: float, interrupts: Interrupts, say: Say
) -> None:
    """Run the trials that the folder's events do not hold yet, with a new Ray where one is lost.

    Raises:
        SearchError: if every trial failed, or Ray was lost again and again.
        ResourceError: if Ray cannot be started, or has no room for a trial.
        StorageError: if the disk does not take what the search writes.
        KeyboardInterrupt: if the user ended it.
    """
    send_chatter_to(folder.log)
    control = SearchControl(lambda: interrupts.pending, deadline_of(settings, started_at), say)
    with_new_ray(partial(_search_on_ray, settings, folder, digits, split, control, interrupts, say), settings, folder, say)
    records = load_state(folder.events).trials
    is_cut = len(records) < settings.search.samples or any(record.status is TrialStatus.INTERRUPTED for record in records)
    if control.is_over() and is_cut:
        text = what_was_done(settings, records)
        EventLog(folder.events).note(text, at=time.time())
        say(text)


def _search_on_ray(
    settings: RunSettings, folder: RunFolder, digits: Digits, split: RowSplit, control: SearchControl, interrupts: Interrupts, say: Say
) -> None:
    """Start or join Ray, and search on it."""
    ray_settings = settings.ray.model_copy(update={"address": address_to_join(settings.ray.address)})
    if ray_settings.address:
        # Said first: a configuration from elsewhere could name a stranger's cluster, and what that answers is run here.
        say(f"Ray: joining the cluster at {ray_settings.address}")
    with running_ray(ray_settings, job_metadata(folder.name, settings.search.samples, most_wanted(settings))) as dashboard:
        interrupts.check()
        plan, nodes = _plan(settings, bool(ray_settings.address), say)
        if dashboard:
            say(f"Ray dashboard: {dashboard} (it asks for the token that `ray get-auth-token` prints)")
        say(f"workers: {plan.describe(nodes)}")
        check_gpus(plan, is_own_ray=not ray_settings.address, say=say)
        _announce(settings, say)
        with _reach_of(ray_settings.address, folder, say) as reach, interrupts.deferred():
            run_search(settings, folder, digits.train, split, plan, control, after_trial_of(settings, folder), reach)


def _plan(settings: RunSettings, joined: bool, say: Say) -> tuple[WorkerPlan, list[dict[str, float]]]:
    """How trials share the nodes that are there. On a cluster that grows, what does not fit now may fit later."""
    nodes = node_resources()
    try:
        return plan_workers(settings.resources, nodes, has_mps=mps_here()), nodes
    except ResourceError:
        if not joined or not snapshot_cluster().may_grow:
            raise
    share = settings.resources.gpus_per_trial
    plan = WorkerPlan(most_wanted(settings), settings.resources.cpus_per_trial, 0.0 if share == "auto" else float(share))
    say("the cluster's nodes have no room for all of this now; its autoscaler is asked for more")
    return plan, nodes


@contextmanager
def _reach_of(address: str, folder: RunFolder, say: Say) -> Iterator[StorageProbe | None]:
    """On a cluster that was joined, see that its nodes can keep checkpoints in the run's folder."""
    if not address:
        yield None
        return
    reach = StorageProbe(folder.trials_location, say)
    reach.begin()
    try:
        reach.wait(snapshot_cluster().nodes)
        yield reach
    finally:
        reach.end()


def what_was_done(settings: RunSettings, records: Sequence[TrialRecord]) -> str:
    """How much of a search its time budget allowed."""
    search = settings.search
    cut = sum(1 for record in records if record.status is TrialStatus.INTERRUPTED)
    epochs = sum(record.epochs[-1].epoch for record in records if record.epochs)
    about, _ = expected_epochs(search.asha, search.reports_per_epoch, search.samples)
    return (
        f"the time budget of {search.time_budget} ended the search: {len(records) - cut} of {search.samples} trials ended on their own, "
        f"{cut} were cut short, {search.samples - len(records)} never began; {epochs:g} of about {about:.0f} epochs"
    )


def _announce(settings: RunSettings, say: Say) -> None:
    """Tell what the search will cost before it starts."""
    search = settings.search
    rungs = [f"{step / search.reports_per_epoch:.3g}" for step in rung_steps(search.asha, search.reports_per_epoch)]
    about, most = expected_epochs(search.asha, search.reports_per_epoch, search.samples)
    stops = f"the worse stopped after epoch {', '.join(rungs)}" if rungs else "none stopped early"
    say(f"search: {search.samples} trials of up to {search.asha.max_epochs} epochs, {stops}: about {about:.0f} epochs, at most {most:.0f}")
    if settings.retrain.confirm > 1:
        retrain = settings.retrain
        most = retrain.confirm * retrain.confirm_seeds * retrain.max_epochs
        say(f"then the {retrain.confirm} best are trained again with {retrain.confirm_seeds} fresh seeds each: at most {most} epochs more")


def after_trial_of(settings: RunSettings, folder: RunFolder) -> Callable[[int], None]:
    """What to do when a trial ends: bring the tables up to date, and delete the checkpoints of all but running trials and the best so far.

    Both look at every trial, so they are done at most every few seconds and take a tenth of the time at most: else a search's cost would
    grow with the square of its trials.
    """
    next_at, reader = float("-inf"), HistoryReader(folder.events)

    def after_trial(trial: int) -> None:
        nonlocal next_at
        began_at = time.monotonic()
        if began_at < next_at:
            return
        history, rank_by = reader.read(), settings.search.rank_by
        write_tables_of(folder, history, rank_by)
        records = history.trials
        kept = {record.trial for record in records if record.status is TrialStatus.RUNNING}
        kept |= {record.trial for record in ranked(records, rank_by)[:1]}
        folder.keep_checkpoints((record.trial for record in records), kept)
        ended_at = time.monotonic()
        next_at = ended_at + max(TABLES_EVERY_SECONDS, 9 * (ended_at - began_at))

    return after_trial
