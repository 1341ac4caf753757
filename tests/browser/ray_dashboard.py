"""Reads the pages of Ray's dashboard during a run."""

from playwright.sync_api import Page

TOKEN_FIELD = "Enter your authentication token"


def log_in(page: Page, address: str, token: str) -> str:
    """Try a wrong token, then log in with the right one. Return the message about the wrong token."""
    page.goto(address)
    page.get_by_placeholder(TOKEN_FIELD).fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_text("token is invalid").first.wait_for()
    message = page.get_by_role("dialog").inner_text()
    page.get_by_placeholder(TOKEN_FIELD).fill(token)
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for(state="hidden")
    return message


def read_pages(page: Page, address: str, run: str) -> dict[str, str]:
    """The text of the pages `jobs`, `actors` and `board` about this run. Waits until its first two trials are on them."""
    texts = {}
    page.goto(f"{address}/#/jobs")
    page.get_by_text(f"digit_search {run}").first.wait_for()
    texts["jobs"] = page.locator("tbody").first.inner_text()
    job = page.locator("tbody a").first.inner_text()
    page.goto(f"{address}/#/jobs/{job}/actors")
    page.get_by_text(f"{run} worker (first trial_0000)").first.wait_for()
    page.get_by_text(f"{run} worker (first trial_0001)").first.wait_for()
    texts["actors"] = page.locator("tbody").first.inner_text()
    page.locator("tr", has_text=f"digit_search {run}").locator("a").first.click()
    page.get_by_text("Tasks History").click()
    page.get_by_text("trial_0000: ").first.wait_for()
    texts["board"] = page.locator("tbody").last.inner_text()
    return texts
