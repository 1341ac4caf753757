"""Every private or undocumented name of Ray that we use, each with the reason.

Checked with Ray 2.60.0. tests/test_private_api.py names the one that a new version breaks.
"""

from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.trainable import wrap_function


def worker_of(trial: Trial) -> Any:
    """The actor that runs a trial, None where there is none. Tune tells its callbacks nothing about workers that hang.

    Between two trials a worker has its next trial already, although that does not run yet.
    """
    return trial.temporary_state.ray_actor


def worker_class(train: Callable[[dict[str, Any]], None]) -> type[tune.Trainable]:
    """The class that Tune makes of a function. Only by a subclass of it can the workers get names of their own on Ray's dashboard."""
    made: type[tune.Trainable] = wrap_function(train)
    return made
