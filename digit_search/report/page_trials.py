"""The table of the trials, which sorts and filters, and what each trial did in detail."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from digit_search.records import PARAM_NAMES, EpochMetrics, RungDecision, TrialOrigin, TrialRecord, TrialStatus
from digit_search.report.formats import duration, interval, number, one_line, percent, plural
from digit_search.report.html import Html, element, escape, join, link
from digit_search.report.page_result import param_rows
from digit_search.report.parameters import shown_params
from digit_search.report.plots.small_curve import frame_of, small_curve
from digit_search.report.run_data import RunData
from digit_search.report.wording import rung_words
from digit_search.selection.ranking import best_epoch, ranked
from digit_search.selection.statistics import wilson_interval

MAX_ROWS = 1000
MAX_DETAILED = 500
MAX_EPOCH_ROWS = 4000
"""More trials or epochs than that would make the page too large; trials.csv and epochs.csv have them all."""

Column = tuple[str, bool]
"""A heading, and whether the column holds numbers."""


def _cell(text: str, value: float | str | None = None) -> Html:
    """A cell; `value` is what it sorts by, where that is not its text. NaN sorts like nothing."""
    if isinstance(value, float | int):
        sorts_by = "" if value != value else f"{value:.6g}"
        return element("td", text) if sorts_by == text else element("td", text, data_value=sorts_by)
    return element("td", text, class_="text")


def _number_cell(text: str, value: float | None) -> Html:
    return _cell(text, float("nan") if value is None else value)


@dataclass(frozen=True, slots=True)
class _Shown:
    """What the table has columns for besides those that it always has."""

    params: Sequence[str]
    devices: bool
    """Where trials ran on devices of more than one kind; else the first screen names it."""
    errors: bool

    @property
    def columns(self) -> list[Column]:
        scores = [("val accuracy", True), ("95 % interval", True), ("val loss", True), ("best epoch", True), ("epochs", True)]
        return [
            *(("trial", False), ("rank", True), ("status", False), *scores, *((name, name != "stem") for name in self.params)),
            *(("time", True), *[("device", False)] * self.devices, *[("error", False)] * self.errors),
        ]


def _shown(records: Sequence[TrialRecord]) -> _Shown:
    devices = {record.device for record in records if record.device}
    return _Shown(shown_params(records), len(devices) > 1, any(record.error for record in records))


def narrow_css(records: Sequence[TrialRecord]) -> str:
    """Rules that name each cell on a narrow screen, where a trial's cells stand below each other instead of under their headings."""
    names = (name for name, _ in _shown(records).columns[1:])
    rules = (f'#trials-table td:nth-child({place})::before{{content:"{name} "}}' for place, name in enumerate(names, start=2))
    first = '#trials-table tbody th::before{content:"trial "}'
    return f"@media screen and (max-width:74rem){{{first}{''.join(rules)}}}"


def _param_cell(record: TrialRecord, name: str) -> Html:
    value = getattr(record.params, name)
    return _cell(value) if isinstance(value, str) else _cell(number(value), value)


def _score_cells(best: EpochMetrics | None, num_validation: int | None) -> list[Html]:
    if best is None:
        return [_number_cell("–", None)] * 4
    bounds = wilson_interval(best.scored_accuracy, num_validation) if num_validation else None
    return [
        _cell(percent(best.scored_accuracy), best.scored_accuracy),
        _number_cell(interval(bounds), bounds[0] if bounds else None),
        _cell(number(best.scored_loss), best.scored_loss),
        _cell(number(best.epoch), best.epoch),
    ]


def _row(run: RunData, record: TrialRecord, rank: int | None, shown: _Shown, *, has_details: bool) -> Html:
    best = None if rank is None else best_epoch(record, run.rank_by)
    name = f"{record.trial} (baseline)" if record.origin is TrialOrigin.BASELINE else str(record.trial)
    last = record.epochs[-1].epoch if record.epochs else 0
    badge = element("span", str(record.status), class_=f"badge {record.status}")
    return element(
        "tr",
        element("th", link(name, f"#trial-{record.trial}") if has_details else name, scope="row", data_value=record.trial),
        _number_cell("–" if rank is None else str(rank), rank),
        element("td", badge, class_="text"),
        *_score_cells(best, run.num_validation),
        _cell(number(last), last),
        *(_param_cell(record, param) for param in shown.params),
        _cell(duration(record.seconds), record.seconds),
        *[_cell(one_line(record.device, 40))] * shown.devices,
        *[element("td", one_line(record.error, 80), class_="text error")] * shown.errors,
        data_status=str(record.status),
    )


def trials_table(run: RunData) -> Html:
    """All trials, the best first, those without a rank last by their numbers."""
    order = ranked(run.state.trials, run.rank_by)
    ranks = {record.trial: rank for rank, record in enumerate(order, start=1)}
    listed = [*order, *(record for record in run.state.trials if record.trial not in ranks)][:MAX_ROWS]
    shown = _shown(run.state.trials)
    detailed = detailed_trials(run)
    rows = [_row(run, record, ranks.get(record.trial), shown, has_details=record.trial in detailed) for record in listed]
    heads = [_head(*column) for column in shown.columns]
    table = element("table", element("thead", element("tr", *heads)), element("tbody", *rows), class_="sortable", id="trials-table")
    cut = len(listed) < len(run.state.trials)
    note = f"The first {len(listed)} of {plural(len(run.state.trials), 'trial')}; trials.csv holds all of them." if cut else ""
    return join(
        element("p", note, class_="muted") if note else "",
        _filters(listed),
        element("div", table, class_="scroll", tabindex=0, role="region", aria_label="Table of trials"),
    )


