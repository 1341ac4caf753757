"""The report as a reader's browser shows it."""

import pytest


@pytest.fixture
def address(finished_run) -> str:
    return finished_run.report_html.absolute().as_uri()


def test_the_page_opens_without_a_complaint_and_asks_for_nothing(open_page, address):
    opened = open_page(address)
    assert opened.page.title() == "demo: report of the search"
    assert opened.problems == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [address]
