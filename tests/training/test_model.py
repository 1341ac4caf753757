"""The model is torchvision's, and saved weights rebuild it."""

import pickle

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import resnet18

from digit_search.errors import DataError
from digit_search.training.model import build_resnet18, load_weights, save_weights


def stock_resnet18() -> nn.Module:
    model = resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    return model


def test_keys_and_shapes_equal_torchvisions():
    ours, stock = build_resnet18(0).state_dict(), stock_resnet18().state_dict()
    assert {name: tensor.shape for name, tensor in ours.items()} == {name: tensor.shape for name, tensor in stock.items()}


def test_weights_depend_only_on_the_seed():
    torch.manual_seed(123)
    before = torch.get_rng_state()
    one, same, other = (build_resnet18(seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["conv1.weight"], other["conv1.weight"])


def test_the_first_layer_is_initialised_with_kaimings_fan_out():
    weight = build_resnet18(0).conv1.weight
    assert weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.1)


def test_the_small_stem_keeps_the_digits_size():
    model = build_resnet18(0, "small").eval()
    with torch.no_grad():
        assert model.maxpool(model.conv1(torch.zeros(1, 1, 28, 28))).shape == (1, 64, 28, 28)
        assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.slow
def test_a_note_beside_weights_of_the_small_stem_says_how_to_load_them(tmp_path, monkeypatch):
    path = tmp_path / "DigitRecognitionResNet18.pt"
    model = build_resnet18(3, "small")
    save_weights(model, path)
    monkeypatch.chdir(tmp_path)
    lines = path.with_suffix(".txt").read_text().splitlines()
    code = "\n".join(line.strip() for line in lines if line.startswith("    "))
    names = {"torch": torch, "torchvision": torchvision}
    exec(code, names)
    images = torch.randn(2, 1, 28, 28)
    assert torch.equal(names["model"].eval()(images), model.eval()(images))
    save_weights(build_resnet18(3), path)
    assert not path.with_suffix(".txt").exists()


@pytest.mark.parametrize("stem", ["imagenet", "small"])
@pytest.mark.slow
def test_saved_weights_load_as_plain_tensors_and_rebuild_the_model(tmp_path, stem):
    path = tmp_path / "model.pt"
    model = build_resnet18(3, stem).to(memory_format=torch.channels_last)
    save_weights(model, path)
    state = torch.load(path, weights_only=True)
    assert all(tensor.is_contiguous() for tensor in state.values())
    loaded = load_weights(path)
    images = torch.rand(2, 1, 28, 28)
    assert torch.equal(loaded(images), build_resnet18(3, stem).eval()(images))


class Evil:
    def __reduce__(self):
        return (print, ("unpickled",))


@pytest.mark.parametrize("content", [b"", b"rubbish", pickle.dumps(Evil()), pickle.dumps({"conv1.weight": 1})])
def test_a_file_that_is_no_state_dict_is_refused_and_not_run(tmp_path, capsys, content):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"model\.pt: expected the state_dict"):
        load_weights(path)
    assert "unpickled" not in capsys.readouterr().out


def test_weights_of_another_model_and_a_missing_file_are_refused(tmp_path):
    path = tmp_path / "model.pt"
    with pytest.raises(DataError, match="cannot be read"):
        load_weights(path)
    with pytest.raises(DataError, match="found a folder, a pipe or a device"):
        load_weights(tmp_path)
    torch.save(resnet18(num_classes=10).state_dict(), path)
    with pytest.raises(DataError, match="found other tensors"):
        load_weights(path)
    torch.save([1, 2], path)
    with pytest.raises(DataError, match=r"no tensor conv1\.weight"):
        load_weights(path)


def test_a_file_cut_short_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    save_weights(build_resnet18(0), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match="found something else"):
        load_weights(path)
