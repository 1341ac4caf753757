from digit_search.records import TrialStatus
from digit_search.report.timeline import WorkClock, worker_lanes

CLOCK = WorkClock([(0.0, 1e6)])
CLOCK_WITH_PAUSE = WorkClock([(100.0, 150.0), (10_100.0, 10_200.0)])


def trials(lane):
    return [record.trial for record, _, _ in lane.trials]


def times(lane):
    return [(begin, end) for _, begin, end in lane.trials]


def test_the_clock_counts_work_only_and_stops_during_a_pause():
    assert CLOCK_WITH_PAUSE.seconds == 150.0
    assert [CLOCK_WITH_PAUSE.at(moment) for moment in (0.0, 120.0, 5000.0, 10_110.0, 20_000.0)] == [0.0, 20.0, 50.0, 60.0, 150.0]
    assert CLOCK_WITH_PAUSE.rests == [(50.0, 9950.0)]


def test_a_clock_without_spans_stands_at_zero():
    assert WorkClock().seconds == WorkClock().at(5.0) == 0.0
    assert WorkClock().rests == []


def test_trials_that_overlap_need_two_workers_and_others_share_one(make_record):
    spans = [(100.0, 200.0), (150.0, 250.0), (200.0, 300.0)]
    records = [make_record(trial, [], started_at=begin, ended_at=end, node="n") for trial, (begin, end) in enumerate(spans)]
    lanes = worker_lanes(records, CLOCK)
    assert [trials(lane) for lane in lanes] == [[0, 2], [1]]
    assert [lane.busy_seconds for lane in lanes] == [200.0, 100.0]


def test_a_free_trial_goes_to_the_worker_that_has_been_idle_for_the_longest_time(make_record):
    spans = [(100.0, 200.0), (100.0, 150.0), (300.0, 310.0)]
    records = [make_record(trial, [], started_at=begin, ended_at=end, node="n") for trial, (begin, end) in enumerate(spans)]
    assert [trials(lane) for lane in worker_lanes(records, CLOCK)] == [[0], [1, 2]]


def test_a_trial_that_waited_for_a_worker_begins_when_its_work_begins(make_record):
    # Each epoch of these records took 10.5 seconds.
    first = make_record(0, [(0.9, 0.1)] * 2, started_at=100.0, ended_at=121.0, node="n")
    ahead = make_record(1, [(0.9, 0.1)] * 2, started_at=101.0, ended_at=142.0, node="n")
    (lane,) = worker_lanes([first, ahead], CLOCK)
    assert times(lane) == [(100.0, 121.0), (121.0, 142.0)]


def test_a_running_trial_is_busy_until_the_end_and_each_node_has_its_own_workers(make_record):
    running = make_record(0, [], TrialStatus.RUNNING, started_at=100.0, node="a")
    other = make_record(1, [], started_at=300.0, ended_at=310.0, node="b")
    lanes = worker_lanes([running, other], WorkClock([(0.0, 310.0)]))
    assert [(lane.node, lane.busy_seconds) for lane in lanes] == [("a", 210.0), ("b", 10.0)]


def test_a_trial_without_a_node_ran_on_the_only_node_of_the_run(make_record):
    silent = make_record(0, [], started_at=100.0, ended_at=110.0)
    other = make_record(1, [], started_at=300.0, ended_at=310.0, node="n")
    assert [(lane.node, trials(lane)) for lane in worker_lanes([silent, other], CLOCK)] == [("n", [0, 1])]


def test_a_trial_whose_begin_is_unknown_has_no_worker(make_record):
    assert worker_lanes([make_record(0, [(0.9, 0.1)], ended_at=110.0)], CLOCK) == []


def test_a_pause_takes_no_time_of_a_worker(make_record):
    # The first trial was interrupted and continued after the pause; each epoch of these records took 10.5 seconds.
    across = make_record(0, [(0.9, 0.1)] * 6, started_at=110.0, ended_at=10_120.0, node="n")
    after = make_record(1, [(0.9, 0.1)], started_at=10_130.0, ended_at=10_150.0, node="n")
    (lane,) = worker_lanes([across, after], CLOCK_WITH_PAUSE)
    assert times(lane) == [(10.0, 70.0), (89.5, 100.0)]


def test_the_worker_of_an_interrupted_trial_is_idle_from_the_last_report_until_the_resume(make_record):
    record = make_record(0, [(0.9, 0.1)] * 2, started_at=110.0, ended_at=10_160.0, node="n")
    # Two reports before the pause, of which the second is repeated after it.
    reports = {0: [(at, record.epochs[0]) for at in (125.0, 140.0, 10_160.0)]}
    (lane,) = worker_lanes([record], CLOCK_WITH_PAUSE, reports)
    assert times(lane) == [(14.5, 40.0), (99.5, 110.0)]
