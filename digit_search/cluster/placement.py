"""How the trials share what the cluster has, decided before the first of them starts."""

import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from digit_search.config.settings import ResourceSettings
from digit_search.errors import ResourceError


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """How many trials run at a time, and what each is given."""

    workers: int
    cpus_per_trial: int
    gpus_per_trial: float
    """What Ray is asked for; 0 on a Mac whose Ray does not count the Apple GPU."""
    uses_mps: bool = False
    """The trials use an Apple GPU that Ray does not count, so that `workers` alone keeps others away from it."""

    def describe(self, nodes: Sequence[Mapping[str, float]]) -> str:
        """One line for the user, e.g. `32 CPUs, 4 GPUs: 16 trials at a time, 1 CPU and 0.25 GPU each`."""
        gpus = "Apple GPU" if self.uses_mps else _count(_total(nodes, "GPU"), "GPU") if self.gpus_per_trial else "no GPU used"
        have = f"{len(nodes)} nodes, " if len(nodes) > 1 else ""
        each = _count(self.cpus_per_trial, "CPU") + (f" and {self.gpus_per_trial:g} GPU" if self.gpus_per_trial else "")
        return f"{have}{_count(_total(nodes, 'CPU'), 'CPU')}, {gpus}: {_count(self.workers, 'trial')} at a time, {each} each"


def plan_workers(settings: ResourceSettings, nodes: Sequence[Mapping[str, float]], *, has_mps: bool = False) -> WorkerPlan:
    """Decide how the trials share what the nodes have. A trial runs on one node, so nodes are filled one by one.

    Args:
        settings: what was asked for.
        nodes: what Ray counts on each node, e.g. [{"CPU": 8, "GPU": 1}, {"CPU": 4}].
        has_mps: this machine's torch can use an Apple GPU.

    Raises:
        ResourceError: if not even one trial can ever fit, or not as many as were asked for.
    """
    # Ray counts an Apple GPU only where it recognises it (2.60: Apple silicon, by asking macOS; earlier versions: never).
    is_uncounted = has_mps and len(nodes) == 1 and not _total(nodes, "GPU") and settings.gpus_per_trial != 0
    offered = [{**nodes[0], "GPU": 1.0}] if is_uncounted else nodes
    share = settings.gpus_per_trial
    if share == "auto":
        share = 1.0 if any(node.get("GPU", 0) >= 1 for node in offered) else 0.0
    fit = trials_that_fit(settings.cpus_per_trial, share, offered)
    needs = f"{_count(settings.cpus_per_trial, 'CPU')} and {_count(share, 'GPU')}"
    if fit < 1:
        raise ResourceError(
            f"one trial needs {needs} on one node, but Ray has {_describe_nodes(offered)}; "
            "ask for less with --cpus-per-trial and --gpus-per-trial"
        )
    workers = fit if settings.workers == "auto" else settings.workers
    if workers > fit:
        raise ResourceError(
            f"--workers {workers}: expected at most {fit}, as many trials as fit at {needs} each; Ray has {_describe_nodes(offered)}"
        )
    return WorkerPlan(workers, settings.cpus_per_trial, 0.0 if is_uncounted else float(share), is_uncounted)


def trials_that_fit(cpus: int, gpus: float, nodes: Sequence[Mapping[str, float]]) -> int:
    """How many trials fit on the nodes together."""
    return sum(_trials_on_node(cpus, gpus, node) for node in nodes)


def _trials_on_node(cpus: int, gpus: float, node: Mapping[str, float]) -> int:
    """How many trials fit on one node. A share below 1 packs whole trials on each GPU: none spans two GPUs for its fraction."""
    fit = int(node.get("CPU", 0) // cpus)
    if gpus <= 0:
        return fit
    has = node.get("GPU", 0.0)
    return min(fit, int(has) * int(1 / gpus + 1e-9) if gpus <= 1 else int(has // gpus))


def _total(nodes: Sequence[Mapping[str, float]], resource: str) -> float:
    return sum(node.get(resource, 0.0) for node in nodes)


def _count(number: float, noun: str) -> str:
    return f"{number:g} {noun}{'' if number == 1 else 's'}"


def _describe_nodes(nodes: Sequence[Mapping[str, float]]) -> str:
    """What there is, node by node, e.g. `1 CPU and 0 GPUs on each of 2 nodes, 8 CPUs and 1 GPU on one node`."""
    kinds = Counter(f"{_count(node.get('CPU', 0), 'CPU')} and {_count(node.get('GPU', 0), 'GPU')}" for node in nodes)
    if len(nodes) == 1:
        return next(iter(kinds))
    return ", ".join(f"{kind} on {f'each of {number} nodes' if number > 1 else 'one node'}" for kind, number in kinds.items()) or "no nodes"


def mps_here() -> bool:
    """Whether this machine's torch can use an Apple GPU; torch is imported only where there may be one."""
    if platform.system() != "Darwin":
        return False
    import torch

    return torch.backends.mps.is_available()


def check_gpus(plan: WorkerPlan, *, is_own_ray: bool, say: Callable[[str], None]) -> None:
    """See before the first trial that torch can use the GPUs that the trials will be given, as far as this machine can tell.

    Raises:
        ResourceError: if an Apple GPU lacks operators that the training needs.
    """
    if not plan.gpus_per_trial and not plan.uses_mps:
        return
    if not is_own_ray and not mps_here():
        # The nodes of a cluster may have what this machine has not.
        return
    from digit_search.training.device import plan_device, visible_gpus
    from digit_search.training.device_check import check_operators

    has_cuda, has_mps = visible_gpus()
    if has_mps and not has_cuda:
        check_operators(plan_device("mps"))
    if not has_cuda and not has_mps:
        say(
            "NOTE: Ray counts a GPU here that this torch cannot use, so the trials compute on the CPU. Install a torch that fits the card "
            "and its driver (doctor tells), or give the trials all cores with --gpus-per-trial 0"
        )
