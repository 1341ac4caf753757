"""Speed of a training step and of an evaluation on one CPU thread, compared with stock torchvision: python benchmarks/training_step.py

Stock is torchvision's model and torch.optim.Adam as tutorials use them. Stock and ours run in separate processes, so that only ours changes
how the C library manages memory (malloc.py); with --profile both run in one process with the same memory settings. Times are CPU seconds,
so that other processes on the machine matter less. Stock and ours take turns, and the ratios are medians over the rounds.
"""

import argparse
import contextlib
import copy
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection

import torch
from machine import describe_machine
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18

from digit_search.config.settings import RunSettings
from digit_search.training.cpu.lowering import changing_tensors, lower_small_maps, optimizer_parameters
from digit_search.training.cpu.malloc import keep_freed_memory
from digit_search.training.cpu.matmul_backend import avoids_mkl
from digit_search.training.ema import WeightAverage

IMAGE_SIZE = 28
IMAGES_PER_ROUND = 1024
MATRIX_SIZE = 2048
STEPS_PER_ROUND = 24
"""Of averaging only. The average is updated every 1, 2, 3 or 4 steps, and this is a multiple of each."""


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{describe_machine('torch', 'torchvision')}; {torch.backends.cpu.get_cpu_capability()}")
    print(f"one thread, float32, {args.repeats} rounds; ours multiplies with {'oneDNN' if avoids_mkl() else 'torch.mm'}\n")
    if args.profile:
        keep_freed_memory()
        stock = stock_model()
        print_layers(stock, lower_small_maps(copy.deepcopy(stock)), args.profile, args.repeats)
        return
    with model_process(is_ours=False) as stock_speed, model_process(is_ours=True) as our_speed:
        compare_training(stock_speed, our_speed, args.batches, args.repeats)
        compare_evaluation(stock_speed, our_speed, args.evaluation_batches, args.repeats)
    keep_freed_memory()
    print_averaging(lower_small_maps(stock_model()), args.batches, args.repeats)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--batches", type=int, nargs="*", default=[32, 64, 128, 256])
    parser.add_argument("--evaluation-batches", type=int, nargs="*", default=[64, 128, 256, 512, 1024])
    parser.add_argument("--profile", type=int, metavar="BATCH", help="print the time of each layer at this batch size instead")
    return parser.parse_args()


def stock_model() -> nn.Module:
    model = resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    return model


@contextlib.contextmanager
def model_process(is_ours: bool) -> Iterator[Callable[[Callable, int], float]]:
    """Start a process with one model. Yield a function that measures a round of training or evaluation there, in images per second."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=answer_requests, args=(theirs, is_ours))
    process.start()
    theirs.close()

    def measure(make_work: Callable, batch: int) -> float:
        ours.send((make_work, batch))
        return ours.recv()

    try:
        yield measure
    finally:
        ours.send(None)
        process.join()


def answer_requests(requests: Connection, is_ours: bool) -> None:
    """The measuring process: create the model, then measure what is requested until the request is None."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = stock_model()
    if is_ours:
        keep_freed_memory()
        lower_small_maps(model)
        adam = torch.optim.Adam(optimizer_parameters(model, weight_decay=0.0), fused=True)
    else:
        adam = torch.optim.Adam(model.parameters())
    works: dict[tuple[Callable, int], Callable[[], object]] = {}
    while (request := requests.recv()) is not None:
        make_work, batch = request
        if request not in works:
            works[request] = make_work(model, adam, batch)
        model.train(make_work is training_step)
        requests.send(images_per_second(works[request], batch))


Speed = Callable[[Callable, int], float]


def compare_training(stock: Speed, ours: Speed, batches: list[int], repeats: int) -> None:
    model = stock_model()
    flop = 3 * useful_flop(model) - conv_flop(model.conv1, IMAGE_SIZE)  # the images need no gradient
    print(f"training step (forward, backward, Adam); {flop / 1e6:.0f} useful MFLOP per image")
    print("batch  stock img/s  ours img/s  ratio  useful GFLOP/s  torch.mm GFLOP/s")
    for batch in batches:
        speeds = take_turns([partial(stock, training_step, batch), partial(ours, training_step, batch), mm_flop_per_second], repeats)
        stock_speed, our_speed, mm_speed = map(statistics.median, speeds)
        useful = our_speed * flop / 1e9
        print(f"{batch:5} {stock_speed:12.0f} {our_speed:11.0f} {ratio(speeds):6.2f} {useful:15.0f} {mm_speed / 1e9:17.0f}", flush=True)


