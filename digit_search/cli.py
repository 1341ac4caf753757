"""The command line: arguments in, exit code out. `--help` answers before anything heavy is imported."""

import argparse
import contextlib
import difflib
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digit_search.errors import DigitSearchError, UserError

if TYPE_CHECKING:
    from digit_search.run.layout import RunFolder

EPILOG = """\
exit codes: 0 done; 1 the run failed; 2 a mistake in what was asked for; 130 interrupted

The search starts from the notebook's configuration (trial 0) and compares every trial with it. ASHA looks at a trial for the first time
after search.asha.grace_epochs; a step_size above that means that the learning rate cannot have dropped by then, so such a trial is judged
by how well it does without its schedule.

configs/default.toml lists every setting; a flag beats --set, which beats --config, which beats the default.
"""


class Parser(argparse.ArgumentParser):
    """Takes options by their whole names alone, and complains of an unknown one rather than of what follows it."""

    def __init__(self, **options: Any) -> None:
        self._options: dict[str, argparse.Action] = {}
        self._has_commands = False
        super().__init__(allow_abbrev=False, **options)

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        action = super().add_argument(*names, **options)
        self._options |= {name: action for name in names if name.startswith("--")}
        return action

    def add_subparsers(self, **options: Any) -> Any:
        self._has_commands = True
        return super().add_subparsers(**options)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None) -> Any:
        args = sys.argv[1:] if args is None else args
        self._check_names(iter(args))
        return super().parse_known_args(args, namespace)

    def _check_names(self, arguments: Iterator[str]) -> None:
        """Look at all options; where there are commands, up to the first other word, because a command has a parser of its own."""
        for argument in arguments:
            name, has_value, _ = argument.partition("=")
            if name == "--" or (not name.startswith("--") and self._has_commands):
                return
            if not name.startswith("--"):
                continue
            if name not in self._options:
                close = difflib.get_close_matches(name, self._options, n=1, cutoff=0.75)
                self.error(f"unknown option {name}{f': is {close[0]} meant?' if close else ''}; --help lists all")
            if self._options[name].nargs != 0 and not has_value:
                next(arguments, None)


def _search_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--samples", type=int, metavar="N", help="trials to run (default 20)")
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="folder with train.csv and test.csv, or .gz (default: data/digit-recognizer, else the embedded sample)",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file; configs/default.toml shows every setting")
    parser.add_argument(
        "--set",
        dest="assignments",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting, e.g. --set search.space.lr.high=0.1; repeatable",
    )
    parser.add_argument("--name", metavar="NAME", help="the run's name (default: the time)")
    parser.add_argument("--max-epochs", type=int, metavar="N", help="epochs of a full trial, and of the retraining")
    parser.add_argument("--workers", type=int, metavar="N", help="trials at a time (default: as many as fit)")
    parser.add_argument("--cpus-per-trial", type=int, metavar="N", help="CPU threads of a trial (default 1)")
    parser.add_argument("--gpus-per-trial", type=float, metavar="F", help="share of a GPU, e.g. 0.25 (default: 1 where there is one)")
    parser.add_argument("--time-budget", metavar="TIME", help="end the search after e.g. 30m, then retrain the best")
    parser.add_argument("--seed", type=int, metavar="N", help="of everything random (default 0)")
    parser.add_argument(
        "--warm-start",
        action="append",
        metavar="RUN",
        help="learn from the finished trials of an earlier run on the same data and space too; repeatable",
    )
    parser.add_argument(
        "--confirm", type=int, metavar="K", help="train the K best trials again with fresh seeds; the best mean wins (default 1: off)"
    )
    parser.add_argument("--address", metavar="ADDR", help="join a running Ray cluster: auto or HOST:PORT")
    parser.add_argument("--no-early-stopping", action="store_true", help="run every trial to the end")
    parser.add_argument("--no-dashboard", action="store_true", help="start Ray without its dashboard")


