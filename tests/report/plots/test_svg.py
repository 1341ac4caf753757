import re

import pytest

from digit_search.report.plots.style import INK, THEME
from digit_search.report.plots.svg import HALF, WIDE, draw, trial_link


def drawn(paint=lambda axes: None, name="first", alt="a chart", size=HALF):
    return draw(name, "A title", alt=alt, caption="A caption.", size=size, paint=paint)


def plot_with_links(axes):
    axes.plot([1, 2], [1, 2], marker="o", color=THEME["stopped"][0], url=trial_link(7))
    axes.barh(1, 2, facecolor="none", edgecolor=INK, hatch="///")


@pytest.mark.parametrize(("size", "is_wide"), [(HALF, False), (WIDE, True)])
def test_a_picture_has_its_title_its_caption_and_its_text_for_screen_readers(size, is_wide):
    picture = drawn(size=size, alt='an "<alt>"')
    assert (picture.title, picture.caption, picture.is_wide) == ("A title", "A caption.", is_wide)
    assert picture.svg.startswith("<svg viewBox=")
    assert 'role="img"><title>an "&lt;alt&gt;"</title>' in picture.svg


def test_colours_are_variables_of_the_page_and_the_font_is_the_pages():
    svg = drawn(plot_with_links).svg
    assert "var(--stopped)" in svg
    assert "var(--ink)" in svg
    assert not re.search(r"#[0-9a-f]{6}\b", svg)
    assert "font-family" not in svg


def test_the_ids_of_two_pictures_differ_and_their_references_fit():
    ids = []
    for name in ("first", "second"):
        svg = drawn(plot_with_links, name).svg
        defined = re.findall(r' id="([^"]+)"', svg)
        references = re.findall(r"url\(#([^)]+)\)", svg) + re.findall(r'<use href="#([^"]+)"', svg)
        assert references
        assert set(references) <= set(defined)
        ids += defined
    assert len(set(ids)) == len(ids)


def test_a_link_leads_to_a_trial_of_the_page_and_names_it():
    svg = drawn(plot_with_links).svg
    assert svg.count('<a href="#trial-7" tabindex="-1"><title>trial 7</title>') == 2
    assert "target=" not in svg


def test_numbers_in_a_picture_have_at_most_two_decimals():
    svg = drawn(lambda axes: axes.plot([1 / 3, 2 / 3], [1 / 7, 2 / 7], linewidth=1 / 3)).svg
    assert re.search(r"stroke-width: 0\.33\b", svg)
    assert not re.search(r'="[^"]*\.\d{3}', svg)


@pytest.mark.parametrize("text", [f'{INK} id="x" url(#y) font-family: z; a', "</svg><script>alert(1)</script>"])
def test_text_stays_as_it_is(text):
    svg = drawn(lambda axes: axes.set_xlabel(text)).svg
    assert f">{text.replace('<', '&lt;').replace('>', '&gt;')}</text>" in svg


@pytest.mark.filterwarnings("ignore:Glyph")
def test_control_characters_in_a_text_are_replaced():
    assert ">a\N{REPLACEMENT CHARACTER}b</text>" in drawn(lambda axes: axes.set_xlabel("a\x1bb")).svg


def test_a_style_that_many_elements_share_is_written_once():
    svg = drawn(lambda axes: [axes.plot([0, 1], [0, height], color=INK, linewidth=3.25) for height in range(9)]).svg
    assert svg.count("stroke-width: 3.25") == 1
    (label,) = re.findall(r"\.(first-\d+)\{[^}]*stroke-width: 3.25", svg)
    assert svg.count(f'class="{label}"') == 9
