"""How exact a measured accuracy is: its confidence interval, and whether two accuracies are tied."""

import math

Z_95 = 1.959963984540054
"""The standard normal quantile that leaves 2.5 % on either side."""


def wilson_interval(accuracy: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy measured on `n` digits.

    The score interval of Wilson (1927), Journal of the American Statistical Association 22, 209-212. Unlike accuracy +- 1.96 standard
    errors, it stays inside [0, 1] and has a width above 0 even where the accuracy is 0 or 1.

    Raises:
        ValueError: if `n` is below 1 or the accuracy is outside [0, 1].
    """
    _check_accuracy(accuracy, n)
    centre = (accuracy + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(accuracy * (1 - accuracy) / n + Z_95**2 / (4 * n * n))
    return max(0.0, min(accuracy, centre - half)), min(1.0, max(accuracy, centre + half))


def accuracy_text(accuracy: float, n: int) -> str:
    """E.g. `0.9850 on 1,400 digits (95 % interval 0.977 to 0.990)`."""
    low, high = wilson_interval(accuracy, n)
    return f"{accuracy:.4f} on {n:,} digits (95 % interval {low:.3f} to {high:.3f})"


def accuracy_with_interval(accuracy: float, n: int | None) -> str:
    """E.g. `0.9850 (0.977 to 0.990)`; without the interval if `n` is unknown."""
    if n is None:
        return f"{accuracy:.4f}"
    low, high = wilson_interval(accuracy, n)
    return f"{accuracy:.4f} ({low:.3f} to {high:.3f})"


def tied(accuracy: float, other: float, n: int, other_n: int | None = None) -> bool:
    """Return whether two accuracies, measured on `n` and `other_n` (default: `n`) digits, differ by less than chance may explain.

    The two-sided test at 5 % of Agresti and Caffo (2000), The American Statistician 54, 280-288. It adds one success and one failure to
    each, which makes it reliable near 1: p = (accuracy n + 1) / (n + 2); tied where |p1 - p2| < 1.96 sqrt(v1 + v2), each
    v = p (1 - p) / (n + 2). Two accuracies on the same digits are positively correlated. The test ignores that, so it calls some real
    differences ties.

    Raises:
        ValueError: as `wilson_interval`.
    """
    p1, v1 = _mean_and_variance(accuracy, n)
    p2, v2 = _mean_and_variance(other, n if other_n is None else other_n)
    return abs(p1 - p2) < Z_95 * math.sqrt(v1 + v2)


def _mean_and_variance(accuracy: float, n: int) -> tuple[float, float]:
    _check_accuracy(accuracy, n)
    p = (accuracy * n + 1) / (n + 2)
    return p, p * (1 - p) / (n + 2)


def _check_accuracy(accuracy: float, n: int) -> None:
    if n < 1 or not 0 <= accuracy <= 1:
        raise ValueError(f"expected an accuracy in [0, 1] on at least one digit, found {accuracy!r} on {n!r}")
