"""The report and the comparison of two runs as a reader's browser shows them."""

import pytest

from digit_search.records import TrialStatus
from digit_search.report.build import write_comparison

pytestmark = pytest.mark.browser
DESKTOP, NARROW, PHONE = (1280, 900), (1200, 800), (390, 844)
NUM_TRIALS = 5

CONTRASTS = """() => {
  const channel = (value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parse = (color) => {
    const numbers = color.match(/[\\d.]+/g).map(Number);
    return color.startsWith("color(srgb") ? [...numbers.slice(0, 3).map((part) => part * 255), numbers[3] ?? 1] : numbers;
  };
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const color = parse(getComputedStyle(element).backgroundColor);
      if ((color[3] ?? 1) > 0) return color;
    }
    return [255, 255, 255];
  };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest("title, style, script")) continue;
    const style = getComputedStyle(element);
    const [a, b] = [parse(element.closest("svg") ? style.fill : style.color), ground(element)].map(luminance);
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) bad.push(`${contrast.toFixed(2)}: ${walker.currentNode.data.trim().slice(0, 40)}`);
  }
  return bad;
}"""
UNLOADED = """() => [
  ...[...document.images].filter((image) => !image.complete || !image.naturalWidth || !image.alt).map((image) => image.outerHTML),
  ...[...document.querySelectorAll("svg")].filter((svg) => {
    const box = svg.getBoundingClientRect();
    const isEmpty = !box.width || !box.height || !svg.querySelector("path, polyline") || !svg.querySelector("title").textContent;
    return svg.checkVisibility() && isEmpty;
  }).map((svg) => svg.outerHTML.slice(0, 200)),
]"""
TOO_WIDE = """() => {
  const sticksOut = (element) => {
    const box = element.getBoundingClientRect();
    return box.width && box.right > innerWidth + 1 && !element.closest(".scroll > *");
  };
  return [...document.body.querySelectorAll("*")].filter(sticksOut).map((element) => element.outerHTML.slice(0, 120));
}"""
COMES_LATER = """() => {
  const [before, now] = [window.focusedBefore, document.activeElement];
  window.focusedBefore = now;
  return !before || Boolean(before.compareDocumentPosition(now) & Node.DOCUMENT_POSITION_FOLLOWING);
}"""
HIDDEN_COLUMNS = """() => {
  const box = document.getElementById("trials-table").parentElement;
  return box.scrollWidth - box.clientWidth;
}"""


@pytest.fixture
def address(finished_run) -> str:
    return finished_run.report_html.absolute().as_uri()


@pytest.fixture
def comparison(make_run, finished_run, tmp_path):
    """The address of the comparison of two runs."""
    other = make_run([TrialStatus.COMPLETED, TrialStatus.STOPPED, TrialStatus.COMPLETED], name="other")
    write_comparison([finished_run, other], tmp_path / "comparison.html")
    return (tmp_path / "comparison.html").as_uri()


def column(page, name: str) -> list[str]:
    """The cells of the rows that are shown, under this heading."""
    heads = [text.strip() for text in page.locator("#trials-table thead th").all_inner_texts()]
    place = heads.index(name)
    return [row.locator("th, td").nth(place).inner_text() for row in page.locator("#trials-table tbody tr:visible").all()]


def test_the_page_opens_without_errors_and_requests_nothing(open_page, address):
    opened = open_page(address)
    assert opened.page.title() == "demo: report of the search"
    assert opened.problems == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [address]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_pictures_have_loaded_and_all_text_has_contrast(open_page, address, comparison, theme):
    for each in (address, comparison):
        page = open_page(each, theme=theme).page
        page.evaluate("document.querySelectorAll('details').forEach((details) => (details.open = true))")
        assert page.locator("svg").count() >= 3
        assert page.evaluate(UNLOADED) == []
        assert page.evaluate(CONTRASTS) == []


def test_the_page_follows_the_systems_theme_and_print_is_light(open_page, address):
    def paper(theme, media="screen"):
        page = open_page(address, theme=theme).page
        page.emulate_media(media=media, color_scheme=theme)
        return page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--paper')")

    assert [paper("light"), paper("dark"), paper("dark", "print")] == ["#ffffff", "#14181d", "#ffffff"]


