"""Runs that are broken and go on, each fault at its most telling moment; `test_many_faults.py` takes random ones."""

from tests.faults.runs import Run, assert_gone, in_phase, kill_all, newest_checkpoint, reported


def test_a_run_that_is_ended_thrice_goes_on_each_time_as_if_nothing_had_happened(tmp_path, tiny_data, untouched):
    run = Run(tmp_path / "results", tiny_data)

    # kill -9 of the driver in the first trial, whose newest checkpoint is then cut short.
    run.start()
    assert run.wait_for(lambda events: sum(event["event"] == "epoch" for event in events) >= 2)
    children = run.processes()
    run.process.kill()
    run.end(-9)
    assert_gone(children)
    newest = newest_checkpoint(run.folder)
    newest.write_bytes(newest.read_bytes()[:-1000])

    # Ctrl-C in the third trial.
    run.start()
    assert run.wait_for(reported(2)), run.output
    children = run.processes()
    run.interrupt()
    run.end(130)
    assert f"resume {run.folder}" in run.output
    assert "Traceback" not in run.output
    assert_gone(children)
    started = {event["trial"] for event in run.events() if event["event"] == "trial_started"}
    assert started >= {0, 1, 2}
    assert len((run.folder / "trials.csv").read_text().splitlines()) == 1 + len(started)

    # kill -9 of everything at once in the retraining; the last event is torn as well.
    run.start()
    assert run.wait_for(in_phase("retrain")), run.output
    kill_all(run.processes())
    run.process.kill()
    run.end(-9)
    with (run.folder / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "retr')

    run.start()
    run.end(0)
    assert run.products() == untouched
    assert run.lost_and_doubled() == (0, 0)
    assert not list(run.folder.rglob("checkpoint_*"))
    assert not list(run.folder.rglob(".*.tmp"))


def test_a_run_goes_on_by_itself_when_a_worker_hangs_a_worker_dies_and_ray_dies(tmp_path, tiny_data, untouched):
    run = Run(tmp_path / "results", tiny_data)
    run.start()
    assert run.wait_for(reported(0)), run.output
    for worker in run.processes("TrialWorker", "run worker"):
        worker.suspend()
    assert run.wait_for(reported(1)), run.output
    assert "its worker is ended" in (run.folder / "search.log").read_text()
    kill_all(run.processes("TrialWorker", "run worker"))
    assert run.wait_for(reported(2)), run.output
    kill_all(run.processes("raylet/raylet"))
    children = run.processes()
    run.end(0)
    assert "Ray was lost" in run.output
    assert run.products() == untouched
    assert run.lost_and_doubled() == (0, 0)
    assert_gone(children)


def test_a_full_disk_ends_a_run_in_order_and_it_goes_on_when_there_is_space(small_disk, tiny_data, untouched):
    small_disk.resize(150)
    run = Run(small_disk.path / "results", tiny_data)
    run.start()
    run.end(1)
    assert "checkpoint_0.pt: cannot be written: No space left on device" in run.output
    assert f"resume {run.folder}" in run.output
    assert "Traceback" not in run.output
    assert not list(run.folder.rglob(".*.tmp"))
    assert "failed" not in (run.folder / "trials.csv").read_text()
    small_disk.resize(1000)
    run.start()
    run.end(0)
    assert run.products() == untouched
