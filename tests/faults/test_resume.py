"""Runs that are interrupted at the most critical moments and resumed; `test_many_faults.py` chooses random moments.

Each must give the same bytes as a run that was not interrupted. So these tests also show that two runs with the same seed and one worker
give the same bytes.
"""

import pytest

from tests.faults.runs import Run, assert_gone, has_reported, is_in_phase, kill_all, newest_checkpoint

pytestmark = pytest.mark.ray


def test_a_run_that_is_stopped_three_times_gives_the_same_bytes(tmp_path, tiny_data, untouched):
    run = Run(tmp_path / "results", tiny_data)

    # kill -9 of the driver during the first trial. Its newest checkpoint is then truncated.
    run.start()
    assert run.wait_until(lambda events: sum(event["event"] == "epoch" for event in events) >= 2)
    of_first = run.processes()
    run.process.kill()
    run.wait(-9)
    assert_gone(of_first, except_agents=True)
    newest = newest_checkpoint(run.folder)
    newest.write_bytes(newest.read_bytes()[:-1000])

    # Ctrl-C during the third trial.
    run.start()
    assert run.wait_until(has_reported(2)), run.output
    children = run.processes()
    run.interrupt()
    run.wait(130)
    assert f"resume {run.folder}" in run.output
    assert "Traceback" not in run.output
    assert_gone(children)
    started = {event["trial"] for event in run.events() if event["event"] == "trial_started"}
    assert started >= {0, 1, 2}
    assert len((run.folder / "trials.csv").read_text(encoding="utf-8").splitlines()) == 1 + len(started)

    # kill -9 of all processes during the retraining. The last event is incomplete.
    run.start()
    assert run.wait_until(is_in_phase("retrain")), run.output
    kill_all(run.processes())
    run.process.kill()
    run.wait(-9)
    with (run.folder / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "retr')

    run.start()
    run.wait(0)
    assert run.products() == untouched
    assert run.lost_and_repeated() == (0, 0)
    assert_gone(of_first, was_killed=True)
    assert not list(run.folder.rglob("checkpoint_*"))
    assert not list(run.folder.rglob(".*.tmp"))


def test_a_run_continues_by_itself_when_a_worker_hangs_a_worker_dies_and_ray_dies(tmp_path, tiny_data, untouched):
    run = Run(tmp_path / "results", tiny_data)
    run.start()
    assert run.wait_until(has_reported(0)), run.output
    for worker in run.processes("TrialWorker", "run worker"):
        worker.suspend()
    assert run.wait_until(has_reported(1)), run.output
    assert "its worker is ended" in (run.folder / "search.log").read_text(encoding="utf-8")
    kill_all(run.processes("TrialWorker", "run worker"))
    assert run.wait_until(has_reported(2)), run.output
    kill_all(run.processes("raylet/raylet"))
    children = run.processes()
    run.wait(0)
    assert "Ray was lost" in run.output
    assert run.products() == untouched
    assert run.lost_and_repeated() == (0, 0)
    assert_gone(children)


def test_a_full_disk_stops_a_run_with_a_clear_message_and_it_resumes_when_there_is_space(small_disk, tiny_data, untouched):
    small_disk.resize(150)
    run = Run(small_disk.path / "results", tiny_data)
    run.start()
    run.wait(1)
    assert "checkpoint_0.pt: cannot be written: No space left on device" in run.output
    assert f"resume {run.folder}" in run.output
    assert "Traceback" not in run.output
    assert not list(run.folder.rglob(".*.tmp"))
    assert "failed" not in (run.folder / "trials.csv").read_text(encoding="utf-8")
    small_disk.resize(1000)
    run.start()
    run.wait(0)
    assert run.products() == untouched
