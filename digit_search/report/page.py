"""report.html and report.md: the comparison of the trials as one page that needs no network, and in words and tables."""

from collections.abc import Sequence
from typing import Any

from digit_search.config.loading import to_toml
from digit_search.records import CORE_PARAM_NAMES, PARAM_NAMES, TrialOrigin, TrialRecord
from digit_search.report.formats import flatten
from digit_search.report.model_quality import mistakes, model_quality, sample_digits
from digit_search.report.parameters import param_scale
from digit_search.report.plots.contour import contour_plot
from digit_search.report.plots.curves import learning_curves, retrain_curves
from digit_search.report.plots.importance import importance_plot
from digit_search.report.plots.model import class_plot, reliability_plot
from digit_search.report.plots.parallel import parallel_coordinates
from digit_search.report.plots.scores import comparison
from digit_search.report.plots.search import history_plots, scored_points, slice_plots
from digit_search.report.plots.svg import Picture
from digit_search.report.plots.timeline import timeline
from digit_search.report.run_data import RunData
from digit_search.report.summary import Summary, winner_record
from digit_search.report.tables import extra_param_names
from digit_search.report.templating import render_html, render_markdown
from digit_search.report.timeline import WorkClock
from digit_search.report.trials import trial_details, trials_table
from digit_search.report.wording import METHODS, SAMPLE_NOTICE, sentences
from digit_search.run.layout import RunFolder
from digit_search.selection.ranking import ranked

MAX_DRAWN = 900
NUM_BEST_DRAWN = 100


def build_pages(run: RunData, summary: Summary) -> tuple[str, str]:
    """report.html and report.md, the same for the same files."""
    table, quality = trials_table(run), model_quality(run.predictions)
    shared = {
        "summary": summary,
        "sentences": sentences(run, summary),
        "sample_notice": SAMPLE_NOTICE,
        "table": table,
        "methods": METHODS,
        "environment": flatten(run.environment),
    }
    winner, details = winner_record(run, summary), trial_details(run, table)
    html = render_html(
        "report.html.j2",
        **shared,
        param_names=PARAM_NAMES,
        winner=winner,
        winner_params=(*CORE_PARAM_NAMES, *extra_param_names([winner])) if winner else (),
        scores=comparison(summary),
        search=_search_pictures(run, summary),
        model=_model_view(run, quality),
        details=details,
        detailed={trial["row"].record.trial for trial in details},
        config=to_toml(run.settings),
        files=_files_beside(run.folder),
    )
    return html, render_markdown("report.md.j2", **shared, quality=quality)


def _search_pictures(run: RunData, summary: Summary) -> dict[str, Any]:
    """The pictures of the search; None or empty where there is nothing to draw."""
    state, rank_by, space = run.state, run.rank_by, run.settings.search.space
    records = drawn_trials(run)
    history = history_plots(records, rank_by)
    is_whole = len(records) == len(state.trials)
    return {
        "num_drawn": len(records),
        "curves": learning_curves(records, state.rungs, rank_by, state.confirmed),
        "history": history,
        "slices": slice_plots(records, rank_by, space),
        "importance": _importance_pictures(run, summary, records) if history else (),
        "parallel": parallel_coordinates(records, rank_by, space) if history else None,
        "timeline": timeline(records, WorkClock(state.spans), state.reports) if is_whole else None,
    }


def drawn_trials(run: RunData) -> Sequence[TrialRecord]:
    """All trials, or of very many the best, the baseline, and every n-th of the rest, so that the page stays small."""
    records = run.state.trials
    if len(records) <= MAX_DRAWN:
        return records
    step = -(-len(records) // (MAX_DRAWN - NUM_BEST_DRAWN - 1))
    kept = {record.trial for record in [*ranked(records, run.rank_by)[:NUM_BEST_DRAWN], *records[::step]]}
    return [record for record in records if record.trial in kept or record.origin is TrialOrigin.BASELINE]


def _importance_pictures(run: RunData, summary: Summary, records: Sequence[TrialRecord]) -> list[Picture]:
    """Which parameters matter, and the accuracy over the two that matter most."""
    important, space = summary.importances, run.settings.search.space
    points = scored_points(records, run.rank_by)
    scored = [record for record, _ in points]
    pictures = [importance_plot(important, summary.num_candidates)]
    if len(important) >= 2:
        across, up = (param_scale(importance.name, scored, space.get(importance.name)) for importance in important[:2])
        pictures.append(contour_plot(points, across, up))
    return [picture for picture in pictures if picture]


def _model_view(run: RunData, quality: dict[str, Any] | None) -> dict[str, Any] | None:
    """The final model's pictures and digits, only its curves without predictions; None before the winner was retrained."""
    if run.state.retraining is None:
        return None
    view: dict[str, Any] = {"retraining": retrain_curves(run.state.retraining), "quality": quality}
    if run.predictions is None or quality is None:
        return view
    pictures = [class_plot(run.predictions), reliability_plot(run.predictions)]
    return view | {"pictures": pictures, "samples": sample_digits(run.predictions), "mistakes": mistakes(run.predictions)}


def _files_beside(folder: RunFolder) -> list[str]:
    tables = (folder.config, folder.environment, folder.trials, folder.epochs, folder.rungs, folder.best, folder.report_md)
    paths = (*tables, folder.weights, folder.solution, folder.study, folder.log, folder.tune)
    # report.md is written together with the page, so it need not exist yet.
    return [path.name + ("/" if path.is_dir() else "") for path in paths if path.exists() or path == folder.report_md]
