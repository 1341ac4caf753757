"""Runs in a store: started, resumed on this machine or another one, read, and never lost."""

import json
import shutil
import signal
import threading

import pytest

from digit_search import cli
from digit_search.errors import RunFolderError, SearchError
from digit_search.files.object_store import Remote
from digit_search.records import TrialStatus
from digit_search.run.layout import RunFolder
from digit_search.storage.locate import check_new, create, find, reading
from digit_search.storage.remote_lock import LOCK
from tests.conftest import build_run


@pytest.fixture
def results(store, tmp_path, monkeypatch):
    """The folder of all runs, in a store."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Remote(store.uri("results"))


@pytest.fixture
def kept_run(results, tmp_path):
    """Puts a run into the store, of which this machine has no copy."""

    def keep(name="demo", statuses=(TrialStatus.COMPLETED, TrialStatus.RUNNING)):
        folder = build_run(RunFolder(tmp_path / "made" / name), statuses, finished=False, embedded=True)
        for path in folder.path.iterdir():
            results.child(name).upload(path, path.name)
        return results.child(name)

    return keep


def enter(folder, *acts):
    with folder.locked():
        for act in acts:
            act()


def begin(folder):
    folder.events.write_text('{"event": "phase", "at": 1.0, "name": "search"}\n')
    folder.config.write_text("seed = 1\n")


def test_a_new_run_is_in_the_store_at_the_end_and_leaves_no_local_copy(results, tmp_path):
    folder = create(results, "demo")
    with folder.locked():
        begin(folder)
    assert set(results.child("demo").files()) == {LOCK, "config.toml", "events.jsonl"}
    assert list((tmp_path / "cache" / "digit_search" / "runs").iterdir()) == []


def test_a_taken_name_is_refused_before_and_after_the_lock(results):
    late = create(results, "demo")
    folder = create(results, "demo")
    with folder.locked():
        begin(folder)
    with pytest.raises(RunFolderError, match="there is a run of this name already"):
        check_new(results, "demo")
    with pytest.raises(RunFolderError, match="there is a run of this name already"), late.locked():
        pass
    with find("demo", results).locked():
        assert folder.config.read_text() == "seed = 1\n"


def test_a_run_that_does_not_exist_is_refused_and_not_created(results):
    with pytest.raises(RunFolderError, match=r"expected a run, found none; there is no s3://bucket/results/demo/config\.toml"):
        enter(find("demo", results))
    with pytest.raises(RunFolderError, match="expected a run, found none"), reading("demo", results):
        pass
    assert results.files() == {}


def test_a_network_that_fails_at_the_end_loses_nothing_and_the_error_says_how_to_continue(results, store):
    folder = create(results, "demo")
    with pytest.raises(
        SearchError, match=r"lacks the newest files of this run; all of them are in .*\nContinue with: .* resume s3://bucket/results/demo"
    ):
        enter(folder, lambda: begin(folder), lambda: setattr(store, "failures_left", 10**6))
    assert folder.config.exists()
    store.failures_left = 0
    with find("s3://bucket/results/demo", results).locked():
        assert folder.config.read_text() == "seed = 1\n"
    assert "config.toml" in results.child("demo").files()
    assert not folder.path.exists()


def note(folder, text):
    with folder.events.open("a") as file:
        file.write(json.dumps({"event": "note", "at": 2.0, "text": text}) + "\n")


@pytest.fixture
def killed_run(results, kept_run, tmp_path):
    """A run whose process was killed: the lock is held, and the working copy has an event that the store lacks."""
    place, folder = kept_run(), find("demo", results)
    with folder.locked():
        shutil.copytree(folder.path, tmp_path / "killed")
    shutil.copytree(tmp_path / "killed", folder.path)
    note(folder, "only here")
    place.put(LOCK, json.dumps(json.loads(place.get(LOCK, 1000)) | {"held": True}).encode())
    return folder


def test_a_killed_run_is_resumed_at_once_from_its_working_copy(killed_run):
    with killed_run.locked():
        assert "only here" in killed_run.events.read_text()
    assert b"only here" in killed_run.remote.get("events.jsonl", 10**6)
    assert not killed_run.path.exists()


def test_a_working_copy_is_kept_if_all_files_in_the_store_are_deleted(killed_run):
    for name in killed_run.remote.files():
        killed_run.remote.delete(name)
    with killed_run.locked():
        assert "only here" in killed_run.events.read_text()
    assert b"only here" in killed_run.remote.get("events.jsonl", 10**6)


def test_an_old_working_copy_is_replaced_after_another_machine_resumed_the_run(results, killed_run, tmp_path, monkeypatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
        elsewhere.setattr("digit_search.storage.remote_lock.STALE_SECONDS", 0.0)
        other = find("demo", results)
        with other.locked():
            assert "only here" not in other.events.read_text()
            note(other, "from elsewhere")
    with killed_run.locked():
        assert "from elsewhere" in killed_run.events.read_text()
        assert "only here" not in killed_run.events.read_text()


def test_an_interrupted_run_is_in_the_store_as_well(results, kept_run):
    place, folder = kept_run(), find("demo", results)
    with pytest.raises(KeyboardInterrupt), folder.locked():
        note(folder, "the last")
        raise KeyboardInterrupt
    assert b"the last" in place.get("events.jsonl", 10**6)
    assert not folder.path.exists()


def test_checkpoints_of_reports_that_are_not_in_the_events_are_deleted(results, kept_run):
    place = kept_run(statuses=(TrialStatus.COMPLETED, TrialStatus.INTERRUPTED))
    tune = place.child("tune")
    # Trial 1 reported three epochs.
    for name in ("trial_0001/checkpoint_3.pt", "trial_0001/checkpoint_4.pt", "trial_0001/checkpoint_5.pt", "trial_0002/checkpoint_1.pt"):
        tune.put(name, b"1")
    with find("demo", results).locked():
        assert sorted(tune.files()) == ["trial_0001/checkpoint_3.pt", "trial_0001/checkpoint_4.pt"]


def test_unneeded_checkpoints_are_deleted_in_the_store_and_an_error_there_is_tried_again(results, store):
    folder = find("demo", results)
    tune = Remote(folder.trials_location)
    for trial in range(3):
        tune.put(f"trial_000{trial}/checkpoint_2.pt", b"1")
        tune.put(f"trial_000{trial}/error.log", b"1")
    # From a worker that was killed while it wrote to a mounted disk.
    tune.put("trial_0002/checkpoint_3.pt.4711.tmp", b"1")
    store.failures_left = 3
    folder.keep_checkpoints(range(3), {1})
    folder.keep_checkpoints(range(3), {1})
    assert sorted(tune.files()) == ["trial_0000/error.log", "trial_0001/checkpoint_2.pt", "trial_0001/error.log", "trial_0002/error.log"]


def run_command(capsys, *argv):
    code = cli.main([str(word) for word in argv])
    return code, *capsys.readouterr()


def test_a_report_is_written_into_the_store_while_another_process_works_on_the_run(results, kept_run, capsys):
    place = kept_run()
    place.put(LOCK, b'{"owner": "x", "newest": "x", "host": "y", "held": true}')
    code, out, _ = run_command(capsys, "report", "demo", "--results", results.uri)
    assert (code, out) == (0, "report: s3://bucket/results/demo/report.html\n")
    assert b"</html>" in place.get("report.html", 10**7)
    assert b"--config config.toml" in place.get("report.html", 10**7)
    assert json.loads(place.get(LOCK, 1000))["owner"] == "x"


def test_a_comparison_of_runs_in_a_store_is_written_there(results, kept_run, capsys, tmp_path):
    kept_run("a")
    kept_run("b")
    code, out, _ = run_command(capsys, "report", "a", "b", "--results", results.uri)
    assert (code, out) == (0, "comparison: s3://bucket/results/comparison-a-b.html, s3://bucket/results/comparison-a-b.csv\n")
    assert b"s3://bucket/results/a" in results.get("comparison-a-b.csv", 10**6)
    code, out, _ = run_command(capsys, "report", "s3://bucket/results/a", "b", "--results", results.uri, "--out", tmp_path / "here")
    assert (code, out) == (0, f"comparison: {tmp_path}/here.html, {tmp_path}/here.csv\n")
    code, _, err = run_command(capsys, "report", "a", "s3://bucket/results/a/", "--results", results.uri)
    assert (code, "named more than once" in err) == (2, True)


def test_an_unknown_run_in_a_store_is_one_clear_message(results, capsys):
    for command in ("resume", "retrain", "report"):
        code, _, err = run_command(capsys, command, "nothing", "--results", results.uri)
        assert code == 2
        assert err == (
            "error: s3://bucket/results/nothing: expected a run, found none; there is no s3://bucket/results/nothing/config.toml\n"
        )
    code, _, err = run_command(capsys, "resume", "../up", "--results", results.uri)
    assert (code, "expected 1 to 100 letters" in err) == (2, True)


def test_a_run_that_another_process_took_over_ends_with_an_error_and_keeps_its_files(results, kept_run, monkeypatch):
    monkeypatch.setattr("digit_search.storage.remote_lock.RENEW_SECONDS", 0.01)
    place, folder = kept_run(), find("demo", results)
    terminated = threading.Event()
    old_handler = signal.signal(signal.SIGTERM, lambda number, frame: terminated.set())
    taken = b'{"owner": "two", "newest": "two", "host": "elsewhere", "held": true}'
    try:
        with pytest.raises(SearchError, match=r"another process took over this run, on elsewhere, .* is only in "), folder.locked():
            note(folder, "only here")
            while not terminated.wait(0.05):
                place.put(LOCK, taken)
    finally:
        signal.signal(signal.SIGTERM, old_handler)
    assert place.get(LOCK, 1000) == taken
    assert "only here" in folder.events.read_text()
