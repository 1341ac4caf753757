"""What runs in a Ray worker: one trial, from its configuration to its last report."""

import contextlib
import gc
import traceback
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import ray
import torch
from ray import tune

from digit_search.errors import StorageError, TrialError
from digit_search.records import PARAM_NAMES, EpochMetrics, TrialParams
from digit_search.run.checkpoints import trial_checkpoints
from digit_search.search.scheduler import STEP
from digit_search.search.study import Objective
from digit_search.search.trainable import FAILED, UNSAVED, TrialSetup
from digit_search.training.checkpoint import checkpoint_state, load_checkpoint, restore, save_checkpoint
from digit_search.training.cpu.malloc import release_freed_memory
from digit_search.training.device import DevicePlan, choose_device_type, describe_device, is_out_of_gpu_memory, plan_device, visible_gpus
from digit_search.training.loop import fit
from digit_search.training.setup import TrainingSetup, make_setup
from digit_search.training.trainer import Trainer


def assigned_device_type(uses_mps: bool) -> str:
    """The device type of what Ray gave to this worker."""
    has_cuda, has_mps = visible_gpus()
    share = 1.0 if uses_mps else float(len(ray.get_gpu_ids()))
    return choose_device_type(share, has_cuda=has_cuda, has_mps=has_mps)


def run_trial(config: dict[str, Any], table: pa.Table, setup: TrialSetup) -> None:
    """Train one trial, reporting to Tune after every `Trainer.advance`.

    A worker that takes over a trial goes on from its checkpoint; it reports that one's metrics once more, because nobody knows whether
    the worker before could. A trial that raises is reported as failed instead of left to Ray, which would run it again: only a worker
    that died deserves a retry. A checkpoint that the disk did not take is reported as such: it is no trial's fault, and ends the search.
    """
    torch.set_num_threads(setup.num_threads)
    _free_last_trial()
    if problem := _train(config, table, setup):
        # This call may not return before the worker gets its next trial, so that nothing of this one may be held here.
        _free_last_trial()
        tune.report(problem)


def _train(config: dict[str, Any], table: pa.Table, setup: TrialSetup) -> dict[str, str]:
    """Train the trial to its end; return what went wrong as a report to Tune, empty where nothing did."""
    checkpoints = trial_checkpoints(setup.trials_location, config["trial"])
    reporter = _Reporter(setup.objective)
    try:
        plan = plan_device(assigned_device_type(setup.uses_mps), setup.precision)
        reporter.device = describe_device(plan.device)
        trainer = Trainer(_training_setup(table, setup, plan), trial_params(config), config["seed"])
        best = None
        if (state := load_checkpoint(checkpoints)) is not None:
            metrics, best = restore(trainer, state)
            reporter.report(metrics)
        fit(
            trainer,
            max_epochs=setup.max_epochs,
            report=reporter.report,
            best=best,
            save=lambda metrics, best: save_checkpoint(
                checkpoints, setup.objective.step(metrics), checkpoint_state(trainer, metrics, best)
            ),
        )
    except StorageError as error:
        return {UNSAVED: str(error)}
    except Exception as error:  # noqa: BLE001
        # The edge of a trial: its traceback goes to the trial's log, one line to the table.
        with contextlib.suppress(OSError, StorageError):
            checkpoints.write_error(traceback.format_exc())
        return {FAILED: one_line(error)}
    return {}


def trial_params(config: Mapping[str, Any]) -> TrialParams:
    """The parameters in a trial's configuration."""
    return TrialParams(**{name: config[name] for name in PARAM_NAMES})


def _free_last_trial() -> None:
    """Give back the memory of a reused worker's trial before.

    Its model and its optimizer refer to each other, so only the collector frees them; and because each trial runs in a thread of its own,
    the C library keeps their memory where the next trial does not look for it. A worker would grow by 400 MB within five trials.
    What torch keeps of a GPU's memory for later is given back too, as others may share that GPU.
    """
    gc.collect()
    torch.cuda.empty_cache()
    release_freed_memory()


def _training_setup(table: pa.Table, setup: TrialSetup, plan: DevicePlan) -> TrainingSetup:
    return make_setup(
        table,
        setup.split,
        plan,
        ema_half_life_epochs=setup.ema_half_life_epochs,
        reports_per_epoch=setup.reports_per_epoch,
        compile=setup.compile,
    )


class _Reporter:
    """Hands metrics to Tune, with what the scheduler, the searcher and the records want beside them."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._node_id = ray.get_runtime_context().get_node_id()
        self.device = "unknown"

    def report(self, metrics: EpochMetrics) -> None:
        objective = self._objective
        tune.report(
            {
                STEP: objective.step(metrics),
                objective.metric: objective.score(metrics),
                "metrics": metrics,
                "device": self.device,
                "node_id": self._node_id,
            }
        )


def one_line(error: BaseException) -> str:
    """An error as one line of a table, with advice where the device ran out of memory."""
    text = " ".join(str(error).split()) or type(error).__name__
    if is_out_of_gpu_memory(error):
        text = f"out of GPU memory; run fewer trials a GPU (--gpus-per-trial) or smaller batches ({text})"
    return text if isinstance(error, TrialError) else f"{type(error).__name__}: {text}"
