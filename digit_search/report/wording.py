"""What the numbers mean, in sentences that report.html and report.md share."""

from collections.abc import Iterator, Sequence
from typing import Any

from digit_search.records import RungDecision, TrialOrigin, TrialStatus
from digit_search.report.formats import count, duration, interval, number, one_line, percent, plural
from digit_search.report.importance import ENOUGH_TRIALS, LEAST_TRIALS, Importance
from digit_search.report.run_data import RunData
from digit_search.report.summary import FinalModel, Score, Summary, accuracy_bounds
from digit_search.selection.statistics import tied

MAX_NAMED = 12
SAMPLE_NOTICE = (
    "This run used the embedded sample: a few thousand digits that come with the program, instead of Kaggle's files. Its numbers show "
    "that the search works, not how good the model can get. Its solution.csv is for other digits than Kaggle's, so do not submit it. "
    "Put Kaggle's train.csv and test.csv into a folder and pass it with --data."
)
METHODS = (
    "Accuracy is the share of digits that are classified correctly; loss is the mean cross-entropy. Where weights are averaged during "
    "training, the scores are those of the averaged weights. A trial counts with its best epoch.",
    "Intervals are 95 % Wilson score intervals (Wilson 1927). They cover the chance in the choice of the digits, not how much a "
    "repetition with another seed would differ.",
    "Two trials count as tied if their accuracies differ by less than 1.96 standard errors of the difference, with one success and one "
    "failure added to each (Agresti and Caffo 2000). Both were measured on the same digits, so the test errs on the side of a tie.",
    "The best of many noisy scores is partly the luckiest: the winner's validation accuracy is probably a little too high. Only digits "
    "that were not used to choose the winner give a fair number.",
)


def sentences(run: RunData, summary: Summary) -> dict[str, Any]:
    """The report in words, by the names that the templates use."""
    return {
        "state": state(summary),
        "headline": headline(summary),
        "comparisons": [text for text in (against_baseline(summary), against_runner_up(summary)) if text],
        "final_model": final_model_lines(summary),
        "cost": cost_rows(summary),
        "gaps": what_was_not_done(run, summary),
        "importance": importance_verdict(summary.importances, summary.num_candidates),
    }


def headline(summary: Summary) -> str:
    """Who won, and by what score."""
    winner = summary.winner
    if winner is None:
        return "No trial can be chosen yet."
    digits = f" of {plural(summary.num_validation, 'validation digit')}" if summary.num_validation else " of the validation digits"
    bounds = _interval(winner.bounds)
    tie = f", tied with {_trials(list(summary.tied_trials))}" if summary.tied_trials else ""
    by = "accuracy" if summary.rank_by == "val_accuracy" else "loss"
    if summary.confirmed:
        return (
            f"Trial {winner.trial} has the best mean validation {by} of the {len(summary.confirmed)} best of "
            f"{plural(summary.num_candidates, 'trial')}, each trained again with fresh seeds. In the search it "
            f"classified {percent(winner.accuracy)}{digits} correctly{bounds}."
        )
    return (
        f"Trial {winner.trial} has the best validation {by} of {plural(summary.num_candidates, 'trial')}: "
        f"it classifies {percent(winner.accuracy)}{digits} correctly{bounds}{tie}."
    )


def _interval(bounds: tuple[float, float] | None) -> str:
    return f" (95\N{NO-BREAK SPACE}% interval {interval(bounds)})" if bounds else ""


def _difference(winner: Score, other: Score) -> str:
    points = 100 * (winner.accuracy - other.accuracy)
    if abs(points) < 0.005:
        return "the same"
    return f"{abs(points):.2f} percentage points {'less' if points > 0 else 'more'}"


def _verdict(summary: Summary, other: Score) -> str:
    """Whether the difference between a trial's accuracy and the winner's is more than chance."""
    if not summary.num_validation:
        return "It is unknown whether that is more than chance, because no file says how many validation digits there were."
    digits = plural(summary.num_validation, "digit")
    if other.tied_with_winner:
        return f"On {digits} chance may explain this difference: they are tied."
    return f"On {digits} that is more than chance explains."