def compare_evaluation(stock: Speed, ours: Speed, batches: list[int], repeats: int) -> None:
    print("\nevaluation (no_grad)\nbatch  stock img/s  ours img/s  ratio")
    for batch in batches:
        speeds = take_turns([partial(stock, evaluation, batch), partial(ours, evaluation, batch)], repeats)
        stock_speed, our_speed = map(statistics.median, speeds)
        print(f"{batch:5} {stock_speed:12.0f} {our_speed:11.0f} {ratio(speeds):6.2f}", flush=True)


def print_averaging(model: nn.Module, batches: list[int], repeats: int) -> None:
    """Print the share of a training step that the moving average of the weights takes, at the default half-life."""
    half_life_epochs = RunSettings().training.ema_half_life_epochs
    print(f"\nmoving average of the weights (half-life {half_life_epochs:g} epochs), share of a training step")
    print("batch  3,600 images  37,800 images")
    for batch in batches:
        step = training_step(model, torch.optim.Adam(optimizer_parameters(model, weight_decay=0.0), fused=True), batch)
        averages = [
            WeightAverage(changing_tensors(model).values(), half_life_epochs * math.ceil(images / batch)) for images in (3_600, 37_800)
        ]
        measures = [cpu_seconds(step), *(cpu_seconds(average.after_step, STEPS_PER_ROUND) for average in averages)]
        step_seconds, *shares = take_turns(measures, repeats)
        medians = [statistics.median(cost / whole for whole, cost in zip(step_seconds, share, strict=True)) for share in shares]
        print(f"{batch:5} {100 * medians[0]:11.1f} % {100 * medians[1]:12.1f} %", flush=True)


def cpu_seconds(work: Callable[[], object], times: int = 4) -> Callable[[], float]:
    """Return a function that measures the mean CPU seconds of the work."""

    def measure() -> float:
        started_at = time.process_time()
        for _ in range(times):
            work()
        return (time.process_time() - started_at) / times

    return measure


def training_step(model: nn.Module, adam: torch.optim.Adam, batch: int) -> Callable[[], None]:
    inputs, labels = torch.randn(batch, 1, IMAGE_SIZE, IMAGE_SIZE), torch.randint(0, 10, (batch,))

    def step() -> None:
        adam.zero_grad()
        F.cross_entropy(model(inputs), labels).backward()
        adam.step()

    return step


def evaluation(model: nn.Module, _: torch.optim.Adam, batch: int) -> Callable[[], Tensor]:
    inputs = torch.randn(batch, 1, IMAGE_SIZE, IMAGE_SIZE)
    return torch.no_grad()(lambda: model(inputs))


def images_per_second(step: Callable[[], object], batch: int) -> float:
    """Measure a round of steps with about IMAGES_PER_ROUND images in all."""
    num_steps = max(1, IMAGES_PER_ROUND // batch)
    started_at = time.process_time()
    for _ in range(num_steps):
        step()
    return num_steps * batch / (time.process_time() - started_at)


def mm_flop_per_second() -> float:
    matrix = torch.randn(MATRIX_SIZE, MATRIX_SIZE)
    started_at = time.process_time()
    torch.mm(matrix, matrix)
    return 2 * MATRIX_SIZE**3 / (time.process_time() - started_at)


def take_turns(measures: list[Callable[[], float]], repeats: int) -> list[list[float]]:
    """Call every measure once per round; return the results by measure, without the first round, which is a warm-up."""
    rounds = [[measure() for measure in measures] for _ in range(repeats + 1)]
    return [list(results) for results in zip(*rounds[1:], strict=True)]


def ratio(speeds: list[list[float]]) -> float:
    """The median over the rounds of ours divided by stock."""
    return statistics.median(ours / stock for stock, ours in zip(speeds[0], speeds[1], strict=True))


def useful_flop(model: nn.Module) -> int:
    """Floating-point operations of the stock model's convolutions for one image, forward only, without products with padding."""
    copied, flop = copy.deepcopy(model).eval(), []
    for module in copied.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda conv, inputs, _: flop.append(conv_flop(conv, inputs[0].shape[2])))
    with torch.no_grad():
        copied(torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE))
    return sum(flop)


