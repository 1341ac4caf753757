"""torchvision's ResNet18 for one grey channel and ten classes, and its weights on the disk."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from digit_search.errors import DataError
from digit_search.files.atomic_io import atomic_file, write_atomically
from digit_search.files.bounded_io import read_bounded
from digit_search.training.tensor_file import MAX_TENSOR_BYTES, describe_problem, load_tensors, save_tensors

NUM_CLASSES = 10
SMALL_STEM_NOTE = """\
These weights have the stem "small": 3x3, stride 1, no pooling. To load them into torchvision's model:

    model = torchvision.models.resnet18(num_classes=10)
    model.conv1 = torch.nn.Conv2d(1, 64, kernel_size=3, stride=1, padding=1, bias=False)
    model.maxpool = torch.nn.Identity()
    model.load_state_dict(torch.load("DigitRecognitionResNet18.pt", weights_only=True))

`python tune_main.py predict` recognises the stem.
"""


def build_resnet18(seed: int, stem: str = "imagenet") -> nn.Module:
    """Return a new ResNet18 for inputs of shape [batch, 1, height, width] and outputs of shape [batch, 10].

    `imagenet` keeps torchvision's stem (7x7, stride 2, max-pool); `small` keeps the full resolution (3x3, stride 1, no pooling).
    The keys of the state_dict and the initialisation (Kaiming, fan out) are torchvision's. The weights depend only on the seed.
    """
    # Worker processes are reused for many trials, so the global random state must stay as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = resnet18(num_classes=NUM_CLASSES)
        if stem == "small":
            model.conv1 = nn.Conv2d(1, 64, kernel_size=3, stride=1, padding=1, bias=False)
            model.maxpool = nn.Identity()
        else:
            model.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    return model


def stem_of(state: Mapping[str, Tensor]) -> str:
    """The stem that a state_dict belongs to, by the shape of its first convolution."""
    return "small" if tuple(state["conv1.weight"].shape) == (64, 1, 3, 3) else "imagenet"


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the model's state_dict as contiguous tensors on the CPU, atomically.

    Weights of the `small` stem do not fit torchvision's resnet18; a text file beside them says how to build the model that they fit.
    """
    note = path.with_suffix(".txt")
    if stem_of(model.state_dict()) == "small":
        write_atomically(note, SMALL_STEM_NOTE)
    else:
        note.unlink(missing_ok=True)
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    with atomic_file(path) as file:
        save_tensors(state, file)


def load_weights(path: Path) -> nn.Module:
    """Rebuild the model of a saved state_dict, in evaluation mode; the shape of `conv1.weight` decides its stem.

    Raises:
        DataError: if the file is missing or is not a state_dict of this model. No code from the file is run.
    """
    expectation = f"{path}: expected the state_dict of an adapted ResNet18, as a run writes it to DigitRecognitionResNet18.pt"
    try:
        return _model_of(load_tensors(read_bounded(path, MAX_TENSOR_BYTES)))
    except OSError as error:
        raise DataError(f"{expectation}; it cannot be read: {error.strerror}") from error
    except DataError as error:
        raise DataError(f"{expectation}; {error}") from error


def _model_of(state: object) -> nn.Module:
    if not isinstance(state, dict) or not isinstance(state.get("conv1.weight"), Tensor):
        raise DataError("found no tensor conv1.weight in it")
    model = build_resnet18(seed=0, stem=stem_of(state))
    expected = model.state_dict()
    if differing := sorted(map(str, state.keys() ^ expected.keys())):
        raise DataError(f"found other tensors: {', '.join(differing[:3])[:200]} should be in both or neither")
    for name, tensor in expected.items():
        if problem := describe_problem(state[name], tensor):
            raise DataError(f"found other tensors: {name} is {problem}")
    # A new dict, because a dict from a file may have attributes that load_state_dict would read.
    model.load_state_dict({name: state[name] for name in expected})
    return model.eval()
