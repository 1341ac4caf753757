"""How many trials run at a time and what each gets, decided before the first one starts."""

import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from digit_search.config.settings import ResourceSettings
from digit_search.errors import ResourceError

Nodes = Sequence[Mapping[str, float]]
"""What Ray counts on each node, e.g. [{"CPU": 8, "GPU": 1}, {"CPU": 4}]."""


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    workers: int
    """How many trials run at a time."""
    cpus_per_trial: int
    gpus_per_trial: float
    """What each trial requests from Ray; 0 on a Mac whose Ray does not count the Apple GPU."""
    uses_mps: bool = False
    """The trials use an Apple GPU that Ray does not count, so only `workers` limits how many share it."""

    def describe(self, nodes: Nodes) -> str:
        """One line for the user, e.g. `32 CPUs, 4 GPUs: 16 trials at a time, 1 CPU and 0.25 GPU each`."""
        gpus = counted(_total(nodes, "GPU"), "GPU") if self.gpus_per_trial else "no GPU used"
        if self.uses_mps:
            gpus = "Apple GPU"
        available = f"{counted(_total(nodes, 'CPU'), 'CPU')}, {gpus}"
        if len(nodes) > 1:
            available = f"{len(nodes)} nodes, {available}"
        each = counted(self.cpus_per_trial, "CPU") + (f" and {self.gpus_per_trial:g} GPU" if self.gpus_per_trial else "")
        return f"{available}: {counted(self.workers, 'trial')} at a time, {each} each"


def plan_workers(settings: ResourceSettings, nodes: Nodes, *, has_mps: bool = False) -> WorkerPlan:
    """Decide how many trials run at a time and what each gets. A trial never spans two nodes.

    `has_mps`: this machine's torch can use an Apple GPU. Raises ResourceError if no trial fits on any node, or fewer than the settings
    require.
    """
    # Ray 2.60 counts an Apple GPU only on Apple silicon where macOS reports it; earlier versions never do.
    is_uncounted = has_mps and len(nodes) == 1 and not _total(nodes, "GPU") and settings.gpus_per_trial != 0
    if is_uncounted:
        nodes = [{**nodes[0], "GPU": 1.0}]
    gpus = settings.gpus_per_trial
    if gpus == "auto":
        gpus = 1.0 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0
    num_fit = trials_that_fit(settings.cpus_per_trial, gpus, nodes)
    needs = f"{counted(settings.cpus_per_trial, 'CPU')} and {counted(gpus, 'GPU')}"
    if num_fit < 1:
        raise ResourceError(
            f"one trial needs {needs} on one node, but Ray has {_describe_nodes(nodes)}; "
            "ask for less with --cpus-per-trial and --gpus-per-trial"
        )
    workers = num_fit if settings.workers == "auto" else settings.workers
    if workers > num_fit:
        raise ResourceError(
            f"--workers {workers}: expected at most {num_fit}, as many trials as fit at {needs} each; Ray has {_describe_nodes(nodes)}"
        )
    return WorkerPlan(workers, settings.cpus_per_trial, 0.0 if is_uncounted else float(gpus), is_uncounted)


def trials_that_fit(cpus: int, gpus: float, nodes: Nodes) -> int:
    return sum(_trials_on_node(cpus, gpus, node) for node in nodes)


def _trials_on_node(cpus: int, gpus: float, node: Mapping[str, float]) -> int:
    """How many trials fit on one node. A trial that needs less than one GPU never spans two."""
    by_cpus = int(node.get("CPU", 0) // cpus)
    if gpus <= 0:
        return by_cpus
    num_gpus = node.get("GPU", 0.0)
    # Without 1e-9, rounding would let fewer trials share a GPU than fit.
    by_gpus = int(num_gpus) * int(1 / gpus + 1e-9) if gpus <= 1 else int(num_gpus // gpus)
    return min(by_cpus, by_gpus)


def _total(nodes: Nodes, resource: str) -> float:
    return sum(node.get(resource, 0.0) for node in nodes)


def counted(number: float, noun: str) -> str:
    return f"{number:g} {noun}{'' if number == 1 else 's'}"


def _describe_nodes(nodes: Nodes) -> str:
    """What the nodes have, e.g. `1 CPU and 0 GPUs on each of 2 nodes, 8 CPUs and 1 GPU on one node`."""
    kinds = Counter(f"{counted(node.get('CPU', 0), 'CPU')} and {counted(node.get('GPU', 0), 'GPU')}" for node in nodes)
    if len(nodes) == 1:
        return next(iter(kinds))
    return ", ".join(f"{kind} on {f'each of {number} nodes' if number > 1 else 'one node'}" for kind, number in kinds.items()) or "no nodes"


def mps_here() -> bool:
    """Whether this machine's torch can use an Apple GPU. torch is imported only on macOS."""
    if platform.system() != "Darwin":
        return False
    import torch

    return torch.backends.mps.is_available()


def check_gpus(plan: WorkerPlan, *, is_own_ray: bool, say: Callable[[str], None]) -> None:
    """Say so if torch cannot use the GPUs that the trials will get, as far as this machine can tell.

    Raises ResourceError if an Apple GPU lacks operators that the training needs.
    """
    if not plan.gpus_per_trial and not plan.uses_mps:
        return
    if not is_own_ray and not mps_here():
        # The GPUs are in other machines of the cluster.
        return
    from digit_search.training.device import plan_device, visible_gpus
    from digit_search.training.device_check import check_operators

    has_cuda, has_mps = visible_gpus()
    if has_mps and not has_cuda:
        check_operators(plan_device("mps"))
    if not has_cuda and not has_mps:
        say(
            "NOTE: Ray counts a GPU here that this torch cannot use, so the trials compute on the CPU. Install a torch that fits the card "
            "and its driver (doctor shows both), or use the CPU cores for more trials at a time with --gpus-per-trial 0"
        )
