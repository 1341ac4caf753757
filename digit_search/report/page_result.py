"""The first screen of the page: who won, what it cost, how to repeat and submit it, and what is missing."""

from collections.abc import Sequence

from digit_search.records import PARAM_NAMES, TrialParams, TrialRecord
from digit_search.report.formats import interval, number, percent
from digit_search.report.html import Html, element, join, link
from digit_search.report.plots.scores import comparison
from digit_search.report.plots.svg import Picture
from digit_search.report.run_data import RunData
from digit_search.report.summary import Summary
from digit_search.report.tables import extra_param_names
from digit_search.report.wording import (
    SAMPLE_NOTICE,
    against_baseline,
    against_runner_up,
    cost_rows,
    final_model_lines,
    headline,
    what_was_not_done,
)


def paragraph(text: str) -> Html:
    return element("p", text) if text else Html("")


def bullets(lines: Sequence[str]) -> Html:
    return element("ul", *(element("li", line) for line in lines))


def facts(rows: Sequence[tuple[str, str]]) -> Html:
    """Pairs of a name and a value."""
    return element("dl", *(element("div", element("dt", name), element("dd", value)) for name, value in rows))


def picture(drawn: Picture | None, missing: str) -> Html:
    """A picture with its title and caption; a sentence where there is nothing to draw."""
    if drawn is None:
        return element("p", missing, class_="missing")
    # Wide pictures scroll in a box of their own on a phone, which a keyboard must be able to reach.
    box = {"class_": "scroll", "tabindex": 0, "role": "region", "aria_label": drawn.title} if drawn.is_wide else {"class_": "box"}
    caption = element("figcaption", drawn.caption) if drawn.caption else ""
    kind = "plot wide" if drawn.is_wide else "plot"
    return element("figure", element("h3", drawn.title), element("div", drawn.svg, **box), caption, class_=kind)


def param_rows(params: TrialParams, names: Sequence[str]) -> list[tuple[str, str]]:
    values = ((name, getattr(params, name)) for name in names)
    return [(name, value if isinstance(value, str) else number(value)) for name, value in values]


def result_section(run: RunData, summary: Summary) -> Html:
    """The first screen."""
    notice = element("p", element("strong", "Embedded sample. "), SAMPLE_NOTICE, class_="notice", role="note")
    return element(
        "section",
        notice if summary.embedded_sample else "",
        element("h2", "Result", id="result"),
        element("p", headline(summary), class_="headline"),
        _why_no_winner(summary),
        element("div", _winner_card(run, summary), _comparison_card(summary), _cost_card(summary), class_="cards"),
        _commands(summary),
        aria_labelledby="result",
    )


def _why_no_winner(summary: Summary) -> Html:
    return element("pre", summary.no_winner_reason, class_="reason") if summary.no_winner_reason else Html("")


def _winner_record(run: RunData, summary: Summary) -> TrialRecord | None:
    return next((record for record in run.state.trials if summary.winner and record.trial == summary.winner.trial), None)


def _winner_card(run: RunData, summary: Summary) -> Html:
    record, winner = _winner_record(run, summary), summary.winner
    if record is None or winner is None:
        return Html("")
    names = (*PARAM_NAMES[:4], *extra_param_names([record]))
    figures = [("Epoch", number(winner.epoch)), ("Validation loss", number(winner.loss)), ("Seed", str(record.seed))]
    return element(
        "article",
        element("h3", "Winner: ", link(f"trial {winner.trial}", f"#trial-{winner.trial}")),
        element("p", percent(winner.accuracy), class_="figure"),
        element("p", f"95 % interval {interval(winner.bounds)} · {winner.status}" if winner.bounds else str(winner.status), class_="muted"),
        facts([*param_rows(record.params, names), *figures]),
    )


def _comparison_card(summary: Summary) -> Html:
    drawn = comparison(summary)
    if drawn is None:
        return Html("")
    told = [paragraph(text) for text in (against_baseline(summary), against_runner_up(summary))]
    return element("article", element("h3", "Is it better?"), drawn.svg, *told, class_="broad")


def _cost_card(summary: Summary) -> Html:
    return element(
        "article",
        element("h3", "What it cost"),
        facts(cost_rows(summary)),
        element("h3", "Final model"),
        *(paragraph(line) for line in final_model_lines(summary)),
    )


def _commands(summary: Summary) -> Html:
    told = [element("dt", "Repeat this run"), element("dd", element("code", summary.repeat_command, tabindex=0))]
    if summary.submit_command:
        condition = " (if it learned from Kaggle's files)" if summary.embedded_sample is None else ""
        told += [element("dt", f"Submit its solution{condition}"), element("dd", element("code", summary.submit_command, tabindex=0))]
    return element("dl", *told, class_="commands")


def gaps_section(run: RunData, summary: Summary) -> Html:
    """What was not done; a sentence where nothing is missing."""
    lines = what_was_not_done(run, summary)
    content = bullets(lines) if lines else paragraph("Nothing is missing: every trial ended on its own, and the winner was retrained.")
    return element("section", element("h2", "What was not done", id="gaps"), content, aria_labelledby="gaps")


def section(name: str, title: str, *parts: str) -> Html:
    """A section of the page under its heading."""
    return element("section", element("h2", title, id=name), join(*parts), aria_labelledby=name)
