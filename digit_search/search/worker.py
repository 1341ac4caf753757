"""What runs in a Ray worker: one trial, from its configuration to its last report."""

import contextlib
import gc
import traceback
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
from digit_search.training.device import choose_device_type, describe_device, is_out_of_gpu_memory, plan_device, visible_gpus
from digit_search.training.loop import fit
from digit_search.training.setup import make_setup
from digit_search.training.trainer import Trainer


def assigned_device_type(uses_mps: bool) -> str:
    """The device type of what Ray gave to this worker."""
    has_cuda, has_mps = visible_gpus()
    share = 1.0 if uses_mps else float(len(ray.get_gpu_ids()))
    return choose_device_type(share, has_cuda=has_cuda, has_mps=has_mps)


def run_trial(config: dict[str, Any], table: pa.Table, setup: TrialSetup) -> None:
    """Train one trial, and report to Tune after every `Trainer.advance`.

    A worker that takes over a trial continues from its checkpoint. It reports the checkpoint's metrics again, because the worker before may
    have died before its report. A trial that raises is reported as failed and not left to Ray, which would run it again: only a worker that
    died gets a retry. A checkpoint that the disk did not take is reported as such: it is no trial's fault, and ends the search.
    """
    torch.set_num_threads(setup.num_threads)
    _free_last_trial()
    if problem := _train(config, table, setup):
        # This call may not return before the worker gets its next trial, so this one's memory must be free before it.
        _free_last_trial()
        tune.report(problem)


def _train(config: dict[str, Any], table: pa.Table, setup: TrialSetup) -> dict[str, str]:
    """Train the trial to its end; return what went wrong as a report to Tune, empty where nothing did."""
    checkpoints = trial_checkpoints(setup.trials_location, config["trial"])
    reporter = _Reporter(setup.objective)
    try:
        training = setup.training
        plan = plan_device(assigned_device_type(setup.uses_mps), training.precision)
        reporter.device = describe_device(plan.device)
        prepared = make_setup(
            table,
            setup.split,
            plan,
            ema_half_life_epochs=training.ema_half_life_epochs,
            reports_per_epoch=setup.objective.reports_per_epoch,
            compile=training.compile,
        )
        params = TrialParams(**{name: config[name] for name in PARAM_NAMES})
        trainer = Trainer(prepared, params, config["seed"])
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


def _free_last_trial() -> None:
    """Free the memory of the trial that a reused worker ran before.

    A model and its optimizer refer to each other, so only the garbage collector frees them. And each trial runs in a new thread, so the C
    library keeps their memory where the next trial does not look for it. A worker would grow by 400 MB within five trials. The GPU memory
    that torch keeps for later is freed too, because other workers may share that GPU.
    """
    gc.collect()
    torch.cuda.empty_cache()
    release_freed_memory()


class _Reporter:
    """Gives metrics to Tune, with what the search and the records need beside them."""

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
