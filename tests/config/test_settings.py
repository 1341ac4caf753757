import pytest

from digit_search.config.loading import load_settings
from digit_search.config.settings import parse_duration
from digit_search.errors import ConfigError


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("1.5h", 5400), ("", float("inf"))])
def test_a_duration_is_read_as_seconds(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["0s", "m", "30", "-5m", "5m30"])
def test_a_text_that_is_not_a_duration_is_refused(text):
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    "setting",
    [
        "weight_decay=20",
        "accumulation_steps=100000",
        "accumulation_steps=0",
        "label_smoothing=0.9995",
        "rotation_degrees=181",
        "shift_pixels=-1",
    ],
)
def test_a_training_setting_has_the_bounds_of_the_parameter(setting):
    with pytest.raises(ConfigError, match=f"training.{setting.partition('=')[0]}: "):
        load_settings(None, [f"training.{setting}"])
