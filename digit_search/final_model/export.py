"""What a run delivers: the weights, their predictions on the validation digits, and solution.csv."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from digit_search.data.load import Digits
from digit_search.data.split import RowSplit
from digit_search.data.table import label_view, pixel_view
from digit_search.files.atomic_io import write_atomically
from digit_search.records import Confirmation, RetrainRecord, TrialParams
from digit_search.run.active_run import ActiveRun
from digit_search.training.batches import place_digits
from digit_search.training.device import DevicePlan, choose_device_type, describe_device, plan_device, visible_gpus
from digit_search.training.model import load_weights, save_weights
from digit_search.training.predict import predict_probabilities

INFERENCE_BATCH_SIZE = 64


def export_model(
    run: ActiveRun, digits: Digits, split: RowSplit, plan: DevicePlan, model: nn.Module, params: TrialParams, training: Confirmation
) -> RetrainRecord:
    """Write the files that a run delivers, and return the scores of `model`, which is on the device of `plan`.

    Raises:
        StorageError: if the disk does not take a file.
    """
    folder, batch_size = run.folder, run.settings.training.inference_batch_size
    save_weights(model, folder.weights)
    _write_validation(folder.validation, model, digits.train, split, plan, batch_size)
    predicted = _predict_table(model, digits.test, plan, batch_size)
    write_atomically(folder.solution, _solution_csv(predicted))
    return RetrainRecord(
        **{field.name: getattr(training, field.name) for field in fields(training)},
        params=params,
        num_train=len(split.train),
        num_validation=len(split.validation),
        num_test=len(predicted),
        test_accuracy=None if digits.answers is None else float(np.mean(predicted == digits.answers)),
    )


def _write_validation(path: Path, model: nn.Module, table: pa.Table, split: RowSplit, plan: DevicePlan, batch_size: int) -> None:
    """Write an Arrow IPC file with row, label, probabilities and pixels of every validation digit, so that a report needs no model."""
    pixels, labels = pixel_view(table), label_view(table)
    rows = torch.from_numpy(split.validation.astype(np.int64))
    probabilities = predict_probabilities(model, place_digits(pixels, labels, plan), rows, plan, batch_size)
    picked = np.ascontiguousarray(pixels[split.validation])
    batch = pa.table(
        {
            "row": pa.array(split.validation.astype(np.int32)),
            "label": pa.array(labels[split.validation]),
            "probabilities": pa.FixedSizeListArray.from_arrays(pa.array(probabilities.ravel()), probabilities.shape[1]),
            "pixels": pa.FixedSizeListArray.from_arrays(pa.array(picked.ravel()), picked.shape[1]),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_table(batch)
    write_atomically(path, sink.getvalue().to_pybytes())


def _predict_table(model: nn.Module, table: pa.Table, plan: DevicePlan, batch_size: int) -> np.ndarray:
    """The most likely digit of every row of a test table, uint8 [num_rows]."""
    digits = place_digits(pixel_view(table), None, plan)
    probabilities = predict_probabilities(model, digits, torch.arange(table.num_rows), plan, batch_size)
    return probabilities.argmax(axis=1).astype(np.uint8)


def _solution_csv(predicted: np.ndarray) -> str:
    """Kaggle's format: the header `ImageId,Label`, ImageId from 1."""
    return "ImageId,Label\n" + "".join(f"{number},{label}\n" for number, label in enumerate(predicted.tolist(), start=1))


def predict_with_weights(model_path: Path, table: pa.Table, out: Path, say: Callable[[str], None]) -> None:
    """Predict a test table with saved weights and write `ImageId,Label`.

    Raises:
        DataError: if the weights cannot be used.
        StorageError: if `out` cannot be written.
    """
    plan = plan_device(best_visible_device())
    model = load_weights(model_path).to(plan.device)
    write_atomically(out, _solution_csv(_predict_table(model, table, plan, INFERENCE_BATCH_SIZE)))
    say(f"{out}: {table.num_rows:,} digits predicted on {describe_device(plan.device)}")


def best_visible_device() -> str:
    """`cuda`, `mps` or `cpu`: the fastest that this process sees."""
    has_cuda, has_mps = visible_gpus()
    return choose_device_type(1.0, has_cuda=has_cuda, has_mps=has_mps)
