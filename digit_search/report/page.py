"""report.html: the comparison of the trials in one file that needs no network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from digit_search.config.loading import to_toml
from digit_search.config.search_space import ParamValue
from digit_search.records import PARAM_NAMES, TrialOrigin, TrialRecord
from digit_search.report.formats import flatten
from digit_search.report.model_quality import ModelQuality, ShownDigit, mistakes, model_quality, sample_digits
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
from digit_search.report.summary import Summary
from digit_search.report.tables import extra_param_names
from digit_search.report.templating import render_html
from digit_search.report.timeline import WorkClock
from digit_search.report.trials import param_values, trial_details, trials_table
from digit_search.report.wording import METHODS, SAMPLE_NOTICE, sentences
from digit_search.selection.ranking import ranked

MAX_DRAWN = 900
NUM_BEST_DRAWN = 100


def build_page(run: RunData, summary: Summary) -> str:
    """The page as HTML, the same for the same files."""
    table = trials_table(run)
    details = trial_details(run, table)
    return render_html(
        "report.html.j2",
        summary=summary,
        sentences=sentences(run, summary),
        sample_notice=SAMPLE_NOTICE,
        winner=_winner_card(run, summary),
        scores=comparison(summary),
        table=table,
        search=_search_pictures(run, summary),
        model=_model_part(run),
        details=details,
        detailed={trial.row.record.trial for trial in details},
        methods=METHODS,
        environment=flatten(run.environment),
        config=to_toml(run.settings),
        files=[path.name + ("/" if path.is_dir() else "") for path in _files_beside(run) if path.exists()],
    )


@dataclass(frozen=True, slots=True)
class WinnerCard:
    """The winner's parameters and seed."""

    params: Sequence[tuple[str, ParamValue]]
    seed: int


def _winner_card(run: RunData, summary: Summary) -> WinnerCard | None:
    winner = summary.winner
    record = next((record for record in run.state.trials if winner and record.trial == winner.trial), None)
    if record is None:
        return None
    return WinnerCard(param_values(record.params, (*PARAM_NAMES[:4], *extra_param_names([record]))), record.seed)


@dataclass(frozen=True, slots=True)
class SearchPictures:
    """The pictures of the search; None or empty where there is nothing to draw."""

    num_drawn: int
    curves: Picture | None
    history: Sequence[Picture]
    slices: Sequence[Picture]
    importance: Sequence[Picture]
    parallel: Picture | None
    timeline: Picture | None
    """Also None where not all trials are drawn."""


def _search_pictures(run: RunData, summary: Summary) -> SearchPictures:
    state, rank_by, space = run.state, run.rank_by, run.settings.search.space
    records = drawn_trials(run)
    history = history_plots(records, rank_by)
    is_whole = len(records) == len(state.trials)
    return SearchPictures(
        num_drawn=len(records),
        curves=learning_curves(records, state.rungs, rank_by, state.confirmed),
        history=history,
        slices=slice_plots(records, rank_by, space),
        importance=_importance_pictures(run, summary, records) if history else (),
        parallel=parallel_coordinates(records, rank_by, space) if history else None,
        timeline=timeline(records, WorkClock(state.spans), state.reports) if is_whole else None,
    )


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
    found, space = summary.importances, run.settings.search.space
    points = scored_points(records, run.rank_by)
    scored = [record for record, _ in points]
    pictures = [importance_plot(found, summary.num_candidates)]
    if len(found) >= 2:
        across, up = (param_scale(importance.name, scored, space.get(importance.name)) for importance in found[:2])
        pictures.append(contour_plot(points, across, up))
    return [picture for picture in pictures if picture]


@dataclass(frozen=True, slots=True)
class ModelPart:
    """The final model's pictures and digits."""

    retraining: Sequence[Picture]
    quality: ModelQuality | None
    """None where there are no predictions; the rest is then empty."""
    pictures: Sequence[Picture]
    samples: Sequence[ShownDigit]
    mistakes: Sequence[ShownDigit]


def _model_part(run: RunData) -> ModelPart | None:
    """None before the winner was retrained."""
    if run.state.retraining is None:
        return None
    retraining, quality = retrain_curves(run.state.retraining), model_quality(run.predictions)
    if run.predictions is None or quality is None:
        return ModelPart(retraining, None, (), (), ())
    pictures = [class_plot(run.predictions), reliability_plot(run.predictions)]
    return ModelPart(retraining, quality, pictures, sample_digits(run.predictions), mistakes(run.predictions))


def _files_beside(run: RunData) -> list[Path]:
    folder = run.folder
    tables = [folder.config, folder.environment, folder.trials, folder.epochs, folder.rungs, folder.best, folder.report_md]
    return [*tables, folder.weights, folder.solution, folder.study, folder.log, folder.tune]
