"""The lowered model equals torchvision's: outputs, gradients, steps of Adam and state_dict.

In float32, a number that rounds to the other side of ReLU's zero changes gradients by a thousandth, also in torchvision's own channels-last
model. So whole models are compared in float64, where that is very rare, and in float32 with a smooth function instead of ReLU.
"""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, ResNet, resnet18

from digit_search.training.cpu.batchnorm import is_hwnc
from digit_search.training.cpu.lowering import changing_tensors, lower_small_maps, lowered_convs, optimizer_parameters
from digit_search.training.cpu.winograd_conv import SmallMapConv2d
from tests.own_process import in_own_process


def stock_model(seed: int = 0, stem: str = "imagenet") -> nn.Module:
    """torchvision's model with random weights and batch-norm statistics."""
    torch.manual_seed(seed)
    model = resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    if stem == "small":
        model.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(std=0.1)
    return model


def smooth(model: nn.Module) -> nn.Module:
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.Softplus())
    return model


def both_models(**options) -> tuple[nn.Module, nn.Module]:
    stock = stock_model(**options).double()
    return stock, lower_small_maps(copy.deepcopy(stock))


def images(batch: int, size: int = 28, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    return torch.randn(batch, 1, size, size, dtype=torch.float64).contiguous(memory_format=layout)


def backward(model: nn.Module, inputs: Tensor) -> Tensor:
    outputs = model(inputs)
    F.cross_entropy(outputs, torch.arange(len(inputs)) % 10).backward()
    return outputs.detach()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Every gradient under its name in the state_dict; idle taps without one count as zero."""
    grads = {name: parameter.grad for name, parameter in model.named_parameters() if "taps" not in name}
    for name, module in model.named_modules():
        if isinstance(module, SmallMapConv2d):
            idle = module.idle_taps.grad
            grads[f"{name}.weight"] = module.join_taps(module.taps.grad, torch.zeros_like(module.idle_taps) if idle is None else idle)
    return grads


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert relative_error(actual[name], tensor) < tolerance, name


@pytest.mark.parametrize(
    ("batch", "training", "layout"),
    [
        (1, False, torch.channels_last),
        (2, True, torch.contiguous_format),
        (3, True, torch.channels_last),
    ],
)
def test_outputs_and_gradients_equal_the_stock_models(batch, training, layout):
    stock, ours = both_models()
    inputs = images(batch, layout=layout)
    # Batch norm over two numbers divides by their difference; with it go float64's digits, and nearly all of the gradient.
    outputs_tolerance, gradients_tolerance = (1e-8, 1e-5) if batch == 2 else (1e-10, 1e-10)
    assert relative_error(backward(ours.train(training), inputs), backward(stock.train(training), inputs)) < outputs_tolerance
    assert_same(gradients(ours), gradients(stock), gradients_tolerance)


@pytest.mark.parametrize(
    ("batch", "training", "layout"),
    [
        (1, False, torch.contiguous_format),
        (2, False, torch.channels_last),
        (31, True, torch.channels_last),
        (64, True, torch.contiguous_format),
        (257, True, torch.contiguous_format),
    ],
)
@pytest.mark.slow
def test_outputs_and_gradients_in_float32_equal_the_stock_models_within_2e_5(batch, training, layout):
    stock = smooth(stock_model()).train(training)
    ours = lower_small_maps(copy.deepcopy(stock))
    inputs = images(batch, layout=layout).float()
    assert relative_error(backward(ours, inputs), backward(stock, inputs)) < 2e-5
    assert_same(gradients(ours), gradients(stock), 2e-5)


@pytest.mark.parametrize("training", [False, True])
def test_outputs_in_float32_with_relu_equal_the_stock_models_within_2e_5(training):
    stock = stock_model().train(training)
    ours = lower_small_maps(copy.deepcopy(stock))
    inputs = images(64).float()
    assert relative_error(ours(inputs), stock(inputs)) < 2e-5


@pytest.mark.parametrize("training", [False, True])
def test_between_the_stem_and_the_last_layer_all_maps_and_gradients_are_hwnc(training):
    _, ours = both_models()
    orders = {}

    def watch(name: str, maps: Tensor) -> None:
        orders[name] = is_hwnc(maps)
        maps.register_hook(lambda grad: orders.update({f"gradient of {name}": is_hwnc(grad)}))

    for name, module in ours.named_modules():
        if name.startswith("layer") and isinstance(module, SmallMapConv2d | nn.BatchNorm2d):
            module.register_forward_hook(lambda _, given, got, name=name: watch(name, got))
    backward(ours.train(training), images(3))
    assert len(orders) == 2 * (19 + 19)
    assert all(orders.values()), [name for name, is_expected in orders.items() if not is_expected]


def compare_compiled_with_stock() -> None:
    torch.manual_seed(0)
    stock = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)
    stock.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    ours = lower_small_maps(copy.deepcopy(stock.double()))
    inputs = images(3)
    compiled = torch.compile(ours, backend="aot_eager")
    assert relative_error(backward(compiled, inputs), backward(stock, inputs)) < 1e-10
    assert_same(gradients(ours), gradients(stock), 1e-10)


@pytest.mark.slow
def test_a_compiled_model_equals_the_stock_model():
    in_own_process(compare_compiled_with_stock)


def test_idle_taps_have_a_gradient_of_zero_in_the_stock_model_and_none_in_ours():
    stock, ours = both_models()
    for model in (stock, ours):
        backward(model, images(3))
    lowered = lowered_convs(ours)
    assert len(lowered) == 19
    for name, module in lowered.items():
        stock_by_tap = stock.get_submodule(name).weight.grad.permute(2, 3, 1, 0).flatten(0, 1)
        assert not stock_by_tap[module.idle].any()
        assert module.idle_taps.grad is None
    assert {name: len(module.idle) for name, module in lowered.items() if module.idle} == {
        "layer4.0.conv1": 5,
        "layer4.0.conv2": 8,
        "layer4.1.conv1": 8,
        "layer4.1.conv2": 8,
    }


@pytest.mark.parametrize("size", [32, 56])
@pytest.mark.slow
def test_images_of_another_size_give_the_outputs_and_gradients_of_the_stock_model(size):
    stock, ours = both_models()
    inputs = images(2, size)
    assert relative_error(backward(ours, inputs), backward(stock, inputs)) < 1e-10
    assert_same(gradients(ours), gradients(stock), 1e-10)


@pytest.mark.slow
def test_the_model_with_the_small_stem_equals_the_stock_model():
    stock, ours = both_models(stem="small")
    lowered = lowered_convs(ours)
    assert {name.partition(".")[0] for name in lowered} == {"layer3", "layer4"}
    inputs = images(2)
    assert relative_error(backward(ours, inputs), backward(stock, inputs)) < 1e-10
    assert_same(gradients(ours), gradients(stock), 1e-10)


def test_state_dicts_are_exchanged_with_the_stock_model():
    stock, ours = stock_model(seed=1), lower_small_maps(stock_model(seed=2))
    expected = {name: tensor.clone() for name, tensor in stock.state_dict().items()}
    ours.load_state_dict(expected)
    saved = ours.state_dict()
    assert list(saved) == list(expected)
    assert all(torch.equal(saved[name], expected[name]) for name in expected)
    fresh = stock_model(seed=3)
    fresh.load_state_dict(saved)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in fresh.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer4.1.conv2.weight"), "Missing key.*layer4.1.conv2.weight"),
        (lambda state: state.update({"layer4.1.conv2.weight": torch.zeros(512, 512, 1, 1)}), r"size mismatch.*found \(512, 512, 1, 1\)"),
        (lambda state: state.update({"layer4.1.conv2.taps": torch.zeros(1)}), "Unexpected key.*layer4.1.conv2.taps"),
    ],
)
def test_a_state_dict_of_another_model_is_refused(change, message):
    model = lower_small_maps(stock_model())
    state = model.state_dict()
    change(state)
    with pytest.raises(RuntimeError, match=message):
        model.load_state_dict(state)


@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
@pytest.mark.slow
def test_steps_of_adam_equal_the_stock_models(weight_decay):
    stock, ours = both_models()
    inputs = images(4)
    for model, parameters in ((stock, stock.parameters()), (ours, optimizer_parameters(ours, weight_decay=weight_decay))):
        adam = torch.optim.Adam(parameters, lr=1e-3, weight_decay=weight_decay, fused=model is ours)
        for _ in range(2):
            adam.zero_grad()
            backward(model, inputs)
            adam.step()
    assert_same(ours.state_dict(), {name: tensor.double() for name, tensor in stock.state_dict().items()}, 1e-7)


def test_idle_taps_cost_adam_no_memory():
    ours = lower_small_maps(stock_model())
    adam = torch.optim.Adam(optimizer_parameters(ours, weight_decay=0.0))
    backward(ours, images(2).float())
    adam.step()
    assert sum(parameter.numel() for parameter in adam.state) < 5e6 < 11e6 < sum(parameter.numel() for parameter in ours.parameters())


@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
def test_changing_tensors_are_exactly_those_that_training_changes(weight_decay):
    ours = lower_small_maps(stock_model())
    adam = torch.optim.Adam(optimizer_parameters(ours, weight_decay=weight_decay), weight_decay=weight_decay)
    before = {name: tensor.detach().clone() for name, tensor in (*ours.named_parameters(), *ours.named_buffers())}
    backward(ours, images(4).float())
    adam.step()
    now = {name: tensor for name, tensor in (*ours.named_parameters(), *ours.named_buffers()) if tensor.is_floating_point()}
    changed = {name for name, tensor in now.items() if not torch.equal(tensor, before[name])}
    listed = {id(tensor) for tensor in changing_tensors(ours).values()}
    assert changed == {name for name, tensor in now.items() if id(tensor) in listed and tensor.numel()}


def test_a_deep_copy_is_the_same_function_and_shares_nothing():
    _, ours = both_models()
    inputs = images(2)
    twin = copy.deepcopy(ours)
    before = backward(ours.eval(), inputs)
    assert torch.equal(backward(twin.eval(), inputs), before)
    for tensor in changing_tensors(twin).values():
        tensor.data.add_(1)
    assert torch.equal(ours(inputs), before)


def test_lowering_changes_neither_the_statistics_nor_the_mode():
    for training in (False, True):
        stock = stock_model().train(training)
        ours = lower_small_maps(copy.deepcopy(stock))
        assert ours.training is training
        assert all(torch.equal(buffer, stock.get_buffer(name)) for name, buffer in ours.named_buffers())
