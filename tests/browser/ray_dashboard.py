"""Ray's dashboard as its users see it, page by page, while a run goes on."""

from dataclasses import dataclass, field
from typing import Self

from playwright.sync_api import Error, Page, sync_playwright

from tests.browser.chromium import ARGUMENTS

PATIENCE_MS = 60_000
TOKEN_FIELD = "Enter your authentication token"


@dataclass
class Visit:
    """The words of the pages, or why they could not be seen."""

    texts: dict[str, str] = field(default_factory=dict)
    refused: str = ""
    """What is said of a wrong token."""
    trouble: str = ""

    def look(self, program: str, address: str, token: str, run: str) -> Self:
        """Go through the pages with a browser of our own: this is done in a thread beside the run."""
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
                page = browser.new_page(viewport={"width": 1400, "height": 1000})
                page.set_default_timeout(PATIENCE_MS)
                self._log_in(page, address, token)
                self._see_pages(page, address, run)
                browser.close()
        except Error as error:
            self.trouble = str(error)
        return self

    def _log_in(self, page: Page, address: str, token: str) -> None:
        page.goto(address)
        page.get_by_placeholder(TOKEN_FIELD).fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_text("token is invalid").first.wait_for()
        self.refused = page.get_by_role("dialog").inner_text()
        page.get_by_placeholder(TOKEN_FIELD).fill(token)
        page.keyboard.press("Enter")
        page.get_by_role("dialog").wait_for(state="hidden")

    def _see_pages(self, page: Page, address: str, run: str) -> None:
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
