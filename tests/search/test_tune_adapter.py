"""From Tune's hooks to the run's events and back, with made-up trials of Tune's."""

import pickle
from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from digit_search.cluster.storage_probe import StorageProbe
from digit_search.cluster.watchdog import Watchdog
from digit_search.errors import RayLostError, StorageError
from digit_search.records import EpochMetrics, RungDecision, TrialStatus
from digit_search.search import tune_adapter
from digit_search.search.tune_adapter import EndSearch, NodeLabels, SearchDriver, _DrivenScheduler, _DrivenSearcher


def metrics(epoch, accuracy=0.5):
    return EpochMetrics(epoch, 1.0, 0.4, 1.1, accuracy, 0.01, 100, 2.0)


@pytest.fixture(autouse=True)
def hosts(monkeypatch):
    """What Ray would say about its nodes."""
    hosts = {"n1": "host", "n2": "host"}
    monkeypatch.setattr(tune_adapter, "_hosts_of_ray", lambda: hosts)
    return hosts


class Budget:
    spent = False

    def is_spent(self):
        return self.spent


class Made:
    """A driver of a search of three trials up to epoch 4, and the parts of Tune's that it drives."""

    def __init__(self, run, capacity=None):
        self.run, self.budget = run, Budget()
        self.watchdog = Watchdog(10.0, {})
        self.driver = SearchDriver(run, self.budget, self.watchdog, 1, capacity)
        self.searcher = _DrivenSearcher(self.driver)
        self.scheduler = _DrivenScheduler(self.driver, None)
        self.iteration = 0

    def suggest(self):
        """Let Tune ask for a trial, which then runs."""
        config = self.searcher.suggest("an id")
        temporary_state = SimpleNamespace(ray_actor="worker")
        trial = SimpleNamespace(trial_id="an id", config=config, status=Trial.RUNNING, max_failures=2, temporary_state=temporary_state)
        self.scheduler.on_trial_add(None, trial)
        return trial

    def report(self, trial, epoch, accuracy=0.5):
        result = {"metrics": metrics(epoch, accuracy), "device": "cpu", "node_id": "n1"}
        return self.scheduler.on_trial_result(None, trial, result)

    def complete(self, trial):
        self.driver.on_trial_complete(iteration=self.iteration, trials=[], trial=trial)

    def recover(self, trial):
        self.driver.on_trial_recover(iteration=self.iteration, trials=[], trial=trial)
        self.iteration += 1

    def fail(self, trial):
        self.driver.on_trial_error(iteration=self.iteration, trials=[], trial=trial)

    def record(self, number=0):
        return self.run.state.trial(number)


@pytest.fixture
def made(make_active_run):
    return Made(make_active_run("search.samples=3", "search.asha.max_epochs=4", "search.metric='val_accuracy'"))


def reason_of(call, *given):
    with pytest.raises(EndSearch) as caught:
        call(*given)
    return caught.value.reason


@pytest.mark.parametrize(
    ("epochs", "is_spent", "failure", "status"),
    [
        (4, False, "", TrialStatus.COMPLETED),
        (4, True, "", TrialStatus.COMPLETED),
        (1, True, "", TrialStatus.INTERRUPTED),
        (1, False, "TrialError: diverged", TrialStatus.FAILED),
        (0, False, "no memory", TrialStatus.FAILED),
    ],
)
def test_the_status_says_how_a_trial_ended(made, epochs, is_spent, failure, status):
    trial = made.suggest()
    for epoch in range(1, epochs + 1):
        made.report(trial, epoch)
    made.budget.spent = is_spent
    if failure:
        assert made.scheduler.on_trial_result(None, trial, {"failed": failure}) == TrialScheduler.STOP
    made.complete(trial)
    record = made.record()
    assert (record.status, len(record.epochs), record.error) == (status, epochs, failure)


def test_a_trial_that_asha_stops_is_stopped_with_its_decision(made):
    better, worse = made.suggest(), made.suggest()
    assert made.report(better, 1, 0.9) == TrialScheduler.CONTINUE
    assert made.report(worse, 1, 0.1) == TrialScheduler.STOP
    made.complete(worse)
    assert made.record(1).status == "stopped"
    assert made.run.state.rungs == (RungDecision(1, 0, 0.9, True), RungDecision(1, 1, 0.1, False))


