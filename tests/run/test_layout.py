"""A run's folder: only inside the results folder, and only one run in it."""

import pytest

from digit_search.errors import RunFolderError
from digit_search.run.layout import create_run_folder, open_run_folder


@pytest.mark.parametrize("name", ["../x", "a/b", "/etc", "", ".hidden", "a b", "x" * 101, "-n", "a\n", "=1+1"])
def test_a_name_that_could_lead_out_of_the_results_is_refused(tmp_path, name):
    with pytest.raises(RunFolderError, match="expected 1 to 100 letters"):
        create_run_folder(tmp_path / "results", name)
    assert not (tmp_path / "results").exists()


def test_a_taken_name_is_refused_and_the_run_kept(tmp_path):
    folder = create_run_folder(tmp_path / "results", "mine")
    folder.config.write_text("seed = 1")
    with pytest.raises(RunFolderError, match="already"):
        create_run_folder(tmp_path / "results", "mine")
    assert folder.config.read_text() == "seed = 1"


def test_a_results_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(RunFolderError):
        create_run_folder(tmp_path / "results", "mine")


def test_a_run_is_found_by_name_and_by_path_but_not_before_it_has_settings(tmp_path):
    folder = create_run_folder(tmp_path, "mine")
    with pytest.raises(RunFolderError, match="expected the name of a run"):
        open_run_folder("mine", tmp_path)
    folder.config.write_text("")
    assert open_run_folder("mine", tmp_path) == folder
    assert open_run_folder(str(folder.path), tmp_path / "elsewhere").path == folder.path


def test_the_name_of_a_run_that_stopped_before_it_had_settings_can_be_used_again(tmp_path):
    folder = create_run_folder(tmp_path, "mine")
    for name in (".lock", "environment.json", "events.jsonl", ".config.toml.77.tmp"):
        (folder.path / name).write_text("")
    assert create_run_folder(tmp_path, "mine") == folder
    (folder.path / "notes.txt").write_text("of the user")
    with pytest.raises(RunFolderError, match="already"):
        create_run_folder(tmp_path, "mine")


def test_half_written_files_of_killed_processes_are_deleted(tmp_path):
    folder = create_run_folder(tmp_path, "mine")
    folder.trial(3).mkdir(parents=True)
    kept = [folder.trials, folder.trial(3) / "checkpoint_0.pt"]
    for path in (*kept, folder.path / ".trials.csv.9.tmp", folder.trial(3) / ".checkpoint_1.pt.9.tmp"):
        path.write_text("")
    folder.delete_temporary_files()
    assert sorted(path for path in folder.path.rglob("*") if path.is_file()) == sorted(kept)
