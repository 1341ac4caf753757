import itertools

import numpy as np
import pytest

from digit_search.records import TrialStatus
from digit_search.report.plots.style import LOOKS, THEME, accuracy_ticks, error_decades, percent_label


def luminance(color):
    """Relative luminance as WCAG 2.2 defines it."""
    channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("name", [name for name in THEME if name not in ("paper", "panel", "grid")])
def test_every_text_color_is_legible_on_paper_and_panel(theme, name):
    for ground in ("paper", "panel"):
        assert contrast(THEME[name][theme], THEME[ground][theme]) >= 4.5


def test_each_light_color_has_one_meaning():
    light = [pair[0] for pair in THEME.values()]
    assert len(set(light)) == len(light)


def test_outcomes_differ_in_marker_and_hatch_not_only_in_color():
    assert set(LOOKS) == set(TrialStatus)
    for one, other in itertools.combinations(LOOKS.values(), 2):
        assert one.marker != other.marker
        assert one.hatch != other.hatch


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.9, 0.99), (0.97, 0.98), (0.9801, 0.9812), (0.0, 0.05)])
def test_ticks_are_round_few_and_apart(low, high):
    ticks = accuracy_ticks(low, high, 0.1)
    decades = error_decades(np.array(ticks))
    assert 2 <= len(ticks) <= 11
    assert low <= ticks[0] <= ticks[-1] <= high
    assert np.diff(decades).min() >= 0.1 * (error_decades(high) - error_decades(low)) - 1e-9


def test_labels_have_no_needless_decimals():
    assert [percent_label(value) for value in (0.5, 0.995, 0.9875, 1.0, 0.0)] == ["50 %", "99.5 %", "98.75 %", "100 %", "0 %"]