def conv_flop(conv: nn.Conv2d, map_size: int) -> int:
    return 2 * conv.in_channels * conv.out_channels * useful_products(map_size, conv.kernel_size[0], conv.stride[0], conv.padding[0])


def useful_products(map_size: int, kernel: int, stride: int, padding: int) -> int:
    """Products of a kernel's tap and a pixel of the map, without those with padding."""
    ones = torch.ones(1, 1, map_size, map_size), torch.ones(1, 1, kernel, kernel)
    return int(F.conv2d(*ones, stride=stride, padding=padding).sum())


def print_layers(stock: nn.Module, ours: nn.Module, batch: int, repeats: int) -> None:
    """Print the time of each layer, forward and backward, for stock and ours."""
    flop = {name: conv_flop(layer, maps.shape[2]) for name, layer, maps in calls(stock, 2) if isinstance(layer, nn.Conv2d)}
    seconds: dict[str, list[float]] = {}
    for position, model in enumerate((stock, ours)):
        for name, layer, maps in calls(model, batch):
            key = name if name in flop else "batch norm, ReLU, pooling, linear"
            (measured,) = take_turns([cpu_seconds(both_ways(layer, maps))], repeats)
            seconds.setdefault(key, [0.0, 0.0])[position] += statistics.median(measured)
    adams = torch.optim.Adam(stock.parameters()), torch.optim.Adam(optimizer_parameters(ours, weight_decay=0.0), fused=True)
    for model, adam in zip((stock, ours), adams, strict=True):
        training_step(model, adam, 2)()
    seconds["Adam"] = [statistics.median(values) for values in take_turns([cpu_seconds(adam.step) for adam in adams], repeats)]
    print(f"one step at batch {batch}, layer by layer\nlayer                                    stock ms  ours ms  useful GFLOP/s")
    for key, (stock_seconds, our_seconds) in seconds.items():
        useful = f"{(2 if key == 'conv1' else 3) * batch * flop[key] / our_seconds / 1e9:8.0f}" if key in flop else ""
        print(f"{key:40} {stock_seconds * 1e3:8.2f} {our_seconds * 1e3:8.2f} {useful}", flush=True)
    print(f"{'sum':40} {sum(s for s, _ in seconds.values()) * 1e3:8.2f} {sum(o for _, o in seconds.values()) * 1e3:8.2f}")


def calls(model: nn.Module, batch: int) -> list[tuple[str, nn.Module, Tensor]]:
    """The calls of the model's innermost modules in order: name, module and input for this number of images."""
    recorded: list[tuple[str, nn.Module, Tensor]] = []
    innermost = {name: module for name, module in model.named_modules() if not any(module.children())}
    hooks = [
        module.register_forward_hook(lambda layer, inputs, _, name=name: recorded.append((name, layer, inputs[0].detach())))
        for name, module in innermost.items()
    ]
    for module in innermost.values():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # an in-place ReLU would change the recorded input
    model.train()(torch.randn(batch, 1, IMAGE_SIZE, IMAGE_SIZE))
    for hook in hooks:
        hook.remove()
    return recorded


def both_ways(layer: nn.Module, maps: Tensor) -> Callable[[], object]:
    """Return a function that runs the layer forward and backward; without the gradient of the images."""
    leaves = [*layer.parameters()] + ([maps.requires_grad_()] if maps.shape[1] > 1 else [])
    grad = torch.randn_like(layer(maps).detach())

    def passes() -> None:
        output = layer(maps)
        if output.requires_grad and output is not maps:
            torch.autograd.grad(output, leaves, grad, allow_unused=True)

    return passes


if __name__ == "__main__":
    main()
