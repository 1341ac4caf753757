"""From the files of a run to its tables and its report."""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from digit_search.files.atomic_io import write_atomically
from digit_search.report.run_data import load_run_data, load_trials
from digit_search.report.tables import write_best_toml, write_epochs_csv, write_rungs_csv, write_trials_csv
from digit_search.run.layout import RunFolder
from digit_search.run.state import RunState

MAX_NAME_LETTERS = 120


def write_tables(folder: RunFolder, state: RunState | None = None) -> None:
    """Write trials.csv, epochs.csv and rungs.csv from the events so far; quick enough to be called after every epoch.

    Raises:
        RunFolderError: if the events are broken or a file cannot be written.
    """
    loaded, rank_by = load_trials(folder)
    write_tables_of(folder, state or loaded, rank_by)


def write_tables_of(folder: RunFolder, history: RunState, rank_by: str) -> None:
    """Write the tables of a history that was read already.

    Raises:
        StorageError: if a file cannot be written.
    """
    write_trials_csv(folder.trials, history.trials, rank_by)
    write_epochs_csv(folder.epochs, history.trials)
    write_rungs_csv(folder.rungs, history.rungs)


def write_report(folder: RunFolder, state: RunState | None = None) -> None:
    """Write the tables, best.toml, report.md and report.html, at any time: during a run, after it, after a crash.

    Raises:
        RunFolderError: if the events are broken or a file cannot be written.
    """
    # Matplotlib and Optuna take a second to import, which a search that only wants its tables would wait for before its first trial.
    from digit_search.report.markdown import build_markdown
    from digit_search.report.page import build_page
    from digit_search.report.summary import summarize

    run = load_run_data(folder)
    run = replace(run, state=state) if state else run
    write_tables(folder, state)
    write_best_toml(folder.best, folder.name, run.state, run.rank_by, run.num_validation)
    summary = summarize(run)
    write_atomically(folder.report_md, build_markdown(run, summary))
    write_atomically(folder.report_html, build_page(run, summary))


def summary_tree(folders: Sequence[RunFolder]) -> dict[str, Any]:
    """The summary of one run, or the comparison of several, of JSON's types; nothing is written.

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
    """What a comparison's page is called unless told otherwise: after its runs."""
    names = "-".join(folder.name for folder in folders)
    if len(names) > MAX_NAME_LETTERS:
        names = f"{names[:MAX_NAME_LETTERS]}-{zlib.crc32(names.encode()):08x}"
    return f"comparison-{names}.html"
