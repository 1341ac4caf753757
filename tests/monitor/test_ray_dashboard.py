"""What the actor behind Ray's list of tasks does, without Ray; tests/browser tests the real one."""

import asyncio

import pytest

from digit_search.monitor.ray_dashboard import TrialBoard, job_metadata


def test_a_trials_task_lasts_until_the_trial_ends():
    async def scenario():
        board = TrialBoard("mine")
        task = asyncio.create_task(board.trial(3))
        await board.end(4, "")
        await asyncio.sleep(0)
        assert not task.done()
        await board.end(3, "")
        await task

    asyncio.run(scenario())


def test_a_failed_trials_task_fails_with_its_reason():
    async def scenario():
        board = TrialBoard("mine")
        task = asyncio.create_task(board.trial(3))
        await board.end(3, "TrialError: diverged")
        await board.end(3, "")
        await task

    with pytest.raises(RuntimeError, match="TrialError: diverged"):
        asyncio.run(scenario())


def test_the_jobs_metadata_are_texts_and_its_name_has_the_runs_name():
    metadata = job_metadata("mine", 20)
    assert metadata["job_name"] == "digit_search mine (20 trials)"
    assert metadata["samples"] == "20"
    assert all(isinstance(value, str) for value in metadata.values())