def test_the_last_epoch_and_a_spent_time_budget_end_a_trial(made):
    trial = made.suggest()
    assert [made.report(trial, epoch) for epoch in (1, 2, 3, 4)] == [TrialScheduler.CONTINUE] * 3 + [TrialScheduler.STOP]
    made.budget.spent = True
    assert made.searcher.suggest("next") == Searcher.FINISHED


def test_asha_decides_also_about_the_last_report_before_the_time_budget_is_spent(made):
    better, worse = made.suggest(), made.suggest()
    made.budget.spent = True
    assert [made.report(better, 1, 0.9), made.report(worse, 1, 0.1)] == [TrialScheduler.STOP] * 2
    for trial in (better, worse):
        made.complete(trial)
    assert [record.status for record in made.run.state.trials] == ["interrupted", "stopped"]
    assert [decision.passed for decision in made.run.state.rungs] == [True, False]


def test_a_search_that_is_resumed_after_its_time_budget_continues_the_trial_that_was_cut(made):
    trial = made.suggest()
    made.budget.spent = True
    made.report(trial, 1)
    made.complete(trial)
    resumed = Made(made.run)
    again = resumed.suggest()
    assert again.config == trial.config
    assert resumed.report(again, 1) == TrialScheduler.CONTINUE
    assert [resumed.report(again, epoch) for epoch in (2, 3, 4)][-1] == TrialScheduler.STOP
    resumed.complete(again)
    assert (resumed.record().status, len(resumed.record().epochs)) == ("completed", 4)
    assert [(decision.rung_epochs, decision.trial) for decision in resumed.run.state.rungs] == [(1, 0), (2, 0)]


def test_suggestions_carry_number_seed_and_parameters_and_end_after_the_samples(made):
    configs = [made.suggest().config for _ in range(3)]
    assert [config["trial"] for config in configs] == [0, 1, 2]
    assert (configs[0]["lr"], configs[0]["seed"]) == (0.01, made.record(0).seed)
    assert made.searcher.suggest("next") == Searcher.FINISHED
    assert [record.origin for record in made.run.state.trials] == ["baseline", "suggested", "suggested"]


def test_a_report_that_a_new_worker_repeats_counts_once(made):
    trial = made.suggest()
    made.report(trial, 1)
    made.report(trial, 2, 0.6)
    assert made.report(trial, 2, 0.9) == TrialScheduler.CONTINUE
    assert [epoch.val_accuracy for epoch in made.record().epochs] == [0.5, 0.6]


def test_a_trial_that_was_stopped_is_stopped_again_when_a_new_worker_repeats_its_report(made):
    made.report(made.suggest(), 1, 0.9)
    trial = made.suggest()
    assert [made.report(trial, 1, 0.1) for _ in range(2)] == [TrialScheduler.STOP] * 2


def test_what_runs_is_known_after_every_step(made):
    running, waiting = made.suggest(), made.suggest()
    waiting.status = Trial.PENDING
    made.driver.on_step_end(iteration=0, trials=[])
    assert made.run.state.running == {0}
    made.complete(running)
    made.driver.on_step_end(iteration=1, trials=[])
    assert made.run.state.running == set()


def test_a_ctrl_c_ends_the_search_between_two_steps(made):
    made.driver.on_step_end(iteration=0, trials=[])
    made.run.interrupts.pending = True
    with pytest.raises(KeyboardInterrupt):
        made.driver.on_step_end(iteration=1, trials=[])


def test_a_signal_that_also_killed_ray_is_an_interruption_and_not_a_lost_ray(made, monkeypatch):
    """`docker stop` and a batch system send SIGTERM to Ray's processes too."""

    def fail(workers):
        raise RayLostError("its process raylet died")

    monkeypatch.setattr(made.watchdog, "look", fail)
    made.run.interrupts.pending = True
    with pytest.raises(KeyboardInterrupt):
        made.driver.on_step_end(iteration=0, trials=[])


def test_a_trial_whose_worker_died_too_often_has_failed(made):
    trial = made.suggest()
    made.recover(trial)
    made.recover(trial)
    made.fail(trial)
    assert made.record().error == "its worker died 3 times; see tune/trial_0000/error.txt"


def test_a_trial_whose_worker_hung_says_so(made, monkeypatch):
    trial = made.suggest()
    monkeypatch.setattr(made.watchdog, "num_hung", lambda number: 2)
    made.recover(trial)
    made.recover(trial)
    made.fail(trial)
    assert "its worker died 1 time and sent no report for search.trial_timeout and was ended 2 times" in made.record().error


