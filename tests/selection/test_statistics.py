import math

import pytest

from digit_search.selection.statistics import accuracy_text, accuracy_with_interval, tied, wilson_interval


def test_the_wilson_interval_matches_the_published_values():
    # Newcombe (1998), Statistics in Medicine 17, 857-872, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for correct, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)):
        assert wilson_interval(correct / n, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
@pytest.mark.parametrize("n", [1, 400, 10**6])
def test_the_interval_of_an_accuracy_of_0_or_1_stays_in_range_and_has_a_width(accuracy, n):
    low, high = wilson_interval(accuracy, n)
    assert 0 <= low <= accuracy <= high <= 1
    assert high > low


@pytest.mark.parametrize(("accuracy", "n"), [(0.5, 0), (1.01, 10), (-0.01, 10), (math.nan, 10)])
def test_an_impossible_accuracy_is_an_error(accuracy, n):
    with pytest.raises(ValueError, match="expected an accuracy in"):
        wilson_interval(accuracy, n)


def test_accuracies_differ_if_they_are_at_least_1_96_standard_errors_apart():
    # 388 and 398 of 400: with one success and failure added, |z| is 2.54; 388 and 395: 1.63.
    assert not tied(0.97, 0.995, 400)
    assert tied(0.97, 0.9875, 400)
    assert not tied(0.97, 0.9875, 4000)


def test_equal_accuracies_are_tied_even_at_0_and_1():
    assert tied(1.0, 1.0, 10)
    assert tied(0.0, 0.0, 1)


def test_the_order_of_two_accuracies_does_not_matter():
    assert tied(0.9, 0.95, 200) == tied(0.95, 0.9, 200)


def test_an_accuracy_is_written_with_its_interval():
    assert accuracy_text(0.985, 1400) == "0.9850 on 1,400 digits (95 % interval 0.977 to 0.990)"
    assert accuracy_with_interval(0.985, 1400) == "0.9850 (0.977 to 0.990)"
    assert accuracy_with_interval(0.985, None) == "0.9850"
