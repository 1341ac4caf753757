"""Ray's dashboard as its users see it, page by page, while a run goes on."""

from dataclasses import dataclass, field

from playwright.sync_api import Page

TOKEN_FIELD = "Enter your authentication token"


@dataclass
class Visit:
    """The words of the pages."""

    texts: dict[str, str] = field(default_factory=dict)
    refused: str = ""
    """What is said of a wrong token."""

    def log_in(self, page: Page, address: str, token: str) -> None:
        """Come with a wrong token first."""
        page.goto(address)
        page.get_by_placeholder(TOKEN_FIELD).fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_text("token is invalid").first.wait_for()
        self.refused = page.get_by_role("dialog").inner_text()
        page.get_by_placeholder(TOKEN_FIELD).fill(token)
        page.keyboard.press("Enter")
        page.get_by_role("dialog").wait_for(state="hidden")

    def see_pages(self, page: Page, address: str, run: str) -> None:
        """Job, workers and trials of this run, whose first two trials have to be there or to come."""
        page.goto(f"{address}/#/jobs")
        page.get_by_text(f"digit_search {run}").first.wait_for()
        self.texts["jobs"] = page.locator("tbody").first.inner_text()
        job = page.locator("tbody a").first.inner_text()
        page.goto(f"{address}/#/jobs/{job}/actors")
        page.get_by_text(f"{run} worker (first trial_0000)").first.wait_for()
        page.get_by_text(f"{run} worker (first trial_0001)").first.wait_for()
        self.texts["actors"] = page.locator("tbody").first.inner_text()
        page.locator("tr", has_text=f"digit_search {run}").locator("a").first.click()
        page.get_by_text("Tasks History").click()
        page.get_by_text("trial_0000: ").first.wait_for()
        self.texts["board"] = page.locator("tbody").last.inner_text()