def against_baseline(summary: Summary) -> str:
    """The winner compared with the notebook's configuration; empty without a winner."""
    winner, baseline = summary.winner, summary.baseline
    if winner is None:
        return ""
    if baseline is None:
        return "The notebook's configuration has no score to compare with."
    if baseline.trial == winner.trial:
        return "The winner is the notebook's configuration itself: the search found nothing better."
    early = f", stopped after epoch {number(baseline.epoch)}" if baseline.status is TrialStatus.STOPPED else ""
    score = f"The notebook's configuration (trial {baseline.trial}{early}) reached {percent(baseline.accuracy)}"
    return f"{score}, {_difference(winner, baseline)}. {_verdict(summary, baseline)}"


def against_runner_up(summary: Summary) -> str:
    """The winner compared with the second, and the other trials that it is tied with."""
    winner, second = summary.winner, summary.runner_up
    if winner is None:
        return ""
    if second is None:
        return "No other trial has a score to compare with."
    score = f"The runner-up, trial {second.trial}, reached {percent(second.accuracy)}, {_difference(winner, second)}."
    verdict = f"{score} {_verdict(summary, second)}"
    others = [trial for trial in summary.tied_trials if trial != second.trial]
    return f"{verdict} Also tied with the winner: {_trials(others)}." if others else verdict


def _trials(numbers: list[int]) -> str:
    named = ", ".join(str(trial) for trial in numbers[:MAX_NAMED])
    more = f" and {len(numbers) - MAX_NAMED} more" if len(numbers) > MAX_NAMED else ""
    return f"{'trial' if len(numbers) == 1 else 'trials'} {named}{more}"


def _confirmation_lines(summary: Summary) -> list[str]:
    """The scores of the best trials' fresh trainings, and which of them are tied; empty where there are none."""
    n, scores = summary.num_validation, summary.confirmed
    lines = []
    for score in scores:
        each = ", ".join(percent(accuracy) for accuracy in score.accuracies)
        mean = f"{percent(score.mean_accuracy)} on average{_interval(accuracy_bounds(score.mean_accuracy, n))}"
        lines.append(f"Trial {score.trial}, trained again with fresh seeds: {mean}; {each}.")
    tied_trials = [score.trial for score in scores[1:] if n and tied(score.mean_accuracy, scores[0].mean_accuracy, n)]
    if n and tied_trials:
        names = f"trial {scores[0].trial} is tied with {_trials(tied_trials)}"
        lines.append(f"On {plural(n, 'digit')} {names}: the difference is within the noise.")
    return lines


def final_model_lines(summary: Summary) -> list[str]:
    """The scores of the retrained model, or what is missing where there is none."""
    final = summary.final_model
    if final is None:
        return ["No trial has been retrained yet, so there are neither weights nor a solution.csv."]
    lines = [
        *_confirmation_lines(summary),
        f"Trial {final.trial} was retrained on {plural(final.num_train, 'digit')} for {_epochs(final.num_epochs)} "
        f"({duration(final.train_seconds)}{_reused(final)}); the weights of epoch {number(final.best_epoch)}, "
        "where the validation loss was lowest, were kept.",
        f"It classifies {percent(final.val_accuracy)} of {plural(final.num_validation, 'validation digit')} correctly"
        f"{_interval(final.val_bounds)}.",
    ]
    if summary.winner is not None and final.trial != summary.winner.trial:
        lines.insert(0, f"The retrained trial is {final.trial}, not the best one, which is {summary.winner.trial}.")
    if final.test_accuracy is not None:
        lines.append(
            f"solution.csv is correct for {percent(final.test_accuracy)} of {plural(final.num_test, 'test digit')}"
            f"{_interval(final.test_bounds)}. They were not used to choose anything, so this is the fairest number."
        )
    return lines


def _epochs(epochs: float) -> str:
    return f"{number(epochs)} {'epoch' if epochs == 1 else 'epochs'}"


def _reused(final: FinalModel) -> str:
    return f", the first {_epochs(final.num_reused_epochs)} taken from the search" if final.num_reused_epochs else ""


