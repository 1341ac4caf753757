"""The command line: arguments in, exit code out. `--help` answers before anything slow is imported."""

import argparse
import contextlib
import difflib
import io
import itertools
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from digit_search.errors import DigitSearchError, RunFolderError, UserError

if TYPE_CHECKING:
    from digit_search.run.layout import RunFolder

Command = Callable[[argparse.Namespace], None]

EPILOG = """\
exit codes: 0 done; 1 the run failed; 2 a mistake in the command, the settings or the data; 130 interrupted

Trial 0 is the notebook's configuration, with which every other trial can be compared. ASHA compares a trial with the others for the
first time after search.asha.grace_epochs epochs. If a trial's step_size is larger than that, its learning rate has not dropped yet, so it
is judged before its schedule has had any effect.

configs/default.toml lists every setting. A flag beats --set, which beats --config, which beats the default.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name need not be UTF-8, and the terminal's encoding may lack a character of a message.
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = parse(sys.argv[1:] if argv is None else argv)
    try:
        arguments.command(arguments)
    except DigitSearchError as error:
        print(f"{'error' if isinstance(error, UserError) else 'failed'}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        text = str(interrupt)
        if not text and arguments.command is _resume:
            # The interrupt came before the run was opened, so nothing in its folder has changed.
            text = f"resume it with: python tune_main.py resume {shlex.quote(arguments.run)}"
        print(f"interrupted{': ' + text if text else ''}", file=sys.stderr)
        return 130
    return 0


def run_as_program() -> None:
    """Run the command in `sys.argv` and end this process with its exit code."""
    # SIGTERM does the same as Ctrl-C, until a run installs its own handlers.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = main()
    except KeyboardInterrupt:
        # A second interrupt, after the run has restored the handlers.
        code = 130
    # Everything is written. Python's own exit would let a second signal replace the exit code, and may crash in threads that Ray (2.60)
    # leaves behind when its start is interrupted or while it waits for a cluster to answer.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def say(text: str) -> None:
    """Print a line for the user at once, also into a pipe. A run does not end because the reader of the pipe has exited."""
    try:
        print(text, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# The commands. Each imports what it needs, so that the others stay fast.


def _search(arguments: argparse.Namespace) -> None:
    from digit_search.config.loading import load_settings
    from digit_search.files.object_store import parse_location
    from digit_search.pipeline import run

    settings = load_settings(arguments.config, arguments.assignments, search_flags(arguments))
    run(settings, arguments.name, parse_location(arguments.results), say)


def _resume(arguments: argparse.Namespace) -> None:
    from digit_search.pipeline import resume

    resume(_find_run(arguments), say, force=arguments.force)


def _retrain(arguments: argparse.Namespace) -> None:
    from digit_search.pipeline import retrain_run

    retrain_run(_find_run(arguments), arguments.trial, arguments.max_epochs, say)


def _find_run(arguments: argparse.Namespace) -> "RunFolder":
    from digit_search.files.object_store import parse_location
    from digit_search.storage.locate import find

    return find(arguments.run, parse_location(arguments.results))


def _predict(arguments: argparse.Namespace) -> None:
    from digit_search.pipeline import predict_file

    predict_file(arguments.model, arguments.test, arguments.out, arguments.max_csv_bytes, say)


def _report(arguments: argparse.Namespace) -> None:
    from digit_search.files.object_store import parse_location
    from digit_search.storage.locate import reading

    if arguments.out and (arguments.json or len(arguments.runs) == 1):
        raise UserError(f"--out {arguments.out}: only for the comparison of several runs; a run's own report is written to its folder")
    results = parse_location(arguments.results)
    with contextlib.ExitStack() as opened:
        message = _write_or_summarize([opened.enter_context(reading(run, results)) for run in arguments.runs], arguments)
    # Printed only now, because files in an object store are uploaded when the context ends.
    say(message)


def _write_or_summarize(folders: Sequence["RunFolder"], arguments: argparse.Namespace) -> str:
    """Write the report or the comparison and return where it is; with --json, return the summary and write nothing."""
    from digit_search.report.build import summary_tree, write_report
    from digit_search.run.events import read_events

    for folder in folders:
        if next(iter(read_events(folder.events)), None) is None:
            raise RunFolderError(
                f"{folder.display_path(folder.events)}: expected the run's events, found none; its tables and its report were not changed"
            )
    if arguments.json:
        return json.dumps(summary_tree(folders), indent=2)
    if len(folders) == 1:
        write_report(folders[0])
        return f"report: {folders[0].display_path(folders[0].report_html)}"
    return _write_comparison(folders, arguments)


def _write_comparison(folders: Sequence["RunFolder"], arguments: argparse.Namespace) -> str:
    from digit_search.files.object_store import parse_location
    from digit_search.report.build import comparison_name, write_comparison
    from digit_search.storage.locate import display_path, split_file, writing

    if arguments.out:
        place, name = split_file(parse_location(arguments.out))
    else:
        place, name = parse_location(arguments.results), comparison_name(folders)
    with writing(place) as written:
        page = (written / name).with_suffix(".html")
        table = write_comparison(folders, page)
    return f"comparison: {display_path(place, page.name)}, {display_path(place, table.name)}"


def _doctor(arguments: argparse.Namespace) -> None:
    from digit_search.doctor.examine import examine

    options = {"address": arguments.address, "data": arguments.data, "config": arguments.doctor_config, "results": arguments.results}
    examine(say, **options, as_json=arguments.json)


# The options


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; on a mistake, print it and exit with code 2. `command` of the result is the function to call."""
    parser = argparse.ArgumentParser(
        prog="tune_main.py",
        description="Search hyperparameters of a ResNet18 for handwritten digits, retrain the best trial, predict and report.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=_search)
    _add_search_options(parser)
    _add_results_option(parser, "results")
    commands = parser.add_subparsers(title="commands (without one: the whole job)", metavar="COMMAND")
    for name, (text, command, add_options) in COMMANDS.items():
        command_parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command_parser.set_defaults(command=command)
        add_options(command_parser)
    _check_option_names(parser, commands.choices, argv)
    arguments = parser.parse_args(argv)
    if arguments.command is not _search and (given := _given_search_options(arguments)):
        parser.error(f"{', '.join(given)}: only for the whole job, not for this command")
    return arguments


def _check_option_names(parser: argparse.ArgumentParser, commands: Mapping[str, argparse.ArgumentParser], argv: Sequence[str]) -> None:
    """Report an unknown option. argparse would take the word after it for a command and complain about that word instead."""
    current, words = parser, iter(argv)
    for word in itertools.takewhile(lambda word: word != "--", words):
        # argparse takes a word with a blank for a value, whatever it begins with.
        if not word.startswith("--") or " " in word:
            if current is parser and word not in commands:
                return
            current = commands[word] if current is parser else current
            continue
        name, has_value, _ = word.partition("=")
        takes_value = {"--help": "", **dict(re.findall(r"(--[a-z-]+)( [A-Z])?", current.format_usage()))}
        if name not in takes_value:
            close = difflib.get_close_matches(name, takes_value, n=1, cutoff=0.75)
            parser.error(f"unknown option {name}{f': is {close[0]} meant?' if close else ''}; --help lists all")
        if takes_value[name] and not has_value:
            next(words, None)


def search_flags(arguments: argparse.Namespace) -> dict[str, object]:
    """The flags as dotted settings; None if a flag was not given."""
    flags = {key: value for key, value in vars(arguments).items() if "." in key or key == "seed"}
    return flags | {"retrain.max_epochs": flags["search.asha.max_epochs"]}


def _given_search_options(arguments: argparse.Namespace) -> list[str]:
    given = [key for key, value in search_flags(arguments).items() if value is not None]
    given += [f"--{name}" for name in ("config", "name") if getattr(arguments, name) is not None]
    return given + ["--set"] * bool(arguments.assignments)


def _add_search_options(parser: argparse.ArgumentParser) -> None:
    """A `dest` with a dot is the setting that the option sets."""
    add = parser.add_argument
    add("--samples", dest="search.samples", type=int, metavar="N", help="number of trials (default 20)")
    folder = "folder with train.csv and test.csv, or .gz (default: data/digit-recognizer, else the embedded sample)"
    add("--data", dest="data.dir", metavar="DIR", help=folder)
    add("--config", type=Path, metavar="FILE", help="a TOML file; configs/default.toml shows every setting")
    one_setting = "one setting, e.g. --set search.space.lr.high=0.1; repeatable"
    add("--set", dest="assignments", action="append", default=[], metavar="KEY=VALUE", help=one_setting)
    add("--name", metavar="NAME", help="the run's name (default: the time)")
    add(
        "--max-epochs",
        dest="search.asha.max_epochs",
        type=int,
        metavar="N",
        help="most epochs of a trial (default 7) and of the retraining (default 15)",
    )
    add("--workers", dest="resources.workers", type=int, metavar="N", help="trials at a time (default: as many as fit)")
    add("--cpus-per-trial", dest="resources.cpus_per_trial", type=int, metavar="N", help="CPU threads of a trial (default 1)")
    share = "share of a GPU, e.g. 0.25 (default: 1 if there is a GPU)"
    add("--gpus-per-trial", dest="resources.gpus_per_trial", type=float, metavar="F", help=share)
    add("--time-budget", dest="search.time_budget", metavar="TIME", help="end the search after e.g. 30m, then retrain the best")
    add("--seed", type=int, metavar="N", help="seed of all random numbers (default 0)")
    earlier_run = "learn also from the finished trials of an earlier run on the same data and space; repeatable"
    add("--warm-start", dest="search.warm_start", action="append", metavar="RUN", help=earlier_run)
    again = "train the K best trials again with fresh seeds; the best mean wins (default 1: off)"
    add("--confirm", dest="retrain.confirm", type=int, metavar="K", help=again)
    add("--address", dest="ray.address", metavar="ADDR", help="join a running Ray cluster: auto or HOST:PORT")
    add("--no-early-stopping", dest="search.asha.enabled", action="store_false", default=None, help="run every trial to the end")
    add("--no-dashboard", dest="ray.dashboard", action="store_false", default=None, help="start Ray without its dashboard")


def _add_results_option(parser: argparse.ArgumentParser, default: str = argparse.SUPPRESS) -> None:
    # A command has no default of its own, which would replace a value given before the command.
    where = "where runs are kept: a folder, or s3://... or gs://... (default: results)"
    parser.add_argument("--results", default=default, metavar="DIR", help=where)


def _add_resume_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's name or folder")
    parser.add_argument("--force", action="store_true", help="resume even if the versions of the libraries have changed")
    _add_results_option(parser)


def _add_retrain_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's name or folder")
    parser.add_argument("--trial", type=int, metavar="N", help="this trial instead of the best")
    limit = "at most this many epochs (default: the run's retrain.max_epochs)"
    parser.add_argument("--max-epochs", type=_positive, metavar="N", help=limit)
    _add_results_option(parser)


def _add_predict_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL.pt", help="weights as a run writes them")
    parser.add_argument("--test", type=Path, required=True, metavar="CSV", help="digits without labels, .csv or .csv.gz")
    parser.add_argument("--out", type=Path, required=True, metavar="CSV", help="file for the predictions: ImageId,Label")
    limit = "refuse a CSV that unpacks to more (default: 1 GiB)"
    parser.add_argument("--max-csv-bytes", type=_positive, default=1 << 30, metavar="N", help=limit)


def _add_report_options(parser: argparse.ArgumentParser) -> None:
    runs = "a run's name or folder; several runs are compared, and their own reports are not changed"
    parser.add_argument("runs", nargs="+", metavar="RUN", help=runs)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON and write nothing")
    page = "page of a comparison, with its CSV beside it (default: comparison-RUN-RUN.html in --results)"
    parser.add_argument("--out", metavar="FILE", help=page)
    _add_results_option(parser)


def _add_doctor_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--address", metavar="ADDR", help="check a running Ray cluster: auto or HOST:PORT")
    parser.add_argument("--data", metavar="DIR", help="folder with train.csv and test.csv")
    # The whole job has `config` too. A value given before the command would be replaced by the default of this one.
    parser.add_argument("--config", dest="doctor_config", type=Path, metavar="FILE", help="a run's TOML file")
    parser.add_argument("--json", action="store_true", help="print all findings as JSON at the end, and nothing else")
    _add_results_option(parser)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, found {text!r}")
    return int(text)


COMMANDS: dict[str, tuple[str, Command, Callable[[argparse.ArgumentParser], None]]] = {
    "resume": ("resume an interrupted run", _resume, _add_resume_options),
    "retrain": ("train the best (or the named) trial of a run again: new weights, solution.csv and report", _retrain, _add_retrain_options),
    "predict": ("predict digits with saved weights", _predict, _add_predict_options),
    "report": ("rebuild a run's tables and report from its files, or compare several runs", _report, _add_report_options),
    "doctor": ("check what this machine or a cluster offers, what would fail, and how to fix it", _doctor, _add_doctor_options),
}
"""By name: the help, what it does, its options."""
