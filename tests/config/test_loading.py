"""How settings are put together and checked, and what is said about wrong ones."""

import json
from pathlib import Path

import pytest

from digit_search.config.loading import MAX_CONFIG_BYTES, load_settings, to_toml, to_tree
from digit_search.config.settings import RunSettings
from digit_search.errors import ConfigError
from digit_search.files.bounded_io import MAX_JSON_BYTES

CONFIGS = Path(__file__).parents[2] / "configs"


def problems(*assignments: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings(None, assignments)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


@pytest.mark.parametrize("value", ['"auto"', '""', '"/somewhere"', "3", "[[[[[[[[[[[[[[]]]]]]]]]]]]]]"])
def test_a_retired_setting_in_the_file_of_an_older_run_is_ignored(tmp_path, value):
    path = tmp_path / "config.toml"
    path.write_text(f"seed = 3\n[data]\nvalidation_fraction = 0.2\ncache_dir = {value}\n")
    assert load_settings(path) == load_settings(None, ["seed=3", "data.validation_fraction=0.2"])
    assert "cache_dir" not in to_toml(load_settings(path))


def test_a_retired_setting_does_not_hide_other_mistakes(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text('data = "sample"\n')
    with pytest.raises(ConfigError, match="data: must be a table"):
        load_settings(path)
    path.write_text('cache_dir = "auto"\n')
    with pytest.raises(ConfigError, match="cache_dir: no such setting"):
        load_settings(path)


def test_default_toml_shows_every_setting_with_its_default():
    import tomllib

    written = tomllib.loads((CONFIGS / "default.toml").read_text())

    def same(tree, other):
        return tree.keys() == other.keys() and all(
            same(value, other[key]) if isinstance(value, dict) else value == other[key] for key, value in tree.items()
        )

    defaults = to_tree(RunSettings())
    for dimension in defaults["search"]["space"].values():
        if dimension.get("log") is False:
            del dimension["log"]
    assert same(written, defaults)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.name)
def test_every_shipped_configuration_loads(path):
    assert load_settings(path).search.samples > 0


def test_a_run_can_be_repeated_from_its_resolved_settings(tmp_path):
    settings = load_settings(None, ["seed=3", "search.space.gamma=0.5", "search.points=[{lr=0.001}]"], {"search.samples": 5})
    path = tmp_path / "config.toml"
    path.write_text(to_toml(settings))
    assert load_settings(path) == settings


def test_a_flag_beats_set_which_beats_the_file_which_beats_the_default(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text("seed = 1\n[search]\nsamples = 2\n[search.asha]\nmax_epochs = 3\n")
    settings = load_settings(path, ["search.samples=4", "search.asha.max_epochs=5"], {"search.asha.max_epochs": 6, "data.dir": None})
    assert (settings.seed, settings.search.samples, settings.search.asha.max_epochs, settings.data.dir) == (1, 4, 6, "auto")


def test_a_parameter_in_a_file_replaces_its_dimension_whole_and_set_changes_one_key(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text("[search.space]\nlr = { choices = [0.1, 0.01] }\n")
    space = load_settings(path, ["search.space.gamma.high=0.7"]).search.space
    assert space["lr"].choices == [0.1, 0.01]
    assert (space["gamma"].low, space["gamma"].high) == (0.05, 0.7)
    assert list(space) == ["lr", "gamma", "step_size", "batch_size"]


def test_all_problems_are_reported_at_once_each_with_its_key():
    found = problems("seed=-1", "search.asha.max_epochs=x", "search.space.lr.hihg=3", "bar=3", "training.stem=foo")
    assert [line.partition(":")[0] for line in found] == ["search.space.lr.hihg", "seed", "training.stem", "search.asha.max_epochs", "bar"]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("search.space.lr.low=1", "lr: low 1 is above high 0.03"),
        ("search.space.lr.low=0", "lr.low: expected a value from 1e-12 to 100"),
        ("search.space.batch_size.choices=[1]", "batch_size.choices: expected a value from 2"),
        ("search.space.batch_size.choices=[]", "search.space.batch_size.choices: List should have at least 1 item, found []"),
        ("search.space.momentum=0.9", "momentum: no such parameter; there are lr, gamma"),
        ("search.space.step_size=1.5", "step_size: expected an integer, found 1.5"),
        ("search.space.stem={low=1, high=2}", "stem: expected choices, found a range"),
        ("search.points=[{lr='x'}]", "points[0].lr: expected a number, found 'x'"),
        ("search.asha.grace_epochs=0.5", "is not a whole number of reports"),
        ("search.asha.grace_epochs=10", "above max_epochs 7"),
        ("search.time_budget=soon", "expected a duration such as 90s, 30m or 1h30m, found 'soon'"),
        ("resources.workers=many", "resources.workers: must be 'auto' or a valid integer, found 'many'"),
        ("resources.gpus_per_trial=1.5", "expected a whole number of GPUs, found 1.5"),
        ("resources.gpus_per_trial=0.00001", "expected 0 or at least 0.0001, Ray's smallest share, found 1e-05"),
        ("data.validation_fraction=1.0", "data.validation_fraction"),
        ("search=3", "search: must be a table, found 3"),
        ("search.samples=x", "search.samples: must be a valid integer, found 'x'"),
        ("search.warm_start=['']", "search.warm_start.0: String should have at least 1 character, found ''"),
        ("resources.workers=0", "resources.workers: must be 'auto' or greater than or equal to 1, found 0"),
        ("search.points=[{lr=[]}]", "points.0.lr: must be a valid boolean or a valid integer or a valid number"),
        ("search.space.lr={low=1}", "search.space.lr.high: is missing"),
        ("search.space.lr.when={gamma=0.5}", "lr.when: gamma must be before it in search.space; before it is nothing"),
        ("training.stem=foo", "training.stem: must be 'imagenet' or 'small', found 'foo'"),
        ("data.cache_dir=x", "data.cache_dir: no such setting"),
        ("seed=nan", "seed"),
    ],
)
def test_a_bad_setting_is_refused_with_its_reason(assignment, message):
    assert any(message in line for line in problems(assignment)), problems(assignment)


def test_a_space_with_nothing_to_search_is_refused():
    fixed = [f"search.space.{name}={value}" for name, value in {"lr": 0.01, "gamma": 0.5, "step_size": 5, "batch_size": 32}.items()]
    assert problems(*fixed) == ["search: space: every parameter is fixed, so there is nothing to search"]


@pytest.mark.parametrize("text", ["search.samples", "=3", "a..b=1"])
def test_an_assignment_without_key_or_value_is_refused(text):
    with pytest.raises(ConfigError, match="expected KEY=VALUE"):
        load_settings(None, [text])


def test_a_learning_rate_in_exponent_form_is_a_number():
    assert load_settings(None, ["search.space.lr.low=1e-5"]).search.space["lr"].low == 1e-5


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"seed = ", "expected TOML"), (b"\xff\xfe", "expected TOML"), (b"#" * (1 << 20) + b"#", "at most 1048576 bytes")],
)
def test_a_file_that_is_not_a_configuration_is_refused(tmp_path, content, message):
    path = tmp_path / "my.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_settings(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_settings(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="expected a file"):
        load_settings(tmp_path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="this system has no endless device")
