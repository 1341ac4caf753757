"""Other people's pages about our runs, in a real browser: Ray's dashboard during a run, optuna-dashboard after it."""

import time

import pytest

from digit_search.machine_limits import usable_cores
from tests.browser.ray_dashboard import log_in, see_pages
from tests.programs import ask, program
from tests.smoke_run import announced_dashboard, smoke_process

pytestmark = [pytest.mark.ray, pytest.mark.browser]
PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def visit(browser, tmp_path_factory) -> dict[str, str]:
    """The words of Ray's pages during a search whose first two trials go on for as long as one looks."""
    if usable_cores() < 2:
        pytest.skip("one trial at a time here, where two are to be seen")
    results = tmp_path_factory.mktemp("visited")
    with smoke_process(results, "long", "--gpus-per-trial", "0", "--set", "search.asha.max_epochs=1000") as process:
        deadline = time.monotonic() + 120
        while not (found := announced_dashboard(results)):
            assert process.poll() is None, (results / "err").read_text()
            assert time.monotonic() < deadline, (results / "out").read_text()
            time.sleep(0.2)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        words = {"refused": log_in(page, *found)} | see_pages(page, found[0], "long")
        page.close()
    return words


def test_rays_dashboard_wants_the_token_that_the_printed_command_gives(visit):
    assert "ray get-auth-token" in visit["refused"]


def test_rays_dashboard_lists_our_job_by_its_runs_name(visit):
    assert "digit_search long (3 trials)" in visit["jobs"]
    assert "RUNNING" in visit["jobs"]


def test_rays_dashboard_lists_the_workers_by_names_that_tell_them_apart(visit):
    for name in ("long worker (first trial_0000)", "long worker (first trial_0001)", "TrialWorker"):
        assert name in visit["actors"]
    assert "ImplicitFunc" not in visit["actors"]


def test_rays_dashboard_lists_the_trials_with_their_parameters_as_tasks(visit):
    assert "trial_0000: lr 0.01, gamma 0.05, step_size 5, batch_size 32" in visit["board"]
    assert "RUNNING" in visit["board"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_optuna_dashboard_shows_the_studys_curves_and_attributes(smoke_run, open_page, theme):
    with program("optuna-dashboard", "--port", "{port}", smoke_run.folder / "study.journal") as address:
        ask(f"{address}/api/studies")
        opened = open_page(f"{address}/dashboard/studies/0", theme=theme)
        opened.page.get_by_text("Intermediate values").wait_for()
        opened.page.get_by_text("val_loss").first.wait_for()
        opened.page.goto(f"{address}/dashboard/studies/0/trials?numbers=0")
        opened.page.get_by_text("origin").wait_for()
        words = opened.page.locator("#root, body").first.inner_text()
    for word in ("baseline", "val_accuracy", "Intermediate Values", "batch_size 32"):
        assert word in words
    assert not [problem for problem in opened.problems if problem.startswith("error")]
