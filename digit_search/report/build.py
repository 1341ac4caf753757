"""Entry points: write a run's tables and its report, or the comparison of several runs."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from digit_search.files.atomic_io import write_atomically
from digit_search.report.run_data import load_run_data, load_run_settings, load_run_state
from digit_search.report.tables import write_best_toml, write_epochs_csv, write_rungs_csv, write_trials_csv
from digit_search.run.layout import RunFolder
from digit_search.run.state import RunState

MAX_NAME_LETTERS = 120


def write_tables(folder: RunFolder, state: RunState | None = None) -> None:
    """Write trials.csv, epochs.csv and rungs.csv. Without a `state`, it is read from the run's events.

    Raises:
        RunFolderError: if the events are broken.
        StorageError: if a file cannot be written.
    """
    settings, _ = load_run_settings(folder)
    write_tables_of(folder, load_run_state(folder)[0] if state is None else state, settings.search.rank_by)


def write_tables_of(folder: RunFolder, state: RunState, rank_by: str) -> None:
    """Write the tables of a state without reading any file of the run.

    Raises:
        StorageError: if a file cannot be written.
    """
    write_trials_csv(folder.trials, state.trials, rank_by)
    write_epochs_csv(folder.epochs, state.trials)
    write_rungs_csv(folder.rungs, state.rungs)


def write_report(folder: RunFolder, state: RunState | None = None) -> None:
    """Write the tables, best.toml, report.md and report.html, at any time: during a run, after it, after a crash.

    For `state` and the errors see `write_tables`.
    """
    # Matplotlib, Optuna and Jinja2 take a second to import. A search that only writes its tables must not wait for them.
    from digit_search.report.page import build_pages
    from digit_search.report.summary import summarize

    run = load_run_data(folder, state)
    write_tables_of(folder, run.state, run.rank_by)
    write_best_toml(folder.best, folder.name, run.state, run.rank_by, run.num_validation)
    page, markdown = build_pages(run, summarize(run))
    write_atomically(folder.report_md, markdown)
    write_atomically(folder.report_html, page)


def summary_tree(folders: Sequence[RunFolder]) -> dict[str, Any]:
    """The summary of one run, or the comparison of several, as nested dicts and lists of values that JSON has.

    Raises:
        RunFolderError: as `compare`.
    """
    from digit_search.report.compare import compare
    from digit_search.report.summary import summarize

    return summarize(load_run_data(folders[0])).to_tree() if len(folders) == 1 else compare(folders).to_tree()


def write_comparison(folders: Sequence[RunFolder], page: Path) -> Path:
    """Write the comparison of several runs as a page, and as a CSV of the same name beside it; return the CSV's path.

    Raises:
        RunFolderError: as `compare`, or if a file cannot be written.
    """
    from digit_search.report.compare import compare
    from digit_search.report.compare_page import build_comparison

    comparison, table = compare(folders), page.with_suffix(".csv")
    write_atomically(table, comparison.to_csv())
    write_atomically(page, build_comparison(comparison, page, table))
    return table


def comparison_name(folders: Sequence[RunFolder]) -> str:
    """The default name of a comparison's page: the names of its runs."""
    names = "-".join(folder.name for folder in folders)
    if len(names) > MAX_NAME_LETTERS:
        names = f"{names[:MAX_NAME_LETTERS]}-{zlib.crc32(names.encode()):08x}"
    return f"comparison-{names}.html"
