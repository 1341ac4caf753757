"""The private names of Ray and Optuna that we use still exist and still do what we need. A failure names the one that has changed."""

import importlib
import inspect
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import ray
from ray import tune
from ray._private import ray_constants, services
from ray._private import worker as ray_worker
from ray.tune.experiment import Trial

from digit_search import private_api
from digit_search.private_api import local_cluster_address, ray_errors_in_log, ray_on_loopback


@pytest.mark.parametrize(
    ("module", "name", "parameters"),
    [
        ("ray._private.worker", "print_to_stdstream", ["data", "ignore_prefix"]),
        ("ray._private.services", "canonicalize_bootstrap_address_or_die", ["addr", "temp_dir"]),
        (
            "ray._private.authentication.authentication_token_setup",
            "maybe_enable_token_auth_if_token_available",
            ["warn_if_disabled"],
        ),
        (
            "ray._private.authentication.authentication_token_setup",
            "ensure_token_if_auth_enabled",
            ["system_config", "create_token_if_missing"],
        ),
        ("ray._raylet", "InnerGcsClient.internal_kv_get", ["self", "key", "namespace", "timeout"]),
        (
            "ray._raylet",
            "InnerGcsClient.get_all_job_info",
            ["self", "job_or_submission_id", "skip_submission_job_info_field", "skip_is_running_tasks_field", "timeout"],
        ),
    ],
)
def test_a_private_function_takes_the_arguments_that_we_know(module, name, parameters):
    function = importlib.import_module(module)
    for part in name.split("."):
        function = getattr(function, part, None)
    assert function, f"{module}.{name} is gone in Ray {ray.__version__}"
    assert list(inspect.signature(function).parameters) == parameters, f"{module}.{name} has changed in Ray {ray.__version__}"


def test_without_clusters_the_address_of_this_machine_is_loopback(monkeypatch):
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    with ray_on_loopback():
        address = services.get_node_ip_address()
    assert address in ("127.0.0.1", "::1"), f"ray._private.ray_constants.ENABLE_RAY_CLUSTER has no effect in Ray {ray.__version__}"
    assert ray_constants.ENABLE_RAY_CLUSTER is True


def test_what_ray_prints_of_an_error_goes_to_the_log(monkeypatch, caplog, capsys):
    # Ray's own thread for such messages, with one message and then an end.
    class Subscriber:
        messages = iter([{"job_id": None, "error_message": "a node died"}])

        def subscribe(self):
            pass

        def poll(self):
            message = next(self.messages, None)
            if message is None:
                raise ConnectionError
            return None, message

    class Worker:
        gcs_error_subscriber = Subscriber()
        current_job_id = ray.JobID.nil()

    class NeverStopped:
        def is_set(self):
            return False

    monkeypatch.setattr(logging.getLogger("ray"), "propagate", True)
    with ray_errors_in_log():
        ray_worker.listen_error_messages(Worker(), NeverStopped())
    assert "a node died" in caplog.text, f"ray._private.worker.print_to_stdstream is not called in Ray {ray.__version__}"
    assert "a node died" not in capsys.readouterr().out


def test_no_cluster_on_this_machine_is_a_connection_error(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(services, "find_gcs_addresses", set)
    name = "ray._private.services.canonicalize_bootstrap_address_or_die"
    with pytest.raises(ConnectionError):
        pytest.fail(f"{name} found {local_cluster_address()}")


TOKEN = "0123456789abcdef" * 4
LOAD_TOKEN = """
import sys
from ray.exceptions import AuthenticationError
from digit_search.private_api import load_token
try:
    print(load_token(turn_on=sys.argv[1] == "True"))
except AuthenticationError as error:
    print("AuthenticationError", error)
"""


@pytest.mark.parametrize(
    ("environment", "turn_on", "outcome"),
    [
        ({"RAY_AUTH_MODE": "token"}, True, "AuthenticationError Token authentication is enabled but no"),
        (
            {"RAY_AUTH_TOKEN_PATH": "/none"},
            True,
            "AuthenticationError RAY_AUTH_TOKEN_PATH is set but file cannot be opened or is empty: /none",
        ),
        ({"RAY_AUTH_TOKEN": TOKEN}, True, "True"),
        ({"RAY_AUTH_TOKEN": TOKEN}, False, "False"),
    ],
)
@pytest.mark.slow
def test_a_token_is_used_only_if_it_is_turned_on_and_is_missed_if_it_is_required(tmp_path, environment, turn_on, outcome):
    # Ray reads the mode once per process. An empty home has no token.
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", LOAD_TOKEN, str(turn_on)],
        cwd=Path(__file__).parents[1],
        env={**kept, "HOME": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    module = "ray._private.authentication.authentication_token_setup"
    assert done.stdout.startswith(outcome), f"{module} has changed in Ray {ray.__version__}: {done.stdout}{done.stderr}"


def test_tunes_trials_still_say_which_actor_runs_them():
    trial = Trial("some trainable", stub=True)
    name = "Trial.temporary_state.ray_actor"
    assert getattr(getattr(trial, "temporary_state", None), "ray_actor", "gone") is None, f"{name} has changed in Ray {ray.__version__}"
    trial.temporary_state.ray_actor = "actor"
    assert private_api.worker_of(trial) == "actor"


def test_tune_still_makes_a_class_of_a_function():
    def train(config):
        pass

    made = private_api.worker_class(train)
    assert issubclass(made, tune.Trainable), f"ray.tune.trainable.wrap_function has changed in Ray {ray.__version__}"


def test_no_other_module_uses_a_private_module_of_ray_or_optuna():
    """Private attributes of their objects would need a type checker to find; their modules do not."""
    package = Path(private_api.__file__).parent
    pattern = re.compile(r"\b(ray|optuna)(\.\w+)*\._(?!_)|_raylet")
    users = {path.name for path in package.rglob("*.py") if pattern.search(path.read_text(encoding="utf-8"))}
    assert users == {"private_api.py"}
