"""What a device lacks is named before a search starts. No GPU here: stand-ins refuse operators as a device without them would."""

from pathlib import Path

import pytest
import torch
import torchgen
import yaml
from torch.utils._python_dispatch import TorchDispatchMode

from digit_search.errors import ResourceError
from digit_search.training import loop, rehearsal
from digit_search.training.device import DevicePlan, plan_device
from digit_search.training.rehearsal import check_operators, rehearse


class DeviceWithout(TorchDispatchMode):
    """The CPU in the place of a device that lacks some operators, in torch's words."""

    def __init__(self, *lacking):
        super().__init__()
        self.lacking = lacking
        self.is_filling_in = False

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = operator._schema.name
        if name in self.lacking and not self.is_filling_in:
            raise NotImplementedError(f"The operator '{name}' is not currently implemented for the MPS device. If you want this op")
        return operator(*args, **(kwargs or {}))


@pytest.fixture
def device_without(monkeypatch):
    def make(*lacking):
        device = DeviceWithout(*lacking)
        fill_in = rehearsal.on_cpu

        def on_cpu(*given):
            device.is_filling_in = True
            try:
                return fill_in(*given)
            finally:
                device.is_filling_in = False

        monkeypatch.setattr(rehearsal, "on_cpu", on_cpu)
        return device

    return make


@pytest.fixture
def gpu_like(monkeypatch):
    """A plan as MPS has it, on the CPU: the model as it is, no fused Adam, float32."""
    monkeypatch.setattr(loop, "lower_small_maps", lambda model: model)
    return DevicePlan(torch.device("cpu"), autocast_dtype=None, channels_last=False, pinned=False, fused_adam=False)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_this_machine_has_every_operator(precision):
    check_operators(plan_device("cpu", precision))


def test_all_operators_that_a_device_lacks_are_named_with_what_to_do(device_without, gpu_like):
    # One of the augmentation, one that writes in place, one of the backward pass.
    lacking = {"aten::grid_sampler_2d", "aten::addcdiv_", "aten::convolution_backward"}
    with device_without(*lacking), pytest.raises(ResourceError, match=r"PYTORCH_ENABLE_MPS_FALLBACK=1.*--gpus-per-trial 0") as caught:
        check_operators(gpu_like)
    assert all(name in str(caught.value) for name in lacking)


def test_the_cpu_stands_in_for_what_writes_in_place_and_for_what_does_not():
    values, other = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    assert rehearsal.on_cpu(torch.ops.aten.add_.Tensor, (values, other), {}) is values
    assert values.tolist() == [4.0, 6.0]
    assert rehearsal.on_cpu(torch.ops.aten.stack.default, ([values, other],), {"dim": 1}).tolist() == [[4.0, 3.0], [6.0, 4.0]]
    assert values.tolist() == [4.0, 6.0]


def test_an_operator_that_nothing_can_stand_in_for_is_named_in_torchs_words():
    def rehearse(plan):
        raise NotImplementedError("The operator 'aten::x' is not currently implemented for the MPS device. If you want this op to be")

    with pytest.raises(
        ResourceError, match=r"the training needs: The operator 'aten::x' is not currently implemented for the MPS device\. "
    ):
        check_operators(plan_device("cpu"), rehearse)


def test_torchs_own_table_has_every_operator_of_a_training_for_mps(gpu_like):
    table = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native" / "native_functions.yaml"
    entries = {entry["func"].partition("(")[0]: entry for entry in yaml.safe_load(table.read_text())}

    def keys(name):
        entry = entries[name]
        found = {key.strip() for keys in entry.get("dispatch", {}) for key in keys.split(",")}
        delegate = entry.get("structured_delegate")
        # Without a table of its own an operator is made of others, on any device.
        return (found | keys(delegate)) if delegate else found or {"CompositeImplicitAutograd"}

    class Seen(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.names = set()

        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            if operator.namespace == "aten":
                self.names.add(operator._schema.name.removeprefix("aten::") + f".{operator._overloadname}".removesuffix(".default"))
            return operator(*args, **(kwargs or {}))

    with Seen() as seen:
        rehearse(gpu_like)
    lacking = {name for name in seen.names if "MPS" not in keys(name) and not any(key.startswith("Composite") for key in keys(name))}
    assert len(seen.names) > 40
    assert "grid_sampler_2d" in seen.names
    assert lacking == set()
