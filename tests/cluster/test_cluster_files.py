"""The launcher files match Ray's schema, and the RayJob manifest has only fields of KubeRay's definition."""

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
def test_ray_up_accepts_the_launcher_files(name):
    config = load(name)
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["max_workers"] == config["max_workers"]


@pytest.mark.parametrize("name", LAUNCHED)
def test_the_check_finds_a_misspelled_setting_in_a_launcher_file(name):
    with pytest.raises(Exception, match="max_wokers"):
        validate_config(prepare_config(load(name) | {"max_wokers": 3}))


@pytest.mark.parametrize("name", LAUNCHED)
def test_every_machine_gets_our_requirements_and_the_token_and_requires_it(name):
    config = load(name)
    mounts = config["file_mounts"]
    assert mounts["~/digit_search/requirements.txt"] == "requirements.txt"
    assert (ROOT / "requirements.txt").is_file()
    assert mounts["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("pip install" in line and "-r ~/digit_search/requirements.txt" in line for line in config["setup_commands"])
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        (start,) = [line for line in config[commands] if "ray start" in line]
        assert "RAY_AUTH_MODE=token" in start


def test_the_cloud_cluster_starts_without_a_gpu_and_can_add_four():
    types = prepare_config(load("aws.yaml"))["available_node_types"]
    assert types["gpu_worker"]["min_workers"] == 0
    assert types["gpu_worker"]["resources"]["GPU"] * types["gpu_worker"]["max_workers"] == 4
    assert not types["head"]["resources"].get("GPU")


def test_the_number_of_workers_in_the_local_file_is_the_number_of_its_addresses():
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
"""The part of KubeRay's `ray.io/v1` RayJob that the manifest uses. Kubernetes refuses other names and types."""


def problems(value: Any, shape: Any, where: str = "") -> list[str]:
    """The differences between a manifest and the expected shape, one line each."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return [f"{where}: expected a mapping, found {value!r}"]
        if str in shape:
            return [f"{where}.{key}: {item!r}" for key, item in value.items() if type(key) is not str or type(item) is not shape[str]]
        unknown = [f"{where}.{key}: no such field" for key in value if key not in shape]
        return unknown + [line for key in value if key in shape for line in problems(value[key], shape[key], f"{where}.{key}")]
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{where}: expected a list, found {value!r}"]
        return [line for index, item in enumerate(value) for line in problems(item, shape[0], f"{where}[{index}]")]
    fits = type(value) is shape if isinstance(shape, type) else value == shape
    return [] if fits else [f"{where}: expected {shape}, found {value!r}"]


def test_the_manifest_has_only_the_fields_and_types_of_a_ray_job():
    assert problems(load("kuberay_job.yaml"), RAY_JOB) == []


def test_the_check_finds_wrong_fields_and_types_in_the_manifest():
    manifest = load("kuberay_job.yaml")
    manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["minReplica"] = 0
    manifest["spec"]["rayClusterSpec"]["rayVersion"] = 2.6
    manifest["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    assert len(problems(manifest, RAY_JOB)) == 3


def test_the_manifest_uses_our_versions_and_a_token_and_starts_without_gpus():
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
def test_the_command_line_accepts_the_commands_in_the_files(name):
    from digit_search.cli import parse, search_flags

    text = (FOLDER / name).read_text().replace("\\\n#", "")
    commands = re.findall(r"python tune_main\.py (.*)", text)
    assert commands
    for command in commands:
        assert search_flags(parse(command.split()))["search.samples"]