def test_an_endless_device_is_refused_before_it_is_read():
    with pytest.raises(ConfigError, match="expected a file"):
        load_settings(Path("/dev/zero"))


def test_more_reports_of_one_training_than_an_event_can_hold_are_refused():
    load_settings(None, ["search.reports_per_epoch=100", "search.asha.max_epochs=100", "retrain.max_epochs=100"])
    for name in ("search.asha", "retrain"):
        with pytest.raises(ConfigError, match=rf"{name}\.max_epochs: expected at most 10000 reports of one training, found 101 epochs"):
            load_settings(None, ["search.reports_per_epoch=100", f"{name}.max_epochs=101"])


def test_settings_too_large_for_a_config_toml_are_refused():
    points = [{"lr": 0.001}] * (MAX_CONFIG_BYTES // 20)
    with pytest.raises(ConfigError, match=f"expected settings of at most {MAX_CONFIG_BYTES} bytes as a run's config.toml, found"):
        load_settings(None, (), {"search.points": points})
    fitting = load_settings(None, (), {"search.points": points[: len(points) // 2]})
    assert len(json.dumps(to_tree(fitting), indent=2)) < MAX_JSON_BYTES


@pytest.mark.parametrize("table", ["", "search.", "search.space.", "search.space.lr.", "search.space.lr.when."])
def test_hostile_keys_are_shown_in_short_printable_lines(tmp_path, table):
    path = tmp_path / "hostile.toml"
    valid = "search.space.lr.low = 0.1\nsearch.space.lr.high = 0.2\n"
    path.write_text(f'{valid}{table}"\\u001b[2J\\nok" = 1\n{table}{"k" * 100_000} = 1\n')
    with pytest.raises(ConfigError) as refused:
        load_settings(path)
    message = str(refused.value)
    assert "\\x1b[2J" in message
    assert all(line.isprintable() for line in message.split("\n"))
    assert len(message) < 2000


def test_of_thousands_of_problems_only_the_first_are_listed(tmp_path):
    path = tmp_path / "absurd.toml"
    path.write_text("".join(f"k{number} = 1\n" for number in range(5000)))
    with pytest.raises(ConfigError, match=r"5000 settings cannot be used:(.|\n)*and 4970 more$") as refused:
        load_settings(path)
    assert len(str(refused.value)) < 10_000
