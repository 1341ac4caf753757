"""Ray's dashboard during a run and optuna-dashboard after it, in a real browser."""

import time

import pytest

from digit_search.machine_limits import usable_cores
from tests.browser.ray_dashboard import log_in, read_pages
from tests.programs import ask, program
from tests.smoke_run import announced_dashboard, smoke_process

pytestmark = [pytest.mark.ray, pytest.mark.browser]
PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def visit(browser, tmp_path_factory) -> dict[str, str]:
    """The text of Ray's pages during a search. Its first two trials run until the pages have been read."""
    if usable_cores() < 2:
        pytest.skip("needs two cores, for two trials at a time")
    results = tmp_path_factory.mktemp("visited")
    with smoke_process(results, "long", "--gpus-per-trial", "0", "--set", "search.asha.max_epochs=1000") as process:
        deadline = time.monotonic() + 120
        while not (dashboard := announced_dashboard(results)):
            assert process.poll() is None, (results / "err").read_text()
            assert time.monotonic() < deadline, (results / "out").read_text()
            time.sleep(0.2)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        texts = {"refused": log_in(page, *dashboard)} | read_pages(page, dashboard[0], "long")
        page.close()
    return texts


def test_rays_dashboard_requires_the_token_from_the_printed_command(visit):
    assert "ray get-auth-token" in visit["refused"]


def test_rays_dashboard_lists_our_job_by_the_name_of_its_run(visit):
    assert "digit_search long (3 trials)" in visit["jobs"]
    assert "RUNNING" in visit["jobs"]


def test_rays_dashboard_lists_the_workers_by_different_names(visit):
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
        text = opened.page.locator("#root, body").first.inner_text()
    for expected in ("baseline", "val_accuracy", "Intermediate Values", "batch_size 32"):
        assert expected in text
    assert not [problem for problem in opened.problems if problem.startswith("error")]
