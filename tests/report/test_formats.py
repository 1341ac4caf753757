import pytest

from digit_search.report.formats import clean_text, count, duration, interval, number, one_line, percent, plural, value_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (7199.9, "2 h 00 min"),
    ],
)
def test_durations_round_over_into_the_next_unit(seconds, text):
    assert duration(seconds).replace("\N{NO-BREAK SPACE}", " ") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (32, "32"), (4.0, "4"), (0.00034712, "0.000347"), (1e-5, "1e-05"), (24307.6, "24308"), (float("inf"), "inf")],
)
def test_numbers_have_three_significant_digits(value, text):
    assert number(value) == text


def test_shares_counts_and_plurals():
    assert percent(0.97125) == "97.12\N{NO-BREAK SPACE}%"
    assert interval((0.954, 0.9868)) == "95.4–98.7\N{NO-BREAK SPACE}%"
    assert (count(1234567), plural(1, "trial"), plural(1200, "trial")) == ("1,234,567", "1 trial", "1,200 trials")
    assert (percent(None), interval(None), count(None)) == ("–", "–", "–")


def test_control_characters_surrogates_and_changes_of_direction_are_replaced_in_foreign_text():
    assert clean_text("a\x00\x1b\ud800\u202eb\tc\n") == "a����b\tc\n"
    assert clean_text("😀 é 中") == "😀 é 中"


def test_the_value_of_a_parameter_is_a_text_or_a_number():
    assert (value_text("small"), value_text(32), value_text(0.00034712)) == ("small", "32", "0.000347")


def test_one_line_is_cut_to_its_limit():
    assert one_line("a\n\t b ", 10) == "a b"
    assert one_line("x" * 11, 10) == "x" * 9 + "…"


def test_one_line_keeps_spaces_that_do_not_break():
    assert one_line(percent(0.5)) == "50.00\N{NO-BREAK SPACE}%"
