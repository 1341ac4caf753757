"""What the page says of the final model: its curves, its mistakes, and its confidence."""

import numpy as np

from digit_search.report.digits import sample_digits, wrong_digits
from digit_search.report.formats import percent
from digit_search.report.html import Html, element, join
from digit_search.report.page_result import picture
from digit_search.report.plots.curves import retrain_curves
from digit_search.report.plots.model import class_plot, reliability_plot
from digit_search.report.predictions import NUM_CLASSES, Predictions, confusion_matrix
from digit_search.report.run_data import RunData

NOT_RETRAINED = "There is nothing to show yet: the winner has not been retrained."
NO_PREDICTIONS = "The predictions on the validation digits are missing, so mistakes and confidence cannot be shown."


def model_part(run: RunData) -> Html:
    """The final model's pictures; a sentence for what is not there yet."""
    if run.state.retraining is None:
        return element("p", NOT_RETRAINED, class_="missing")
    curves = element("div", *(picture(drawn, "") for drawn in retrain_curves(run.state.retraining)), class_="plots")
    if run.predictions is None or not len(run.predictions):
        return join(curves, element("p", NO_PREDICTIONS, class_="missing"))
    predictions = run.predictions
    drawn = (picture(each(predictions), "") for each in (class_plot, reliability_plot))
    return join(curves, element("div", _confusion(predictions), *drawn, class_="plots"), _digits(predictions))


def _confusion(predictions: Predictions) -> Html:
    """The confusion matrix as a table whose cells are tinted by their share of the row."""
    matrix = confusion_matrix(predictions)
    heads = (element("th", str(digit), scope="col") for digit in range(NUM_CLASSES))
    corner = element("td", "is ↓ read as →", class_="corner")
    rows = (element("tr", element("th", str(label), scope="row"), *_confusion_cells(matrix, label)) for label in range(NUM_CLASSES))
    table = element("table", element("thead", element("tr", corner, *heads)), element("tbody", *rows), class_="confusion")
    wrong = int(len(predictions) - predictions.correct.sum())
    caption = (
        f"How many of the validation digits in the row were read as the digit in the column: {len(predictions)} in all, {wrong} of them "
        f"wrongly ({percent(wrong / len(predictions))}). The diagonal is right; mistakes are framed."
    )
    box = element("div", table, class_="scroll", tabindex=0, role="region", aria_label="Confusion matrix")
    return element("figure", element("h3", "Confusion matrix"), box, element("figcaption", caption))


def _confusion_cells(matrix: np.ndarray, label: int) -> list[Html]:
    total = max(int(matrix[label].sum()), 1)
    cells = []
    for said, num_digits in enumerate(matrix[label].tolist()):
        kind = "hit" if said == label else "miss" if num_digits else "none"
        cells.append(element("td", str(num_digits) if num_digits else "·", class_=kind, style=f"--share:{num_digits / total:.2f}"))
    return cells


def _digits(predictions: Predictions) -> Html:
    wrong = wrong_digits(predictions)
    mistakes = wrong or element("p", "None: the model read every validation digit rightly.")
    explained = element(
        "p", "With what the model read, how sure it was, and the probability that it gave to the right digit.", class_="muted"
    )
    return join(
        element("h3", "A digit of each kind"),
        sample_digits(predictions),
        element("h3", "The most confident mistakes"),
        explained if wrong else "",
        mistakes,
    )