def test_the_table_sorts_by_any_column_up_and_down_with_empty_cells_last(open_page, address):
    page = open_page(address).page
    for name in [text.strip() for text in page.locator("#trials-table thead th").all_inner_texts()]:
        button = page.locator("#trials-table thead th", has_text=name).filter(has_text=name).first.locator("button")
        button.click()
        assert page.locator("#trials-table thead th[aria-sort]").count() == 1
        up = column(page, name)
        button.click()
        down = column(page, name)
        assert sorted(up) == sorted(down)
    page.get_by_role("button", name="lr").click()
    rates = [float(text) for text in column(page, "lr")]
    assert rates == sorted(rates)
    assert len(rates) == NUM_TRIALS
    page.get_by_role("button", name="val accuracy").click()
    page.get_by_role("button", name="val accuracy").click()
    accuracies = column(page, "val accuracy")
    scores = [float(text.split()[0]) for text in accuracies[:-1]]
    assert scores == sorted(scores, reverse=True)
    assert accuracies[-1] == "–"
    assert page.locator("th[aria-sort=descending]").inner_text() == "val accuracy"


def test_the_table_sorts_from_the_keyboard(open_page, address):
    page = open_page(address).page
    page.get_by_role("button", name="trial", exact=True).focus()
    page.keyboard.press("Enter")
    assert [text.split()[0] for text in column(page, "trial")] == [str(trial) for trial in range(NUM_TRIALS)]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "rank"


def test_the_table_filters_by_status_and_says_how_many_are_shown(open_page, address):
    page = open_page(address).page
    page.get_by_label("completed (2)").uncheck()
    assert set(column(page, "status")) == {"stopped", "failed", "interrupted"}
    assert page.get_by_role("status").inner_text() == "3 of 5 shown"
    page.get_by_label("completed (2)").check()
    assert len(column(page, "status")) == NUM_TRIALS


def test_a_trials_link_opens_its_curve_its_parameters_and_its_epochs(open_page, address):
    page = open_page(address).page
    page.locator("#trials-table").get_by_role("link", name="3", exact=True).click()
    details = page.locator("#trial-3[open]")
    details.wait_for()
    assert details.locator("svg.curve").is_visible()
    for text in ("Parameters: lr", "ASHA: passed the rung of epoch 1", "the loss is nan"):
        assert text in details.inner_text()
    assert details.locator("tbody tr").count() == 2


@pytest.mark.parametrize("size", [DESKTOP, NARROW, PHONE])
def test_at_every_width_all_columns_are_visible_and_nothing_is_wider_than_the_window(open_page, address, comparison, size):
    page = open_page(address, size=size).page
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate(HIDDEN_COLUMNS) <= 0
    assert page.evaluate("document.documentElement.scrollWidth") == size[0]
    page = open_page(comparison, size=size).page
    assert page.evaluate(TOO_WIDE) == []


def test_on_a_phone_each_cell_has_its_heading_and_sorting_works(open_page, address):
    page = open_page(address, size=PHONE).page
    label = "getComputedStyle(document.querySelector('#trials-table td:nth-child(4)'), '::before').content"
    assert page.evaluate(label) == '"val accuracy "'
    page.get_by_role("button", name="trial", exact=True).click()
    assert page.locator("#trials-table tbody th").first.inner_text() == "0 (baseline)"


def test_without_javascript_everything_except_the_filters_is_there(open_page, address):
    page = open_page(address, script=False).page
    assert page.locator("#trials-table tbody tr").count() == NUM_TRIALS
    assert not page.locator(".filters").is_visible()
    assert page.locator("#trial-0 summary").is_visible()


def test_the_keyboard_goes_through_the_page_in_its_order(open_page, address):
    page = open_page(address).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Result"
    for _ in range(40):
        assert page.evaluate(COMES_LATER)
        page.keyboard.press("Tab")


def test_the_comparison_of_two_runs_opens_without_errors_and_links_to_a_runs_report(open_page, comparison, address):
    opened = open_page(comparison)
    page = opened.page
    assert opened.problems == []
    assert page.locator("h1").inner_text() == "2 runs side by side"
    for name in ("Result", "What differs", "Best so far", "What matters most"):
        assert page.get_by_role("heading", name=name, level=2).is_visible()
    page.get_by_role("link", name="demo", exact=True).click()
    assert page.url == address
