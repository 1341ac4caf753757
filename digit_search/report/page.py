"""report.html: the whole comparison of the trials in one file that needs no network."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from digit_search.config import to_toml
from digit_search.report.contour_plot import contour_plot
from digit_search.report.curve_plots import learning_curves
from digit_search.report.formats import one_line
from digit_search.report.html import Html, element, join, link
from digit_search.report.importance import Importance
from digit_search.report.importance_plot import importance_plot
from digit_search.report.page_model import model_part
from digit_search.report.page_result import bullets, facts, gaps_section, picture, result_section, section
from digit_search.report.page_trials import narrow_css, trial_details, trials_table
from digit_search.report.parallel_plot import parallel_coordinates
from digit_search.report.parameters import param_scale
from digit_search.report.run_data import RunData
from digit_search.report.search_plots import history_plots, scored_points, slice_plots
from digit_search.report.style import THEME
from digit_search.report.summary import Summary
from digit_search.report.timeline_plot import timeline
from digit_search.report.wording import METHODS, importance_verdict, state
from digit_search.report.work_clock import WorkClock

NO_SCORE = "There is nothing to show yet: no trial has a score."
NO_TRIAL = "No trial has begun."
NAVIGATION = (
    *(("result", "Result"), ("gaps", "What was not done"), ("trials", "Trials"), ("curves", "Learning curves"), ("search", "The search")),
    *(("model", "The final model"), ("details", "Each trial"), ("made", "How it was made")),
)


def build_page(run: RunData, summary: Summary) -> str:
    """The page as HTML, the same for the same files."""
    return (
        "<!doctype html>\n" + element("html", _head(run, summary), element("body", _header(summary), _main(run, summary)), lang="en") + "\n"
    )


@cache
def _asset(name: str) -> str:
    """A file that lies beside this module."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def theme_css() -> str:
    """The colours as CSS variables, for light and dark; what is printed is light."""
    light, dark = (";".join(f"--{name}:{pair[index]}" for name, pair in THEME.items()) for index in (0, 1))
    return f":root{{color-scheme:light dark;{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"


def _head(run: RunData, summary: Summary) -> Html:
    script = _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Even if foreign text slipped through the escaping, the browser would neither run it nor let it call anybody.
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{summary.run}: report of the search"),
        element("style", Html(theme_css() + _asset("page.css") + narrow_css(run.history.trials))),
        element("script", Html(script), type="module"),
    )


def _header(summary: Summary) -> Html:
    links = (element("li", link(text, f"#{name}")) for name, text in NAVIGATION)
    navigation = element("nav", element("ul", *links), aria_label="Sections")
    return element("header", element("h1", f"Run {summary.run}"), element("p", state(summary), class_="muted"), navigation)


def _main(run: RunData, summary: Summary) -> Html:
    records, history = run.history.trials, run.history
    curves = picture(learning_curves(records, history.rungs, run.rank_by), NO_SCORE)
    nothing = element("p", NO_TRIAL, class_="missing")
    return element(
        "main",
        result_section(run, summary),
        gaps_section(run, summary),
        section("trials", "Trials", trials_table(run) if records else nothing),
        section("curves", "Learning curves", curves),
        section("search", "The search", _search_part(run, summary)),
        section("model", "The final model", model_part(run)),
        section("details", "Each trial", trial_details(run) if records else nothing),
        section("made", "How it was made", _made_part(run)),
    )


def _search_part(run: RunData, summary: Summary) -> Html:
    records, space = run.history.trials, run.settings.search.space
    history, slices = history_plots(records, run.rank_by), slice_plots(records, run.rank_by, space)
    note = "Each trial at its best epoch. A stopped trial had fewer epochs to get there, so compare like with like."
    sliced = element("div", *(picture(drawn, "") for drawn in slices), class_="plots")
    return join(
        element("div", *(picture(drawn, "") for drawn in history), class_="plots") if history else element("p", NO_SCORE, class_="missing"),
        join(element("h3", "Accuracy along each parameter"), element("p", note, class_="muted"), sliced) if slices else "",
        _importance_part(run, summary.importances) if history else "",
        picture(parallel_coordinates(records, run.rank_by, space), "") if history else "",
        picture(timeline(records, WorkClock(run.history.spans)), "No trial tells when it began, so there is no timeline."),
    )


def _importance_part(run: RunData, found: Sequence[Importance]) -> Html:
    """Which parameters matter, and the accuracy over the two that matter most."""
    points = scored_points(run.history.trials, run.rank_by)
    space = run.settings.search.space
    chosen = [record for record, _ in points]
    told = element("p", importance_verdict(found, len(points)))
    if not found:
        return join(element("h3", "What matters most"), told)
    scales = [param_scale(importance.name, chosen, space.get(importance.name)) for importance in found[:2]]
    drawn = [importance_plot(found, len(points)), *([contour_plot(points, *scales)] if len(scales) == 2 else [])]
    return join(told, element("div", *(picture(each, "") for each in drawn if each), class_="plots"))


def _made_part(run: RunData) -> Html:
    files = [path for path in _shown_files(run) if path.exists()]
    places = [(link(path.name + ("/" if path.is_dir() else ""), path.name)) for path in files]
    environment = (
        facts(flatten(run.environment)) if run.environment else element("p", "The environment was not recorded.", class_="missing")
    )
    return join(
        element("h3", "How to read the numbers"),
        bullets(METHODS),
        element("h3", "Where it ran"),
        environment,
        element("h3", "Settings"),
        element("details", element("summary", "All settings, as in config.toml"), element("pre", to_toml(run.settings))),
        element("h3", "Files beside this page"),
        bullets(places) if places else element("p", "None.", class_="missing"),
    )


def _shown_files(run: RunData) -> list[Path]:
    folder = run.folder
    tables = [folder.config, folder.environment, folder.trials, folder.epochs, folder.rungs, folder.best, folder.report_md]
    return [*tables, folder.weights, folder.solution, folder.study, folder.log, folder.tune]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested tables as pairs of a dotted name and a short text."""
    rows: list[tuple[str, str]] = []
    for key, value in tree.items():
        name = f"{prefix}{one_line(str(key), 60)}"
        if isinstance(value, Mapping):
            rows += flatten(value, f"{name}.")
        else:
            rows.append((name, one_line(value if isinstance(value, str) else json.dumps(value), 200)))
    return rows
