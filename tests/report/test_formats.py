import pytest

from digit_search.report.formats import clean_text, count, duration, interval, number, one_line, percent, plural
from digit_search.report.html import Html, element, join


@pytest.mark.parametrize(
    ("seconds", "told"),
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
def test_durations_round_over_into_the_next_unit(seconds, told):
    assert duration(seconds).replace("\N{NO-BREAK SPACE}", " ") == told


@pytest.mark.parametrize(
    ("value", "told"),
    [(None, "–"), (32, "32"), (4.0, "4"), (0.00034712, "0.000347"), (1e-5, "1e-05"), (24307.6, "24308"), (float("inf"), "inf")],
)
def test_numbers_have_three_significant_digits(value, told):
    assert number(value) == told


def test_shares_counts_and_plurals():
    assert percent(0.97125) == "97.12\N{NO-BREAK SPACE}%"
    assert interval((0.954, 0.9868)) == "95.4–98.7\N{NO-BREAK SPACE}%"
    assert (count(1234567), plural(1, "trial"), plural(1200, "trial")) == ("1,234,567", "1 trial", "1,200 trials")
    assert (percent(None), interval(None), count(None)) == ("–", "–", "–")


def test_foreign_text_loses_controls_surrogates_and_turned_writing():
    assert clean_text("a\x00\x1b\ud800\u202eb\tc\n") == "a����b\tc\n"
    assert clean_text("😀 é 中") == "😀 é 中"


def test_one_line_is_cut_to_its_limit():
    assert one_line("a\n\t b", 10) == "a b"
    assert one_line("x" * 11, 10) == "x" * 9 + "…"


def test_plain_text_is_escaped_wherever_it_stands():
    evil = "<script>\"'&"
    escaped = "&lt;script&gt;&quot;&#x27;&amp;"
    assert join(evil, Html("<b>")) == f"{escaped}<b>"
    assert element("p", evil, title=evil) == f'<p title="{escaped}">{escaped}</p>'


def test_attributes_follow_pythons_names():
    assert element("input", class_="a", aria_label="b", checked=True, hidden=False) == '<input class="a" aria-label="b" checked>'
