"""Ray's dashboard as its users see it, page by page, while a run goes on."""

from playwright.sync_api import Page

TOKEN_FIELD = "Enter your authentication token"


def log_in(page: Page, address: str, token: str) -> str:
    """Log in, with a wrong token first; return what is said of that."""
    page.goto(address)
    page.get_by_placeholder(TOKEN_FIELD).fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_text("token is invalid").first.wait_for()
    said = page.get_by_role("dialog").inner_text()
    page.get_by_placeholder(TOKEN_FIELD).fill(token)
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for(state="hidden")
    return said


def see_pages(page: Page, address: str, run: str) -> dict[str, str]:
    """The words of the pages `jobs`, `actors` and `board` about this run, whose first two trials are there or will be soon."""
    words = {}
    page.goto(f"{address}/#/jobs")
    page.get_by_text(f"digit_search {run}").first.wait_for()
    words["jobs"] = page.locator("tbody").first.inner_text()
    job = page.locator("tbody a").first.inner_text()
    page.goto(f"{address}/#/jobs/{job}/actors")
    page.get_by_text(f"{run} worker (first trial_0000)").first.wait_for()
    page.get_by_text(f"{run} worker (first trial_0001)").first.wait_for()
    words["actors"] = page.locator("tbody").first.inner_text()
    page.locator("tr", has_text=f"digit_search {run}").locator("a").first.click()
    page.get_by_text("Tasks History").click()
    page.get_by_text("trial_0000: ").first.wait_for()
    words["board"] = page.locator("tbody").last.inner_text()
    return words
