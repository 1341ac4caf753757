import csv
import math
import tomllib
from dataclasses import replace
from types import SimpleNamespace

import pytest

from digit_search.records import EpochMetrics, RungDecision, TrialParams, TrialStatus
from digit_search.report.tables import write_best_toml, write_epochs_csv, write_rungs_csv, write_trials_csv

TRIALS_HEADER = "trial,status,lr,gamma,step_size,batch_size,epochs,best_epoch,val_accuracy,val_loss,images,seconds,device,node,seed,error"
EPOCHS_HEADER = "trial,epoch,train_loss,train_accuracy,val_loss,val_accuracy,lr,images,seconds"


@pytest.fixture
def read_csv():
    def read(path):
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    return read


def test_the_header_is_the_contract_even_without_trials(tmp_path):
    write_trials_csv(tmp_path / "t.csv", [], "val_accuracy")
    write_epochs_csv(tmp_path / "e.csv", [])
    write_rungs_csv(tmp_path / "r.csv", [])
    assert (tmp_path / "t.csv").read_bytes() == f"{TRIALS_HEADER}\n".encode()
    assert (tmp_path / "e.csv").read_bytes() == f"{EPOCHS_HEADER}\n".encode()
    assert (tmp_path / "r.csv").read_bytes() == b"rung,trial,score,decision\n"


def test_a_trial_is_a_row_with_the_scores_of_its_best_epoch(tmp_path, make_record):
    record = make_record(7, [(0.8, 0.5), (0.9, 0.25), (0.85, 0.3)], TrialStatus.STOPPED, device="cuda:0", node="n1")
    write_trials_csv(tmp_path / "t.csv", [record])
    assert (tmp_path / "t.csv").read_text().splitlines()[1] == "7,stopped,0.01,0.05,5,32,3,2,0.9,0.25,10800,31.5,cuda:0,n1,7,"


def test_the_metric_of_the_ranking_decides_which_epoch_is_shown(tmp_path, make_record, read_csv):
    write_trials_csv(tmp_path / "t.csv", [make_record(0, [(0.9, 0.5), (0.8, 0.25)])], "val_loss")
    assert read_csv(tmp_path / "t.csv")[0]["best_epoch"] == "2"


def test_a_trial_without_epochs_leaves_its_scores_empty(tmp_path, make_record, read_csv):
    write_trials_csv(tmp_path / "t.csv", [make_record(0, [], TrialStatus.FAILED, error="out of memory")])
    (row,) = read_csv(tmp_path / "t.csv")
    assert (row["epochs"], row["best_epoch"], row["val_accuracy"], row["val_loss"]) == ("0", "", "", "")
    assert row["error"] == "out of memory"


def test_further_parameters_get_a_column_only_where_a_trial_changes_them(tmp_path, make_record, read_csv):
    changed = make_record(1, [(0.9, 0.1)], params=TrialParams(weight_decay=1e-5, stem="small"))
    write_trials_csv(tmp_path / "t.csv", [make_record(0, [(0.9, 0.1)]), changed])
    rows = read_csv(tmp_path / "t.csv")
    assert list(rows[0]) == [*TRIALS_HEADER.split(","), "weight_decay", "stem"]
    assert [(row["weight_decay"], row["stem"]) for row in rows] == [("0.0", "imagenet"), ("1e-05", "small")]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_text_becomes_a_formula(tmp_path, make_record, read_csv, start):
    evil = f"{start}HYPERLINK(1)"
    write_trials_csv(tmp_path / "t.csv", [make_record(0, [], TrialStatus.FAILED, error=evil, device=evil, node=evil)])
    (row,) = read_csv(tmp_path / "t.csv")
    assert row["error"] == row["device"] == row["node"] == f"'{evil}".replace("\r", "\n")


def test_a_negative_number_is_no_formula(tmp_path):
    write_rungs_csv(tmp_path / "r.csv", [RungDecision(1.0, 3, -0.25, True), RungDecision(0.5, 4, -1.0, False)])
    assert (tmp_path / "r.csv").read_text().splitlines()[1:] == ["1,3,-0.25,passed", "0.5,4,-1.0,stopped"]


def test_quotes_commas_and_line_ends_survive(tmp_path, make_record, read_csv):
    error = 'a "b", c\nd; é\rf\r\ng'
    write_trials_csv(tmp_path / "t.csv", [make_record(0, [], TrialStatus.FAILED, error=error)])
    assert read_csv(tmp_path / "t.csv")[0]["error"] == 'a "b", c\nd; é\nf\ng'


def test_text_that_no_file_can_hold_is_replaced(tmp_path, make_record, read_csv):
    write_trials_csv(tmp_path / "t.csv", [make_record(0, [], TrialStatus.FAILED, error="a\ud800b\x00c\x1b[31m")])
    assert read_csv(tmp_path / "t.csv")[0]["error"] == "a�b�c�[31m"


def test_every_number_of_an_epoch_reads_back_as_the_same(tmp_path, make_record, read_csv):
    metrics = EpochMetrics(1.25, 1 / 3, 2 / 3, math.pi, 0.1 + 0.2, 1e-7, 3600, 1e-3, 1 / 7, 6 / 7)
    record = replace(make_record(0, []), epochs=(metrics,))
    write_epochs_csv(tmp_path / "e.csv", [record])
    (row,) = read_csv(tmp_path / "e.csv")
    assert list(row) == [*EPOCHS_HEADER.split(","), "ema_val_loss", "ema_val_accuracy"]
    assert EpochMetrics(**{name: float(value) for name, value in row.items() if name != "trial"}) == metrics


def test_a_whole_epoch_is_an_integer_and_missing_averages_are_empty(tmp_path, make_record, read_csv):
    averaged = make_record(1, [(0.9, 0.1)])
    averaged = replace(averaged, epochs=(replace(averaged.epochs[0], ema_val_loss=0.5, ema_val_accuracy=0.5),))
    write_epochs_csv(tmp_path / "e.csv", [make_record(0, [(0.9, 0.1)]), averaged])
    rows = read_csv(tmp_path / "e.csv")
    assert [row["epoch"] for row in rows] == ["1", "1"]
    assert [row["ema_val_loss"] for row in rows] == ["", "0.5"]


def state_of(records):
    return SimpleNamespace(trials=records, confirmed=None, confirmations=())


def test_the_winner_and_where_it_came_from_are_toml(tmp_path, make_record):
    records = [make_record(0, [(0.9, 0.1)]), make_record(4, [(0.95, 0.1)], TrialStatus.STOPPED, params=TrialParams(lr=1e-05))]
    write_best_toml(tmp_path / "best.toml", 'a"b', state_of(records), "val_accuracy", 400)
    best = tomllib.loads((tmp_path / "best.toml").read_text())
    assert TrialParams(**best["params"]) == records[1].params
    source = best["source"]
    assert (source["run"], source["trial"], source["status"], source["seed"], source["best_epoch"]) == ('a"b', 4, "stopped", 4, 1)
    assert source["val_accuracy_low"] < source["val_accuracy"] == 0.95 < source["val_accuracy_high"]


def test_without_a_winner_there_is_no_best_toml(tmp_path, make_record):
    write_best_toml(tmp_path / "best.toml", "r", state_of([make_record(0, [], TrialStatus.FAILED)]), "val_accuracy", 400)
    assert not (tmp_path / "best.toml").exists()