def test_the_death_of_a_worker_between_two_trials_ends_the_search_and_not_the_trial(made):
    trial = made.suggest()
    # Tune (2.60) calls both in the same step.
    made.driver.on_trial_recover(iteration=5, trials=[], trial=trial)
    made.iteration = 5
    assert isinstance(reason_of(made.fail, trial), RayLostError)
    assert made.record().status == "running"


def test_a_checkpoint_that_does_not_fit_on_the_disk_ends_the_search(made):
    result = {"unsaved": "/x/checkpoint_0.pt: cannot be written: No space left on device."}
    reason = reason_of(made.scheduler.on_trial_result, None, made.suggest(), result)
    assert isinstance(reason, StorageError)
    assert "No space left" in str(reason)


def test_a_bug_in_any_hook_ends_the_search_with_the_bug_itself_as_the_reason(made, monkeypatch):
    trial, bug = made.suggest(), KeyError("a bug")

    def fail(*given, **named):
        raise bug

    monkeypatch.setattr(made.run, "record", fail)
    monkeypatch.setattr(made.run, "step", fail)
    monkeypatch.setattr(tune_adapter, "_number", fail)
    made.driver._capacity = SimpleNamespace(limit=fail)
    hooks = made.driver
    calls = [
        lambda: made.searcher.suggest("x"),
        lambda: made.scheduler.on_trial_add(None, trial),
        lambda: made.report(trial, 1),
        lambda: hooks.on_step_begin(iteration=0, trials=[]),
        lambda: hooks.on_step_end(iteration=0, trials=[]),
        lambda: made.complete(trial),
        lambda: made.recover(trial),
        lambda: made.fail(trial),
    ]
    assert [reason_of(call) for call in calls] == [bug] * len(calls)


def test_an_error_of_rays_in_a_hook_is_kept_as_that(made, monkeypatch):
    def fail(*given):
        raise RayActorError

    monkeypatch.setattr(made.watchdog, "look", fail)
    assert isinstance(reason_of(lambda: made.driver.on_step_end(iteration=0, trials=[])), RayActorError)


def test_nothing_of_ours_is_pickled_into_the_runs_folder(made):
    for part in (made.searcher, made.scheduler, made.driver):
        assert vars(pickle.loads(pickle.dumps(part))) == {}


def test_nodes_on_one_host_are_told_apart_and_have_the_same_names_in_every_run(hosts):
    hosts.update({"aaa": "box", "bbb": "box", "ccc": "other"})
    labels = NodeLabels()
    assert [labels.label(node) for node in ("bbb", "ccc", "aaa", "bbb", "zzz")] == ["box", "other", "box#2", "box", "unknown"]


@pytest.fixture
def joined(make_active_run):
    """A search on a joined cluster, where one node cannot keep checkpoints."""
    said = []
    capacity = SimpleNamespace(probe=StorageProbe("/nfs/run/tune", said.append), limit=lambda: 7)
    made = Made(make_active_run("search.samples=3"), capacity)
    made.said = said
    return made


UNREACHED = {"unreached": "Permission denied", "node_id": "new"}


def test_a_trial_on_a_node_that_has_not_answered_yet_starts_again_elsewhere_without_having_failed(joined):
    trial = joined.suggest()
    assert joined.scheduler.on_trial_result(None, trial, UNREACHED) == TrialScheduler.CONTINUE
    joined.recover(trial)
    # Tune counts one failure more, and so do its limit and nobody else.
    assert trial.max_failures == 3
    joined.fail(trial)
    assert "its worker died 1 time;" in joined.record().error
    joined.scheduler.on_trial_result(None, joined.suggest(), UNREACHED)
    assert joined.said == ["node new is not used: /nfs/run/tune: Permission denied"]


def test_a_node_that_could_keep_checkpoints_before_is_not_to_blame(joined):
    joined.driver._capacity.probe.good.add("new")
    reason = reason_of(joined.scheduler.on_trial_result, None, joined.suggest(), UNREACHED)
    assert str(reason) == "/nfs/run/tune: Permission denied"


def test_the_clusters_capacity_limits_how_many_trials_run(joined):
    joined.driver.on_step_begin(iteration=0, trials=[])
    assert joined.driver.limiter.max_concurrent == 7
