"""report.html: the whole comparison of the trials in one file that needs no network."""

from collections.abc import Sequence
from pathlib import Path

from digit_search.config.loading import to_toml
from digit_search.records import TrialOrigin, TrialRecord
from digit_search.report.formats import flatten
from digit_search.report.html import Html, element, join, link
from digit_search.report.importance import Importance
from digit_search.report.page_frame import html_page
from digit_search.report.page_model import model_part
from digit_search.report.page_result import bullets, facts, gaps_section, picture, result_section, section
from digit_search.report.page_trials import narrow_css, trial_details, trials_table
from digit_search.report.parameters import param_scale
from digit_search.report.plots.contour import contour_plot
from digit_search.report.plots.curves import learning_curves
from digit_search.report.plots.importance import importance_plot
from digit_search.report.plots.parallel import parallel_coordinates
from digit_search.report.plots.search import history_plots, scored_points, slice_plots
from digit_search.report.plots.timeline import timeline
from digit_search.report.run_data import RunData
from digit_search.report.summary import Summary
from digit_search.report.timeline import WorkClock
from digit_search.report.wording import METHODS, importance_verdict, state
from digit_search.selection.ranking import ranked

NO_SCORE = "There is nothing to show yet: no trial has a score."
NO_TRIAL = "No trial has begun."
NO_TIMES = "No trial tells when it began, so there is no timeline."
TOO_MANY = "There are too many trials for a timeline; events.jsonl tells when each began and ended."
MAX_DRAWN = 900
NUM_BEST_DRAWN = 100
NAVIGATION = (
    *(("result", "Result"), ("gaps", "What was not done"), ("trials", "Trials"), ("curves", "Learning curves"), ("search", "The search")),
    *(("model", "The final model"), ("details", "Each trial"), ("made", "How it was made")),
)


def build_page(run: RunData, summary: Summary) -> str:
    """The page as HTML, the same for the same files."""
    title = f"{summary.run}: report of the search"
    return html_page(title, _header(summary), _main(run, summary), more_css=narrow_css(run.state.trials))


def _header(summary: Summary) -> Html:
    links = (element("li", link(text, f"#{name}")) for name, text in NAVIGATION)
    navigation = element("nav", element("ul", *links), aria_label="Sections")
    return element("header", element("h1", f"Run {summary.run}"), element("p", state(summary), class_="muted"), navigation)


def _main(run: RunData, summary: Summary) -> Html:
    records, history = run.state.trials, run.state
    curves = picture(learning_curves(drawn_trials(run), history.rungs, run.rank_by, history.confirmed), NO_SCORE)
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
    records, space = drawn_trials(run), run.settings.search.space
    history, slices = history_plots(records, run.rank_by), slice_plots(records, run.rank_by, space)
    few = "" if len(records) == len(run.state.trials) else f"The pictures show {len(records)} of {len(run.state.trials)} trials."
    note = "Each trial at its best epoch. A stopped trial had fewer epochs to get there, so compare like with like."
    sliced = element("div", *(picture(drawn, "") for drawn in slices), class_="plots")
    return join(
        element("p", few, class_="muted") if few else "",
        element("div", *(picture(drawn, "") for drawn in history), class_="plots") if history else element("p", NO_SCORE, class_="missing"),
        join(element("h3", "Accuracy along each parameter"), element("p", note, class_="muted"), sliced) if slices else "",
        _importance_part(run, summary.importances, summary.num_candidates) if history else "",
        picture(parallel_coordinates(records, run.rank_by, space), "") if history else "",
        picture(None if few else timeline(records, WorkClock(run.state.spans), run.state.reports), TOO_MANY if few else NO_TIMES),
    )


def drawn_trials(run: RunData) -> Sequence[TrialRecord]:
    """All trials, or of very many the best, the baseline, and every so manieth of the others, so that the page stays small."""
    records = run.state.trials
    if len(records) <= MAX_DRAWN:
        return records
    step = -(-len(records) // (MAX_DRAWN - NUM_BEST_DRAWN - 1))
    kept = {record.trial for record in [*ranked(records, run.rank_by)[:NUM_BEST_DRAWN], *records[::step]]}
    return [record for record in records if record.trial in kept or record.origin is TrialOrigin.BASELINE]


def _importance_part(run: RunData, found: Sequence[Importance], num_trials: int) -> Html:
    """Which parameters matter, and the accuracy over the two that matter most."""
    points = scored_points(drawn_trials(run), run.rank_by)
    space = run.settings.search.space
    chosen = [record for record, _ in points]
    told = element("p", importance_verdict(found, num_trials))
    if not found:
        return join(element("h3", "What matters most"), told)
    scales = [param_scale(importance.name, chosen, space.get(importance.name)) for importance in found[:2]]
    drawn = [importance_plot(found, num_trials), *([contour_plot(points, *scales)] if len(scales) == 2 else [])]
    return join(element("h3", "What matters most"), told, element("div", *(picture(each, "") for each in drawn if each), class_="plots"))


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
