"""Finds the system's Chromium."""

import shutil

PROGRAMS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
"""The first are needed in a container. The others keep Chromium from using the network by itself."""


def chromium() -> str | None:
    """The first of the programs that is on PATH."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)
