"""A run in an object store resumes from the store only, after the driver's machine and disk are lost."""

import shutil

import pytest

from tests.faults.runs import Run, assert_gone, has_reported, kill_all


@pytest.mark.ray
def test_a_run_whose_machine_is_lost_resumes_from_the_store_and_gives_the_same_bytes(tmp_path, tiny_data, untouched):
    run = Run(tmp_path / "store", tiny_data, scheme="file://", environment={"XDG_CACHE_HOME": str(tmp_path / "cache")})
    run.start()
    assert run.wait_until(has_reported(2)), run.output
    children = run.processes()
    run.process.kill()
    kill_all(children)
    run.wait(-9)
    assert_gone(children)
    # The working copy is lost with the machine. The lock expires after some minutes.
    shutil.rmtree(tmp_path / "cache" / "digit_search" / "runs")
    (run.folder / ".lock").unlink()

    run.start()
    run.wait(0)
    assert f"file://{run.folder}/report.html" in run.output
    assert run.products() == untouched
    assert run.lost_and_repeated() == (0, 0)
    assert not list(run.folder.rglob("checkpoint_*"))
    assert not list((tmp_path / "cache" / "digit_search" / "runs").iterdir())
    assert {path.name for path in run.folder.rglob("*")} >= {"report.html", "report.md", "study.journal", "config.toml", "validation.arrow"}
    assert list(run.folder.glob("tune/trial_0003/events.out.tfevents.*"))
