"""A headless Chromium (the system's, controlled by playwright), and pages that record their errors and requests."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.browser.chromium import ARGUMENTS, PROGRAMS, chromium

DESKTOP = (1280, 900)
PHONE = (390, 844)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser per module. While playwright's event loop runs, other tests cannot run theirs."""
    program = chromium()
    if program is None:
        pytest.skip(f"no Chromium found (looked for {', '.join(PROGRAMS)}); Debian's comes with: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield browser
        browser.close()


@dataclass
class Opened:
    """A page, with the errors of its console and of its network."""

    page: Page
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """The addresses of all requests."""

    def __post_init__(self) -> None:
        self.page.on("console", self._record)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("requestfailed", lambda request: self.problems.append(f"not loaded: {request.url:.200}"))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _record(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.type}: {message.text}")


@pytest.fixture
def open_page(browser) -> Iterator[Callable[..., Opened]]:
    """Open an address in a new window: `open_page(address, size=PHONE, theme="dark", script=False)`."""
    contexts = []

    def open_address(address: str, *, size: tuple[int, int] = DESKTOP, theme: str = "light", script: bool = True) -> Opened:
        viewport = {"width": size[0], "height": size[1]}
        contexts.append(browser.new_context(viewport=viewport, color_scheme=theme, java_script_enabled=script))
        contexts[-1].set_default_timeout(10_000)
        opened = Opened(contexts[-1].new_page())
        opened.page.goto(address)
        return opened

    yield open_address
    for context in contexts:
        context.close()
