"""The cluster files against Ray's own schema, and the RayJob against the fields that its definition has."""

import re
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "configs" / "cluster"
LAUNCHED = ("on_premise.yaml", "aws.yaml")


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / name).read_text())


@pytest.mark.parametrize("name", LAUNCHED)
def test_a_launcher_file_is_one_that_ray_up_takes(name):
    config = load(name)
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["max_workers"] == config["max_workers"]


@pytest.mark.parametrize("name", LAUNCHED)
def test_a_misspelt_setting_of_a_launcher_file_would_be_noticed(name):
    with pytest.raises(Exception, match="max_wokers"):
        validate_config(prepare_config(load(name) | {"max_wokers": 3}))


@pytest.mark.parametrize("name", LAUNCHED)
def test_every_machine_gets_our_requirements_and_the_token_and_asks_for_it(name):
    config = load(name)
    mounts = config["file_mounts"]
    assert mounts["~/digit_search/requirements.txt"] == "requirements.txt"
    assert (ROOT / "requirements.txt").is_file()
    assert mounts["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("pip install" in line and "-r ~/digit_search/requirements.txt" in line for line in config["setup_commands"])
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        (start,) = [line for line in config[commands] if "ray start" in line]
        assert "RAY_AUTH_MODE=token" in start


def test_the_cloud_begins_without_a_gpu_and_may_get_some():
    types = prepare_config(load("aws.yaml"))["available_node_types"]
    assert types["gpu_worker"]["min_workers"] == 0
    assert types["gpu_worker"]["resources"]["GPU"] * types["gpu_worker"]["max_workers"] == 4
    assert not types["head"]["resources"].get("GPU")


def test_the_local_file_names_as_many_workers_as_it_has():
    config = load("on_premise.yaml")
    assert config["min_workers"] == config["max_workers"] == len(config["provider"]["worker_ips"])


CONTAINER = {
    "name": str,
    "image": str,
    "ports": [{"containerPort": int, "name": str}],
    "resources": {"requests": {str: str}, "limits": {str: str}},
    "volumeMounts": [{"name": str, "mountPath": str}],
}
POD = {"spec": {"containers": [CONTAINER], "volumes": [{"name": str, "persistentVolumeClaim": {"claimName": str}}]}}
RAY_JOB = {
    "apiVersion": "ray.io/v1",
    "kind": "RayJob",
    "metadata": {"name": str},
    "spec": {
        "entrypoint": str,
        "submissionMode": str,
        "backoffLimit": int,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "rayClusterSpec": {
            "rayVersion": str,
            "enableInTreeAutoscaling": bool,
            "autoscalerOptions": {"idleTimeoutSeconds": int},
            "authOptions": {"mode": str},
            "headGroupSpec": {"rayStartParams": {str: str}, "template": POD},
            "workerGroupSpecs": [
                {"groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int, "rayStartParams": {str: str}, "template": POD}
            ],
        },
    },
}
"""The part of KubeRay's `ray.io/v1` RayJob that the manifest uses: Kubernetes would refuse other names and types."""


def problems(value: Any, shape: Any, where: str = "") -> list[str]:
    """What of a manifest is not of this shape."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return [f"{where}: expected a mapping, found {value!r}"]
        if str in shape:
            return [f"{where}.{key}: {item!r}" for key, item in value.items() if type(key) is not str or type(item) is not shape[str]]
        found = [f"{where}.{key}: no such field" for key in value if key not in shape]
        return found + [line for key in value if key in shape for line in problems(value[key], shape[key], f"{where}.{key}")]
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{where}: expected a list, found {value!r}"]
        return [line for index, item in enumerate(value) for line in problems(item, shape[0], f"{where}[{index}]")]
    fits = type(value) is shape if isinstance(shape, type) else value == shape
    return [] if fits else [f"{where}: expected {shape}, found {value!r}"]


def test_the_manifest_has_only_fields_and_types_of_a_ray_job():
    assert problems(load("kuberay_job.yaml"), RAY_JOB) == []


def test_a_wrong_field_or_type_of_the_manifest_would_be_noticed():
    manifest = load("kuberay_job.yaml")
    manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["minReplica"] = 0
    manifest["spec"]["rayClusterSpec"]["rayVersion"] = 2.6
    manifest["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    assert len(problems(manifest, RAY_JOB)) == 3


def test_the_manifest_asks_for_our_versions_a_token_and_gpus_from_none_on():
    cluster = load("kuberay_job.yaml")["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == ray.__version__
    assert re.search(rf"^FROM rayproject/ray:{re.escape(ray.__version__)}-py3", (FOLDER / "Dockerfile").read_text(), re.MULTILINE)
    assert cluster["authOptions"] == {"mode": "token"}
    (group,) = cluster["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"], cluster["enableInTreeAutoscaling"]) == (0, 0, True)
    assert group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    images = {pod["template"]["spec"]["containers"][0]["image"] for pod in (cluster["headGroupSpec"], group)}
    assert len(images) == 1


@pytest.mark.parametrize("name", [*LAUNCHED, "kuberay_job.yaml"])
def test_the_commands_in_the_files_are_ones_that_the_command_line_takes(name):
    from digit_search.cli import parse, search_flags

    text = (FOLDER / name).read_text().replace("\\\n#", "")
    commands = re.findall(r"python tune_main\.py (.*)", text)
    assert commands
    for command in commands:
        assert search_flags(parse(command.split()))["search.samples"]