def cost_rows(summary: Summary) -> list[tuple[str, str]]:
    """What the run cost, as pairs of a name and a value."""
    cost = summary.cost
    statuses = ", ".join(f"{num_trials} {status}" for status, num_trials in cost.trials_by_status.items())
    workers = f", {plural(cost.num_workers, 'worker')}" if cost.num_workers else ""
    processor = f" ({one_line(cost.processor, 60)})" if cost.processor and "cpu" in cost.devices else ""
    warm = ", ".join(f"{plural(num_trials, 'finished trial')} of {one_line(run, 100)}" for run, num_trials in summary.warm_trials.items())
    pauses = f", without pauses of {duration(cost.rest_seconds)}" if cost.rest_seconds >= 1 else ""
    return [
        *([("Known from the start", warm)] if warm else []),
        ("Trials", f"{sum(cost.trials_by_status.values())}{f': {statuses}' if statuses else ''}"),
        ("Epochs", f"{cost.num_epochs:,g}"),
        ("Training images", count(cost.num_images)),
        ("Wall time", duration(cost.wall_seconds) + pauses),
        ("Time of all trials together", duration(cost.trial_seconds)),
        ("Device", (", ".join(one_line(device, 40) for device in cost.devices) or "unknown") + processor + workers),
    ]


def state(summary: Summary) -> str:
    """Whether the run is finished."""
    if summary.finished:
        return "This run is finished."
    return "This run is not finished: it is still running or was interrupted. The report shows the state when it was made."


def what_was_not_done(run: RunData, summary: Summary) -> list[str]:
    """What a reader must know before trusting the report; empty where nothing is missing."""
    return [*_gaps(run, summary), *(one_line(text, 1000) for text in (*run.state.notes, *run.gaps))]


def _gaps(run: RunData, summary: Summary) -> Iterator[str]:
    statuses, wanted = summary.cost.trials_by_status, run.settings.search.samples
    if not summary.finished:
        yield state(summary)
    if summary.embedded_sample:
        yield "Kaggle's data was not used: the run used the embedded sample instead."
    if summary.embedded_sample is None:
        yield "No file of the run says whether it used the embedded sample or Kaggle's digits."
    for status, text in (
        (TrialStatus.FAILED, "failed and cannot be chosen; the reasons are in the table of trials"),
        (TrialStatus.INTERRUPTED, "was interrupted before its end, so it might have scored better"),
        (TrialStatus.RUNNING, "was running when this report was made, or was interrupted with the run"),
    ):
        if statuses.get(status):
            yield f"{plural(statuses[status], 'trial')} {text}."
    if (begun := sum(statuses.values())) < wanted:
        yield f"Only {begun} of {plural(wanted, 'trial')} have begun."
    if summary.baseline is None:
        yield _missing_baseline(run)
    if summary.final_model is None and summary.winner is not None:
        yield "The winner has not been retrained: there are neither weights nor a solution.csv."


def _missing_baseline(run: RunData) -> str:
    begun = [record for record in run.state.trials if record.origin is TrialOrigin.BASELINE]
    if begun:
        return f"The baseline, trial {begun[0].trial}, has no score: {begun[0].status}. There is nothing to compare the winner with."
    why = "it has not begun" if run.settings.search.baseline else "search.baseline is off"
    return f"The notebook's configuration was not run ({why}), so there is nothing to compare the winner with."


def importance_verdict(parameters: Sequence[Importance], num_trials: int) -> str:
    """Which parameters stand out, and whether there are enough trials to say so."""
    if not parameters:
        return f"{plural(num_trials, 'scored trial')} cannot show which parameter matters; at least {LEAST_TRIALS} are needed."
    clear = [importance.name for importance in parameters if importance.stands_out]
    verdict = f"Beyond chance: {', '.join(clear)}." if clear else f"No parameter stands out from chance over these {num_trials} trials."
    if num_trials < ENOUGH_TRIALS:
        return f"{num_trials} scored trials are too few to show which parameter matters: at least {ENOUGH_TRIALS} are needed. {verdict}"
    return verdict


def rung_words(rungs: Sequence[RungDecision]) -> str:
    """What ASHA decided for one trial, rung by rung."""
    return ", ".join(f"{'passed' if rung.passed else 'stopped at'} the rung of epoch {number(rung.rung_epochs)}" for rung in rungs)
