"""The same search as the Ray Tune and PyTorch tutorials write it: python benchmarks/tutorial_search.py [--samples 20] [--max-epochs 9]

It is the reference for our speed; tutorial_comparison.py compares the two. The data is the embedded sample, uncompressed. Trials run on the
CPU unless --gpus-per-trial gives each a share of a GPU.
"""

import argparse
import gzip
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from machine import describe_machine
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.models import resnet18

from digit_search.data.source import SAMPLE_FOLDER


class DigitDataset(Dataset):
    """Images float32 [1, 28, 28] in [0, 1], which are transformed one by one, and their labels."""

    def __init__(self, frame: pd.DataFrame, transform: nn.Module) -> None:
        pixels = frame.drop(columns="label").to_numpy()
        self.images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 28, 28) / 255
        self.labels = torch.tensor(frame["label"].to_numpy())
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(self.images[index]), self.labels[index]


def make_loaders(frame: pd.DataFrame, batch_size: int) -> tuple[DataLoader, DataLoader]:
    """Nine tenths for training, augmented and shuffled, and one tenth for validation."""
    normalize = transforms.Normalize((0.1310,), (0.3085,))
    augment = transforms.Compose([transforms.RandomRotation(10), normalize])
    validation = frame.sample(frac=0.1, random_state=0)
    training_set, validation_set = DigitDataset(frame.drop(validation.index), augment), DigitDataset(validation, normalize)
    return (
        DataLoader(training_set, batch_size=batch_size, shuffle=True, num_workers=2),
        DataLoader(validation_set, batch_size=batch_size, num_workers=2),
    )


def make_model() -> nn.Module:
    model = resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    return model


def train_one_epoch(model: nn.Module, loader: DataLoader, criterion: nn.Module, optimizer: torch.optim.Optimizer, device: str) -> None:
    model.train()
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()


@torch.no_grad()
def validate(model: nn.Module, loader: DataLoader, criterion: nn.Module, device: str) -> tuple[float, float]:
    """Mean loss and accuracy."""
    model.eval()
    loss_sum, num_correct, count = 0.0, 0, 0
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        outputs = model(images)
        loss_sum += criterion(outputs, labels).item() * len(labels)
        num_correct += (outputs.argmax(1) == labels).sum().item()
        count += len(labels)
    return loss_sum / count, num_correct / count


def train_digits(config: dict, csv: str) -> None:
    """One trial."""
    training_loader, validation_loader = make_loaders(pd.read_csv(csv), config["batch_size"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = make_model().to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=config["lr"])
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=config["step_size"], gamma=config["gamma"])
    for _ in range(config["epochs"]):
        started_at = time.perf_counter()
        train_one_epoch(model, training_loader, criterion, optimizer, device)
        val_loss, val_accuracy = validate(model, validation_loader, criterion, device)
        schedule.step()
        tune.report({"val_loss": val_loss, "val_accuracy": val_accuracy, "seconds": time.perf_counter() - started_at})


def search_as_in_tutorials(csv: Path, storage: Path, samples: int, max_epochs: int, gpus_per_trial: float) -> None:
    """The search as the tutorials write it."""
    tuner = tune.Tuner(
        tune.with_resources(partial(train_digits, csv=str(csv)), {"cpu": 1, "gpu": gpus_per_trial}),
        param_space={
            "lr": tune.loguniform(1e-4, 3e-2),
            "gamma": tune.uniform(0.05, 0.9),
            "step_size": tune.randint(1, 8),
            "batch_size": tune.choice([32, 64, 128, 256]),
            "epochs": max_epochs,
        },
        tune_config=tune.TuneConfig(
            metric="val_accuracy",
            mode="max",
            search_alg=OptunaSearch(),
            scheduler=ASHAScheduler(max_t=max_epochs, grace_period=1),
            num_samples=samples,
        ),
        run_config=tune.RunConfig(storage_path=str(storage)),
    )
    best = tuner.fit().get_best_result()
    print(f"best: validation accuracy {best.metrics['val_accuracy']:.4f} with {best.config}")


def write_sample(folder: Path, num_rows: int | None) -> Path:
    """Write the sample's train.csv uncompressed, as Kaggle's is."""
    header, *rows = gzip.decompress((SAMPLE_FOLDER / "train.csv.gz").read_bytes()).splitlines(keepends=True)
    path = folder / "train.csv"
    path.write_bytes(b"".join([header, *rows[:num_rows]]))
    return path


def prepare(gpus_per_trial: float) -> None:
    """Set what both ways of running need before Ray starts."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if not gpus_per_trial:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    print(describe_machine("torch", "torchvision", "ray", "optuna", "pandas"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--max-epochs", type=int, default=9)
    parser.add_argument("--rows", type=int, help="rows of the sample (default: all)")
    parser.add_argument("--gpus-per-trial", type=float, default=0.0, help="0: trials see no GPU")
    arguments = parser.parse_args()
    prepare(arguments.gpus_per_trial)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        csv = write_sample(Path(name), arguments.rows)
        started_at = time.perf_counter()
        search_as_in_tutorials(csv, Path(name) / "tune", arguments.samples, arguments.max_epochs, arguments.gpus_per_trial)
        print(f"{time.perf_counter() - started_at:.0f} s, Ray's start included")


if __name__ == "__main__":
    main()
