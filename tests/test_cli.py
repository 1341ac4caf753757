"""The command line: arguments in, exit code and one clear message out."""

import subprocess
import sys
from pathlib import Path

import pytest

from digit_search import cli
from digit_search.files import object_store

ROOT = Path(__file__).parents[1]


def run_main(capsys, *argv: str) -> tuple[int, str, str]:
    code = cli.main(list(argv))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("command", [[], ["resume"], ["retrain"], ["predict"], ["report"], ["doctor"]])
def test_help_imports_no_slow_library(command):
    code = (
        "import sys; from digit_search import cli\n"
        f"try: cli.main({[*command, '--help']!r})\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = {'torch', 'ray', 'optuna', 'pyarrow', 'numpy', 'pydantic', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(code or (3 if heavy else 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: tune_main.py")


def test_flags_become_settings():
    arguments = cli.parse(
        ["--samples", "3", "--data", "d", "--workers", "2", "--gpus-per-trial", "0.5", "--no-dashboard", "--no-early-stopping"]
    )
    given = {key: value for key, value in cli.search_flags(arguments).items() if value is not None}
    assert given == {
        "search.samples": 3,
        "data.dir": "d",
        "resources.workers": 2,
        "resources.gpus_per_trial": 0.5,
        "ray.dashboard": False,
        "search.asha.enabled": False,
    }


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--samples", "0"], "search.samples"),
        (["--set", "search.sample=3"], "search.sample: no such setting; did you mean samples"),
        (["--config", "none.toml"], "none.toml: no such file"),
        (["--data", "nowhere"], "nowhere: expected a folder"),
        (["--set", "data.dir='sample'", "--name", "../x"], "--name '../x'"),
        (["--time-budget", "soon"], "search.time_budget: expected a duration"),
        (["resume", "nothing"], "nothing: expected the name of a run"),
        (["retrain", "nothing"], "nothing: expected the name of a run"),
        (["report", ""], "'': expected the name of a run"),
        (["--set", "data.dir='sample'", "--name", ""], "--name ''"),
        (["--results", "/dev/null", "--name", "x"], "--results /dev/null: expected a folder"),
        (["report", "nothing"], "nothing: expected the name of a run"),
        (["predict", "none.pt", "--test", "none.csv", "--out", "o.csv"], "none.csv"),
    ],
)
def test_a_mistake_is_one_message_without_a_traceback_and_nothing_is_written(tmp_path, monkeypatch, capsys, argv, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run_main(capsys, *argv)
    assert code == 2
    assert message in err
    assert err.startswith("error: ")
    assert "Traceback" not in out + err
    assert list(tmp_path.iterdir()) == []


def test_bad_data_is_reported_before_ray_starts_or_anything_is_written(tmp_path, capsys, tiny_data):
    bad = tmp_path / "bad"
    bad.mkdir()
    lines = (tiny_data / "train.csv").read_text().splitlines()
    lines[3] = lines[3][: lines[3].rindex(",")] + ",256"
    (bad / "train.csv").write_text("\n".join(lines))
    (bad / "test.csv").write_text((tiny_data / "test.csv").read_text())
    done = subprocess.run(
        [sys.executable, "tune_main.py", "--data", bad, "--results", tmp_path / "results"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "train.csv: row 3, column pixel783" in done.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_predictions_need_only_the_weights_and_the_csv(tmp_path, capsys, tiny_data):
    from digit_search.training.model import build_resnet18, save_weights

    weights, out = tmp_path / "model.pt", tmp_path / "out.csv"
    save_weights(build_resnet18(0, "small"), weights)
    code, printed, _ = run_main(capsys, "predict", str(weights), "--test", str(tiny_data / "test.csv"), "--out", str(out))
    assert code == 0
    assert "40 digits predicted on cpu" in printed
    lines = out.read_text().splitlines()
    assert lines[0] == "ImageId,Label"
    assert [line.split(",")[0] for line in lines[1:]] == [str(number) for number in range(1, 41)]
    assert all(line.split(",")[1] in "0123456789" for line in lines[1:])


def test_training_digits_are_not_predicted(tmp_path, capsys, tiny_data):
    code, _, err = run_main(capsys, "predict", "m.pt", "--test", str(tiny_data / "train.csv"), "--out", str(tmp_path / "o.csv"))
    assert code == 2
    assert "label" in err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["retrain", "x", "--max-epochs", "0"], "expected a whole number from 1, found '0'"),
        (["--samples", "3", "report", "x"], "search.samples: only for the whole job"),
        (["--name", "x", "--set", "seed=1", "resume", "x"], "--name, --set: only for the whole job"),
    ],
)
def test_an_option_that_does_not_fit_the_command_is_refused(capsys, argv, message):
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--samplez", "3"], "unknown option --samplez: is --samples meant?"),
        (["--name", "x", "--sample=3"], "unknown option --sample: is --samples meant?"),
        (["--no-dashboard", "--bogus"], "unknown option --bogus; --help"),
        (["report", "x", "--result", "y"], "unknown option --result: is --results meant?"),
        (["retrain", "x", "--max-epoch", "3"], "unknown option --max-epoch: is --max-epochs meant?"),
        (["resme", "x", "--force"], "invalid choice: 'resme'"),
        (["--name", "report", "--bogus", "3"], "unknown option --bogus; --help"),
        (["--hepl"], "unknown option --hepl: is --help meant?"),
        (["--json"], "unknown option --json; --help"),
        (["--trial", "3"], "unknown option --trial; --help"),
        (["--force", "x"], "unknown option --force; --help"),
        (["resume", "x", "--trial", "3"], "unknown option --trial; --help"),
        (["report", "x", "--force"], "unknown option --force; --help"),
        (["predict", "x", "--tset", "y"], "unknown option --tset: is --test meant?"),
        (["--samples"], "argument --samples: expected one argument"),
    ],
)
def test_a_misspelt_option_or_command_is_named(capsys, argv, message):
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--data=--odd dir"], ["--data=--odd"], ["--data", "--odd dir"]])
def test_a_value_may_look_like_an_option(argv):
    arguments = cli.parse([*argv, "--samples", "3"])
    assert cli.search_flags(arguments)["data.dir"] == argv[-1].removeprefix("--data=")


