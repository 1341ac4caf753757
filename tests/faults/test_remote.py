"""A run that is kept in a store goes on from there alone: its driver's machine and disk are gone."""

import shutil

from tests.faults.runs import Run, assert_gone, kill_all, reported


def test_a_run_whose_machine_is_lost_goes_on_from_the_store_as_if_nothing_had_happened(tmp_path, tiny_data, untouched):
    run = Run(tmp_path / "store", tiny_data, scheme="file://", environment={"XDG_CACHE_HOME": str(tmp_path / "cache")})
    run.start()
    assert run.wait_for(reported(2)), run.output
    children = run.processes()
    run.process.kill()
    kill_all(children)
    run.end(-9)
    assert_gone(children)
    # A machine that is lost takes its disk along, and after some minutes its hold of the run.
    shutil.rmtree(tmp_path / "cache" / "digit_search" / "runs")
    (run.folder / ".lock").unlink()

    run.start()
    run.end(0)
    assert f"file://{run.folder}/report.html" in run.output
    assert run.products() == untouched
    assert run.lost_and_doubled() == (0, 0)
    assert not list(run.folder.rglob("checkpoint_*"))
    assert not list((tmp_path / "cache" / "digit_search" / "runs").iterdir())
    assert {path.name for path in run.folder.rglob("*")} >= {"report.html", "report.md", "study.journal", "config.toml", "validation.arrow"}
    assert list(run.folder.glob("tune/trial_0003/events.out.tfevents.*"))
