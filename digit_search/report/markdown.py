"""report.md: the comparison of the trials in words and tables."""

from digit_search.report.formats import flatten
from digit_search.report.model_quality import model_quality
from digit_search.report.run_data import RunData
from digit_search.report.summary import Summary
from digit_search.report.templating import render_markdown
from digit_search.report.trials import trials_table
from digit_search.report.wording import METHODS, SAMPLE_NOTICE, sentences


def build_markdown(run: RunData, summary: Summary) -> str:
    """The report in Markdown, the same for the same files."""
    return render_markdown(
        "report.md.j2",
        summary=summary,
        sentences=sentences(run, summary),
        sample_notice=SAMPLE_NOTICE,
        table=trials_table(run),
        model=model_quality(run.predictions),
        methods=METHODS,
        environment=flatten(run.environment),
    )
