import pytest
from jinja2 import DictLoader, UndefinedError
from markupsafe import Markup

from digit_search.report import templating

EVIL = "<script>\"'&\x1b|"


@pytest.fixture
def template(monkeypatch):
    """Write a template under the name `test`."""

    def write(text: str) -> None:
        for language in ("html", "markdown"):
            monkeypatch.setattr(templating.environment(language), "loader", DictLoader({"test": text}))

    return write


def test_text_is_escaped_in_content_and_in_attributes_and_loses_control_characters(template):
    template('<p title="{{ text }}">{{ text }}</p>')
    escaped = "&lt;script&gt;&#34;&#39;&amp;\N{REPLACEMENT CHARACTER}|"
    assert templating.render_html("test", text=EVIL) == f'<p title="{escaped}">{escaped}</p>'


def test_only_markup_is_not_escaped(template):
    template("{{ markup }}{{ text }}")
    assert templating.render_html("test", markup=Markup("<svg></svg>"), text="<b>") == "<svg></svg>&lt;b&gt;"


def test_text_in_markdown_is_escaped_and_stays_on_one_line(template):
    template("| {{ text }} |")
    assert templating.render_markdown("test", text="<b>a|b*\nc") == "| &lt;b&gt;a\\|b\\* c |"


@pytest.mark.parametrize("render", [templating.render_html, templating.render_markdown])
def test_a_name_that_the_template_does_not_get_is_an_error(template, render):
    template("{{ typo }}")
    with pytest.raises(UndefinedError, match="typo"):
        render("test")


@pytest.mark.parametrize(("value", "key"), [(None, ""), (float("nan"), ""), (0, "0"), (0.00034712, "0.00034712"), (52.5, "52.5")])
def test_a_missing_number_has_an_empty_sort_key(value, key):
    assert templating.sort_key(value) == key