def _head(text: str, is_number: bool) -> Html:
    # A long name may break after its underscore.
    name = Html("_<wbr>".join(escape(word) for word in text.split("_")))
    return element("th", element("button", name, type="button"), scope="col", class_="number" if is_number else "text")


def _filters(records: Sequence[TrialRecord]) -> Html:
    """A box to tick for each status that occurs; of use with JavaScript only."""
    found = [(status, sum(record.status is status for record in records)) for status in TrialStatus]
    boxes = [
        element("label", element("input", type="checkbox", checked=True, value=str(status)), f" {status} ({num_trials})")
        for status, num_trials in found
        if num_trials
    ]
    shown = element("span", f"{len(records)} of {len(records)} shown", class_="shown", role="status")
    return element("fieldset", element("legend", "Show trials that are"), *boxes, shown, class_="filters needs-script")


def trial_details(run: RunData) -> Html:
    """A folded part for each trial: all parameters, its way through the rungs, its epochs and its error."""
    rungs: Mapping[int, list[RungDecision]] = defaultdict(list)
    for rung in run.state.rungs:
        rungs[rung.trial].append(rung)
    shown = detailed_trials(run)
    frame, best = frame_of(run.state.trials), next(iter(ranked(run.state.trials, run.rank_by)), None)
    with_epochs = sum(len(record.epochs) for record in run.state.trials) <= MAX_EPOCH_ROWS
    parts = [
        _details(run, record, rungs[record.trial], small_curve(record, best, frame), with_epochs=with_epochs)
        for record in run.state.trials
        if record.trial in shown
    ]
    note = "" if len(parts) == len(run.state.trials) else f"The {len(parts)} best trials; trials.csv and epochs.csv hold all of them."
    return join(element("p", note, class_="muted") if note else "", *parts)


def detailed_trials(run: RunData) -> set[int]:
    """The trials that have a part of their own: all, or the best of very many."""
    records = run.state.trials
    chosen = records if len(records) <= MAX_DETAILED else ranked(records, run.rank_by)[:MAX_DETAILED]
    return {record.trial for record in chosen}


def _logs(run: RunData, record: TrialRecord) -> Html:
    """Links to what the trial left beside the page, as far as it is there."""
    own = run.folder.trial(record.trial)
    found = [path for path in (own / "error.log", own, run.folder.log) if path.exists()]
    links = (link(f"{address}{'/' if path.is_dir() else ''}", address) for path in found for address in [_address(run, path)])
    parts = [part for address in links for part in (" · ", address)]
    return element("p", "Logs: ", *parts[1:], class_="logs") if found else Html("")


def _address(run: RunData, path: Path) -> str:
    return path.relative_to(run.folder.path).as_posix()


def _details(run: RunData, record: TrialRecord, rungs: list[RungDecision], curve: Html, *, with_epochs: bool) -> Html:
    scored = ranked([record], run.rank_by)
    best = best_epoch(record, run.rank_by) if scored else None
    score = f", {percent(best.scored_accuracy)} in epoch {number(best.epoch)}" if best else ""
    params = " · ".join(f"{name} {value}" for name, value in param_rows(record.params, PARAM_NAMES))
    told = [f"seed {record.seed}", f"origin {record.origin}"]
    told += [f"{name} {one_line(value)}" for name, value in (("device", record.device), ("node", record.node)) if value]
    return element(
        "details",
        element("summary", f"Trial {record.trial}: {record.status}{score}"),
        curve,
        element("p", element("strong", "Parameters: "), params),
        element("p", " · ".join(told)),
        element("p", f"ASHA: {rung_words(rungs)}.") if rungs else "",
        element("pre", record.error, class_="reason") if record.error else "",
        _logs(run, record),
        _epochs_table(record) if with_epochs and record.epochs else "",
        id=f"trial-{record.trial}",
    )


def _epochs_table(record: TrialRecord) -> Html:
    heads = ("epoch", "lr", "train loss", "train accuracy", "val loss", "val accuracy", "time")
    rows = (
        (
            *(number(metrics.epoch), number(metrics.lr), number(metrics.train_loss), percent(metrics.train_accuracy)),
            *(number(metrics.scored_loss), percent(metrics.scored_accuracy), duration(metrics.seconds)),
        )
        for metrics in record.epochs
    )
    return data_table(heads, rows, f"Epochs of trial {record.trial}")


def data_table(heads: Sequence[str], rows: Sequence[Sequence[str]], label: str) -> Html:
    """A plain table of numbers that scrolls in its own box."""
    head = element("tr", *(element("th", text, scope="col") for text in heads))
    body = (element("tr", *(element("td", text) for text in row)) for row in rows)
    table = element("table", element("thead", head), element("tbody", *body), class_="numbers")
    return element("div", table, class_="scroll", tabindex=0, role="region", aria_label=label)
