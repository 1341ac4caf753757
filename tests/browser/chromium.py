"""The system's Chromium, where there is one."""

import shutil

PROGRAMS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
"""What a container needs, and nothing that calls anybody by itself."""


def chromium() -> str | None:
    """The first Chromium on the path."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)