def _results_option(parser: argparse.ArgumentParser, default: object = argparse.SUPPRESS) -> None:
    # Suppressed, a command's default leaves alone what was given before the command.
    parser.add_argument(
        "--results", default=default, metavar="DIR", help="where runs are kept: a folder, or s3://... or gs://... (default: results)"
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, found {text!r}")
    return int(text)


def search_flags(arguments: argparse.Namespace) -> dict[str, object]:
    """The flags as dotted settings; None where a flag was not given."""
    return {
        "search.samples": arguments.samples,
        "data.dir": arguments.data,
        "search.asha.max_epochs": arguments.max_epochs,
        "retrain.max_epochs": arguments.max_epochs,
        "resources.workers": arguments.workers,
        "resources.cpus_per_trial": arguments.cpus_per_trial,
        "resources.gpus_per_trial": arguments.gpus_per_trial,
        "search.time_budget": arguments.time_budget,
        "seed": arguments.seed,
        "search.warm_start": arguments.warm_start,
        "retrain.confirm": arguments.confirm,
        "ray.address": arguments.address,
        "search.asha.enabled": False if arguments.no_early_stopping else None,
        "ray.dashboard": False if arguments.no_dashboard else None,
    }


def _search(arguments: argparse.Namespace) -> None:
    from digit_search.config.loading import load_settings
    from digit_search.files.object_store import place_of
    from digit_search.pipeline import run

    settings = load_settings(arguments.config, arguments.assignments, search_flags(arguments))
    run(settings, arguments.name, place_of(arguments.results), say)


def _resume(arguments: argparse.Namespace) -> None:
    from digit_search.files.object_store import place_of
    from digit_search.pipeline import resume
    from digit_search.storage.locate import find

    resume(find(arguments.run, place_of(arguments.results)), say, force=arguments.force)


def _retrain(arguments: argparse.Namespace) -> None:
    from digit_search.files.object_store import place_of
    from digit_search.pipeline import retrain_run
    from digit_search.storage.locate import find

    retrain_run(find(arguments.run, place_of(arguments.results)), arguments.trial, arguments.retrain_max_epochs, say)


def _predict(arguments: argparse.Namespace) -> None:
    from digit_search.pipeline import predict_file

    predict_file(arguments.model, arguments.test, arguments.out, arguments.max_csv_bytes, say)


def _report(arguments: argparse.Namespace) -> None:
    from digit_search.files.object_store import place_of
    from digit_search.storage.locate import reading

    results = place_of(arguments.results)
    with contextlib.ExitStack() as opened:
        folders = [opened.enter_context(reading(run, results)) for run in arguments.runs]
        if arguments.out and (arguments.json or len(folders) == 1):
            raise UserError(f"--out {arguments.out}: for the comparison of several runs; a run's own report lies in its folder")
        told = _report_on(folders, arguments)
    # Only now is it where it says: a store takes a file when it is whole.
    say(told)


def _report_on(folders: Sequence["RunFolder"], arguments: argparse.Namespace) -> str:
    """Write, or return, what was asked for of the runs; return what to tell."""
    from digit_search.errors import RunFolderError
    from digit_search.files.object_store import place_of
    from digit_search.report.build import comparison_name, summary_tree, write_comparison, write_report
    from digit_search.run.events import read_events
    from digit_search.storage.locate import shown_in, split_file, writing

    for folder in folders:
        if not any(True for _ in read_events(folder.events)):
            raise RunFolderError(
                f"{folder.shown(folder.events)}: expected the run's events, found none; its tables and its report are left as they are"
            )
    if arguments.json:
        return json.dumps(summary_tree(folders), indent=2)
    if len(folders) == 1:
        write_report(folders[0])
        return f"report: {folders[0].shown(folders[0].report_html)}"
    if arguments.out:
        place, name = split_file(place_of(arguments.out))
    else:
        place, name = place_of(arguments.results), comparison_name(folders)
    with writing(place) as written:
        page = (written / name).with_suffix(".html")
        table = write_comparison(folders, page)
    return f"comparison: {shown_in(place, page.name)}, {shown_in(place, table.name)}"


def _doctor(arguments: argparse.Namespace) -> None:
    from digit_search.doctor.examine import DoctorOptions, examine

    wishes = DoctorOptions(arguments.doctor_address, arguments.doctor_data, arguments.doctor_config, arguments.results)
    examine(wishes, say, as_json=arguments.json)


def say(text: str) -> None:
    """Print a line for the user at once, also into a pipe. A reader that went away ends no run."""
    try:
        print(text, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def make_parser() -> argparse.ArgumentParser:
    """The whole command line. Without a command the whole job is run."""
    parser = Parser(
        prog="tune_main.py",
        description="Search hyperparameters of a ResNet18 for handwritten digits, retrain the best trial, predict and report.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _search_options(parser)
    _results_option(parser, "results")
    parser.set_defaults(act=_search)
    commands = parser.add_subparsers(title="commands (without one: the whole job)", metavar="COMMAND")

    def add(name: str, text: str, act: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(act=act)
        return command

    resume = add("resume", "go on with an interrupted run", _resume)
    resume.add_argument("run", metavar="RUN", help="a run's name or folder")
    resume.add_argument("--force", action="store_true", help="also where the libraries' versions have changed")
    _results_option(resume)
    retrain = add("retrain", "train the best (or the named) trial of a run again: new weights, solution.csv and report", _retrain)
    retrain.add_argument("run", metavar="RUN", help="a run's name or folder")
    retrain.add_argument("--trial", type=int, metavar="N", help="this trial instead of the best")
    retrain.add_argument(
        "--max-epochs",
        dest="retrain_max_epochs",
        type=_positive,
        metavar="N",
        help="at most so many epochs (default: the run's retrain.max_epochs)",
    )
    _results_option(retrain)
    predict = add("predict", "predict digits from saved weights alone", _predict)
    predict.add_argument("model", type=Path, metavar="MODEL.pt", help="weights as a run writes them")
    predict.add_argument("--test", type=Path, required=True, metavar="CSV", help="digits without labels, .csv or .csv.gz")
    predict.add_argument("--out", type=Path, required=True, metavar="CSV", help="where ImageId,Label go")
    predict.add_argument(
        "--max-csv-bytes", type=_positive, default=1 << 30, metavar="N", help="refuse a CSV that unpacks to more (default: 1 GiB)"
    )
    report = add("report", "make a run's tables and report again from its files, or compare several runs", _report)
    report.add_argument("runs", nargs="+", metavar="RUN", help="a run's name or folder; several are compared, their reports left alone")
    report.add_argument("--json", action="store_true", help="print the summary as JSON instead, and write nothing")
    report.add_argument(
        "--out", metavar="FILE", help="page of a comparison, its CSV beside it (default: comparison-RUN-RUN.html in --results)"
    )
    _results_option(report)
    doctor = add("doctor", "say what this machine or a cluster offers, what would fail, and the remedy", _doctor)
    doctor.add_argument("--address", dest="doctor_address", metavar="ADDR", help="look at a running Ray cluster: auto or HOST:PORT")
    doctor.add_argument("--data", dest="doctor_data", metavar="DIR", help="folder of train.csv and test.csv")
    doctor.add_argument("--config", dest="doctor_config", type=Path, metavar="FILE", help="a run's TOML file")
    doctor.add_argument("--json", action="store_true", help="print all findings as JSON instead, at the end")
    _results_option(doctor)
    return parser


def _given_search_options(arguments: argparse.Namespace) -> list[str]:
    """The options of the whole job that were given."""
    given = [key for key, value in search_flags(arguments).items() if value is not None]
    given += [f"--{name}" for name in ("config", "name") if getattr(arguments, name) is not None]
    return given + ["--set"] * bool(arguments.assignments)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    # A file's name need not be UTF-8, and what a run tells may not fit the terminal's encoding.
    sys.stdout.reconfigure(errors="backslashreplace")
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.act is not _search and _given_search_options(arguments):
        parser.error(f"{', '.join(_given_search_options(arguments))}: for the whole job alone, not for this command")
    try:
        arguments.act(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except DigitSearchError as error:
        print(f"failed: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        # A resume that was interrupted before it looked at the run has changed nothing there.
        text = str(interrupt)
        if not text and arguments.act is _resume:
            text = f"go on with: python tune_main.py resume {shlex.quote(arguments.run)}"
        print(f"interrupted{': ' + text if text else ''}", file=sys.stderr)
        return 130
    return 0


def run_as_program() -> None:
    """Run the command of `sys.argv` and end this process with its exit code."""
    # Until a run catches it, SIGTERM means what Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = main()
    except KeyboardInterrupt:
        # A second one, after the run's own handlers were put back.
        code = 130
    # All is written and told. Python's own way out takes a second signal for its death, and may crash in the threads that Ray (2.60) leaves
    # behind where its start was broken off or where it waits for the answer of a cluster.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
