"""Windows has no fcntl, SIGALRM or os.sched_getaffinity, so this package must work without them. Here they are hidden from it."""

import builtins
import contextlib
import functools
import importlib
import io
import json
import os
import pkgutil
import signal
import sys
from pathlib import Path
from types import ModuleType

import pytest

from digit_search.records import TrialStatus
from digit_search.run.layout import RunFolder
from tests.conftest import build_run
from tests.own_process import in_own_process

pytestmark = pytest.mark.slow

MISSING_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix"}
MISSING_NAMES = {
    os: """O_NONBLOCK O_CLOEXEC O_NOFOLLOW O_DIRECTORY O_SYNC O_NOCTTY WNOHANG fork forkpty fchmod fchown chown lchown mkfifo mknod statvfs
        fstatvfs sysconf getuid geteuid getgid getegid getgroups getpgid getpgrp getsid setsid setpgid killpg wait wait3 wait4 waitid nice
        getpriority setpriority sched_getaffinity sched_setaffinity sched_yield getloadavg uname register_at_fork posix_spawn pread pwrite
        sendfile fdatasync memfd_create""",
    signal: """SIGALRM SIGKILL SIGHUP SIGQUIT SIGUSR1 SIGUSR2 SIGCHLD SIGPIPE SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGBUS SIGWINCH
        SIGPROF SIGVTALRM ITIMER_REAL alarm setitimer getitimer pause pthread_kill pthread_sigmask sigpending sigwait sigwaitinfo
        sigtimedwait siginterrupt SIG_BLOCK SIG_UNBLOCK SIG_SETMASK""",
}


def _without(module: ModuleType, names: str) -> ModuleType:
    reduced = ModuleType(module.__name__)
    reduced.__dict__.update({name: value for name, value in vars(module).items() if name not in names.split()})
    return reduced


def hide_what_windows_lacks() -> None:
    """From now on, code in digit_search imports modules without these names. What was imported before is imported again."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "digit_search"]:
        del sys.modules[name]
    import_module = builtins.__import__
    reduced = {module.__name__: _without(module, names) for module, names in MISSING_NAMES.items()}

    def import_as_on_windows(name, globals=None, locals=None, fromlist=(), level=0):
        is_ours = str((globals or {}).get("__name__")).partition(".")[0] == "digit_search"
        if is_ours and level == 0 and name in MISSING_MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if is_ours and level == 0 and name in reduced:
            return reduced[name]
        return import_module(name, globals, locals, fromlist, level)

    builtins.__import__ = import_as_on_windows


def visible_names() -> list[str]:
    """What code in digit_search still sees; nothing, if the hiding works."""
    ours = {"__name__": "digit_search.cli"}
    visible = []
    for name in MISSING_MODULES:
        with contextlib.suppress(ModuleNotFoundError):
            exec(f"import {name}", ours)
            visible.append(name)
    for module, names in MISSING_NAMES.items():
        exec(f"import {module.__name__}", ours)
        visible += [name for name in names.split() if hasattr(ours[module.__name__], name)]
    return visible


def failed_imports() -> dict[str, str]:
    """Every module of the package that cannot be imported, with the reason."""
    import digit_search

    failures = {}
    for module in pkgutil.walk_packages(digit_search.__path__, "digit_search."):
        try:
            importlib.import_module(module.name)
        except Exception as error:  # noqa: BLE001
            failures[module.name] = repr(error)
    return failures


def run_command(*argv: object) -> tuple[object, str]:
    """Exit code, or the error that was not caught, and what was printed."""
    from digit_search import cli

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            code = cli.main([str(word) for word in argv])
        except SystemExit as end:
            code = end.code
        except Exception as error:  # noqa: BLE001
            code = repr(error)
    return code, printed.getvalue()


def read_test_csv(path: Path) -> object:
    try:
        from digit_search.data.reader import read_test

        return read_test(path).num_rows
    except Exception as error:  # noqa: BLE001
        return repr(error)


def doctor_without_ray(results: Path) -> tuple[object, str]:
    """Without starting Ray, which takes seconds."""
    try:
        from digit_search.doctor import cluster
    except Exception as error:  # noqa: BLE001
        return repr(error), ""
    cluster.check_ray = lambda settings: []
    return run_command("doctor", "--json", "--results", results)


def try_everything(run: Path, csv: Path, results: Path) -> dict[str, object]:
    hide_what_windows_lacks()
    return {
        "visible": visible_names(),
        "help": run_command("--help"),
        "imports": failed_imports(),
        "report": run_command("report", run),
        "csv": read_test_csv(csv),
        "doctor": doctor_without_ray(results),
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    """A run without a report."""
    folder = RunFolder(tmp_path_factory.mktemp("windows") / "demo")
    return build_run(folder, [TrialStatus.COMPLETED, TrialStatus.COMPLETED, TrialStatus.STOPPED], finished=True, embedded=False)


@pytest.fixture(scope="module")
def seen(run, tiny_data, tmp_path_factory) -> dict[str, object]:
    return in_own_process(functools.partial(try_everything, run.path, tiny_data / "test.csv", tmp_path_factory.mktemp("results")))


def test_nothing_that_windows_lacks_is_visible_to_our_code(seen):
    assert seen["visible"] == []


def test_every_module_is_imported(seen):
    assert seen["imports"] == {}


def test_help_is_printed(seen):
    code, printed = seen["help"]
    assert (code, printed.startswith("usage: tune_main.py")) == (0, True), printed


def test_a_report_is_built(seen, run):
    assert seen["report"] == (0, f"report: {run.report_html}\n")
    assert run.report_html.exists()


def test_a_csv_is_read(seen):
    assert seen["csv"] == 40


def test_the_doctor_checks_what_there_is(seen):
    code, printed = seen["doctor"]
    assert code in (0, 2), (code, printed)
    findings = json.loads(printed[printed.index("[") : printed.rindex("]") + 1])
    assert {"Python", "cores", "memory", "results", "data"} <= {finding["name"] for finding in findings}
    assert not [finding for finding in findings if "cannot be checked" in finding["found"]]
