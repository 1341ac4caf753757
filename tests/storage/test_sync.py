"""The store's copy of a run can be resumed at any time."""

import os

import pytest

from digit_search.errors import StorageError
from digit_search.files.atomic_io import write_atomically
from digit_search.files.object_store import Remote
from digit_search.run.layout import RunFolder
from digit_search.storage.sync import RunSync


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "copy" / "run")
    folder.path.mkdir(parents=True)
    return folder


@pytest.fixture
def place(store):
    return Remote(store.uri("run"))


def write(folder, *names):
    for name in names:
        (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(folder.path / name, name)


def puts(store):
    return [request.removeprefix("put bucket/run/") for request in store.done if request.startswith("put")]


def test_events_are_uploaded_after_the_files_they_mention_and_the_configuration_last(store, folder, place):
    write(folder, "config.toml", "environment.json", "events.jsonl", "trials.csv", "retraining/checkpoint_1.pt")
    RunSync(folder, place).push()
    assert set(puts(store)[:-2]) == {"environment.json", "trials.csv", "retraining/checkpoint_1.pt"}
    assert puts(store)[-2:] == ["events.jsonl", "config.toml"]


def test_an_event_that_is_written_during_a_push_is_left_to_the_next_one(store, folder, place, monkeypatch):
    write(folder, "events.jsonl", "trials.csv")
    sync, upload = RunSync(folder, place), Remote.upload

    def event_meanwhile(self, path, name, max_bytes=None):
        with folder.events.open("a") as file:
            file.write(" and more")
        upload(self, path, name, max_bytes)

    monkeypatch.setattr(Remote, "upload", event_meanwhile)
    sync.push()
    assert place.get("events.jsonl", 100) == b"events.jsonl"
    monkeypatch.undo()
    assert folder.events.read_text() == "events.jsonl and more and more"


def test_only_changed_files_are_uploaded_and_deleted_ones_are_deleted(store, folder, place):
    write(folder, "events.jsonl", "trials.csv", "retraining/checkpoint_0.pt", "retraining/checkpoint_1.pt")
    sync = RunSync(folder, place)
    sync.push()
    store.done.clear()
    write(folder, "trials.csv")
    (folder.path / "retraining" / "checkpoint_0.pt").unlink()
    place.put("of-somebody", b"kept")
    sync.push()
    assert store.done == ["put bucket/run/of-somebody", "put bucket/run/trials.csv", "delete bucket/run/retraining/checkpoint_0.pt"]


def test_only_files_of_the_run_are_uploaded(folder, place, tmp_path):
    write(folder, ".lock", ".trials.csv.9.tmp", "tune/tuner.pkl", "tune/trial_0001/params.pkl", "tune/trial_0001/checkpoint_0.pt")
    write(folder, "tune/trial_0001/events.out.tfevents.1795604964.vm", "tune/trial_0001/error.txt", "best.toml")
    (folder.path / "link").symlink_to(tmp_path)
    RunSync(folder, place).push()
    assert sorted(place.files()) == ["best.toml", "tune/trial_0001/error.txt", "tune/trial_0001/events.out.tfevents.1795604964.vm"]


def test_a_push_after_a_failed_one_uploads_the_rest(store, folder, place):
    write(folder, "config.toml", "events.jsonl", "trials.csv")
    sync = RunSync(folder, place)
    store.failures_left = 3
    with pytest.raises(StorageError, match="cannot be written"):
        sync.push()
    sync.push()
    assert sorted(place.files()) == ["config.toml", "events.jsonl", "trials.csv"]


def test_only_files_of_the_run_are_downloaded_whatever_is_in_the_store(store, folder, place):
    ours = ["config.toml", "events.jsonl", "DigitRecognitionResNet18.pt", "retraining/trial_0003_77.pt"]
    ours += ["retraining/checkpoint_0.pt", "retraining/trial_0003_77/checkpoint_1.pt"]
    strange = ["x.sh", ".lock", "retraining/x.py", "retraining/a/../../x.pt", "tune/trial_0001/checkpoint_3.pt", "config.toml/x"]
    for name in ours:
        place.put(name, b"1")
    stored = dict.fromkeys((*ours, *strange))
    sync = RunSync(folder, place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Remote, "files", lambda self: stored)
        sync.pull(with_trainings=True)
    assert sorted(path.relative_to(folder.path).as_posix() for path in folder.path.rglob("*") if path.is_file()) == sorted(ours)
    store.done.clear()
    sync.push()
    assert store.done == []


def test_files_are_uploaded_in_the_background(folder, place, monkeypatch):
    monkeypatch.setattr("digit_search.storage.sync.PAUSE_SECONDS", 0.01)
    with RunSync(folder, place).in_background():
        write(folder, "events.jsonl")
        while place.get("events.jsonl", 100) != b"events.jsonl":
            pass


def test_a_folder_that_is_deleted_while_it_is_listed_does_not_fail_a_push(folder, place, monkeypatch):
    write(folder, "events.jsonl", "retraining/checkpoint_0.pt")
    scandir = os.scandir

    def scandir_too_late(path):
        if str(path).endswith("retraining"):
            raise FileNotFoundError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scandir_too_late)
    RunSync(folder, place).push()
    assert list(place.files()) == ["events.jsonl"]


def test_a_failed_push_in_the_background_is_logged_and_tried_again(store, folder, place, monkeypatch, caplog):
    monkeypatch.setattr("digit_search.storage.sync.PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("digit_search.storage.sync.PAUSE_PER_PUSH", 0.0)
    write(folder, "events.jsonl")
    store.failures_left = 3
    with RunSync(folder, place).in_background():
        while "put bucket/run/events.jsonl" not in store.done:
            pass
    assert "the store does not have the newest files: s3://bucket/run/events.jsonl: cannot be written" in caplog.text
