"""The store's copy of a run is one that it can go on from at any time."""

import threading

import pytest

from digit_search.errors import StorageError
from digit_search.files.atomic_io import write_atomically
from digit_search.files.object_store import Remote
from digit_search.run.layout import RunFolder
from digit_search.storage.sync import Mirror


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


def test_events_come_after_what_they_tell_of_and_the_configuration_that_makes_it_a_run_comes_last(store, folder, place):
    write(folder, "config.toml", "environment.json", "events.jsonl", "trials.csv", "retraining/checkpoint_1.pt")
    Mirror(folder, place).push()
    assert set(puts(store)[:-2]) == {"environment.json", "trials.csv", "retraining/checkpoint_1.pt"}
    assert puts(store)[-2:] == ["events.jsonl", "config.toml"]


def test_an_event_that_is_written_while_the_others_are_brought_there_waits_for_the_next_time(store, folder, place, monkeypatch):
    write(folder, "events.jsonl", "trials.csv")
    mirror, upload = Mirror(folder, place), Remote.upload

    def event_meanwhile(self, path, name, max_bytes=None):
        with folder.events.open("a") as file:
            file.write(" and more")
        upload(self, path, name, max_bytes)

    monkeypatch.setattr(Remote, "upload", event_meanwhile)
    mirror.push()
    assert place.get("events.jsonl", 100) == b"events.jsonl"
    monkeypatch.undo()
    assert folder.events.read_text() == "events.jsonl and more and more"


def test_only_what_was_changed_is_brought_there_and_what_was_deleted_goes(store, folder, place):
    write(folder, "events.jsonl", "trials.csv", "retraining/checkpoint_0.pt", "retraining/checkpoint_1.pt")
    mirror = Mirror(folder, place)
    mirror.push()
    store.done.clear()
    write(folder, "trials.csv")
    (folder.path / "retraining" / "checkpoint_0.pt").unlink()
    place.put("of-another", b"kept")
    mirror.push()
    assert store.done == ["put bucket/run/of-another", "put bucket/run/trials.csv", "delete bucket/run/retraining/checkpoint_0.pt"]


def test_what_is_no_file_of_the_run_stays_here(folder, place, tmp_path):
    write(folder, ".lock", ".trials.csv.9.tmp", "tune/tuner.pkl", "tune/trial_0001/params.pkl", "tune/trial_0001/checkpoint_0.pt")
    write(folder, "tune/trial_0001/events.out.tfevents.1795604964.vm", "tune/trial_0001/error.txt", "best.toml")
    (folder.path / "link").symlink_to(tmp_path)
    Mirror(folder, place).push()
    assert sorted(place.files()) == ["best.toml", "tune/trial_0001/error.txt", "tune/trial_0001/events.out.tfevents.1795604964.vm"]


def test_what_a_failing_network_kept_from_the_store_comes_with_the_next_push(store, folder, place):
    write(folder, "config.toml", "events.jsonl", "trials.csv")
    mirror = Mirror(folder, place)
    store.failures_left = 3
    with pytest.raises(StorageError, match="cannot be written"):
        mirror.push()
    mirror.push()
    assert sorted(place.files()) == ["config.toml", "events.jsonl", "trials.csv"]


def test_files_of_the_run_alone_are_brought_here_whatever_lies_in_the_store(store, folder, place):
    ours = ["config.toml", "events.jsonl", "DigitRecognitionResNet18.pt", "retraining/trial_0003_77.pt"]
    ours += ["retraining/checkpoint_0.pt", "retraining/trial_0003_77/checkpoint_1.pt"]
    strange = ["x.sh", ".lock", "retraining/x.py", "retraining/a/../../x.pt", "tune/trial_0001/checkpoint_3.pt", "config.toml/x"]
    for name in ours:
        place.put(name, b"1")
    seen = dict.fromkeys((*ours, *strange))
    mirror = Mirror(folder, place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Remote, "files", lambda self: seen)
        mirror.pull(with_trainings=True)
    assert sorted(path.relative_to(folder.path).as_posix() for path in folder.path.rglob("*") if path.is_file()) == sorted(ours)
    store.done.clear()
    mirror.push()
    assert store.done == []


def test_files_are_brought_there_in_the_background(folder, place, monkeypatch):
    monkeypatch.setattr("digit_search.storage.sync.PAUSE_SECONDS", 0.01)
    with Mirror(folder, place).running():
        write(folder, "events.jsonl")
        while place.get("events.jsonl", 100) != b"events.jsonl":
            pass


def test_a_folder_that_goes_while_it_is_looked_at_ends_no_pushing(folder, place, monkeypatch):
    monkeypatch.setattr("digit_search.storage.sync.PAUSE_SECONDS", 0.01)
    looked, look = [], Mirror._files

    def gone_at_first(self):
        looked.append(self)
        if len(looked) == 1:
            raise FileNotFoundError("retraining")
        return look(self)

    monkeypatch.setattr(Mirror, "_files", gone_at_first)
    mirror = Mirror(folder, place)
    with mirror.running():
        write(folder, "events.jsonl")
        while place.get("events.jsonl", 100) != b"events.jsonl":
            assert any(thread.name.endswith("(_push_until)") for thread in threading.enumerate()), "the pushing has ended"
    assert len(looked) > 1
