"""A run's folder: inside the results, new, and never half-written."""

import pytest

from digit_search.errors import RunFolderError
from digit_search.run_folder import create_run_folder, open_run_folder, write_whole


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


def test_a_run_is_found_by_name_and_by_path_and_a_stranger_is_refused(tmp_path):
    folder = create_run_folder(tmp_path, "mine")
    with pytest.raises(RunFolderError, match="expected the name of a run"):
        open_run_folder("mine", tmp_path)
    folder.config.write_text("")
    assert open_run_folder("mine", tmp_path) == folder
    assert open_run_folder(str(folder.path), tmp_path / "elsewhere").path == folder.path


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_no_rubbish(tmp_path):
    path = tmp_path / "trials.csv"
    write_whole(path, "old")
    with pytest.raises(TypeError):
        write_whole(path, None)
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunFolderError, match="cannot be written"):
        write_whole(tmp_path / "folder", "new")
    assert path.read_text() == "old"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["folder", "trials.csv"]