def test_a_run_may_look_like_an_option():
    assert cli.parse(["report", "--", "--odd"]).runs == ["--odd"]


def test_a_retraining_has_its_own_max_epochs(tmp_path, capsys):
    code, _, err = run_main(capsys, "retrain", "nothing", "--max-epochs", "3", "--results", str(tmp_path))
    assert (code, "nothing: expected the name of a run" in err) == (2, True)
    with pytest.raises(SystemExit):
        cli.main(["--max-epochs", "3", "retrain", "nothing"])


def test_results_may_be_named_before_and_after_the_command():
    parse = cli.parse
    assert parse(["report", "x"]).results == "results"
    assert parse(["--results", "a", "report", "x"]).results == "a"
    assert parse(["--results", "a", "report", "x", "--results", "b"]).results == "b"


@pytest.mark.parametrize("content", [None, b"", b"\x00\xff rubbish without an end"])
def test_a_run_without_events_keeps_its_tables(tmp_path, capsys, content):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.toml").write_text("")
    (folder / "trials.csv").write_text("precious")
    if content is not None:
        (folder / "events.jsonl").write_bytes(content)
    code, _, err = run_main(capsys, "report", str(folder))
    assert (code, "events.jsonl" in err) == (2, True)
    assert (folder / "trials.csv").read_text() == "precious"


def test_a_run_does_not_end_when_the_reader_of_its_output_exits(tiny_data, tmp_path):
    code = "from digit_search.cli import say\nfor number in range(5): say('x' * 100000)\nopen('done', 'w').close()"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)
    process.stdout.close()
    assert process.wait(60) == 0
    assert (tmp_path / "done").exists()


def test_the_limit_of_a_csv_to_predict_can_be_set(capsys, tiny_data):
    code, _, err = run_main(capsys, "predict", "m.pt", "--test", str(tiny_data / "test.csv"), "--out", "o.csv", "--max-csv-bytes", "999")
    assert code == 2
    assert "test.csv: expected at most 999 bytes of CSV, found more" in err
    assert "--max-csv-bytes" in err


def test_a_resume_interrupted_at_its_start_says_how_to_resume(monkeypatch, capsys):
    def interrupted(results):
        raise KeyboardInterrupt

    monkeypatch.setattr(object_store, "parse_location", interrupted)
    assert cli.main(["resume", "my run"]) == 130
    assert capsys.readouterr().err == "interrupted: resume it with: python tune_main.py resume 'my run'\n"
    assert cli.main(["report", "my run"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_the_program_exits_with_its_code_whatever_a_library_does_at_exit(code):
    program = f"import atexit, os, digit_search.cli as cli\natexit.register(os.abort)\ncli.main = lambda: {code}\ncli.run_as_program()"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == code
