"""Untrusted files: settings and weights of any content give a result or an error of this package, which never unpickles."""

import ast
import io
import pickle
import struct
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from digit_search.config.loading import load_settings, to_toml, to_tree
from digit_search.config.settings import RunSettings
from digit_search.errors import ConfigError, DataError
from digit_search.run.checkpoints import LocalCheckpoints
from digit_search.training.checkpoint import load_checkpoint, save_checkpoint
from digit_search.training.model import build_resnet18, load_weights, save_weights

ROOT = Path(__file__).parents[1]
UNPICKLERS = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "ray.cloudpickle"}
OURS = [ROOT / "tune_main.py", *sorted((ROOT / "digit_search").rglob("*.py"))]


# The package's own code


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_package_never_unpickles_a_file(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)] if isinstance(node, ast.ImportFrom) else []
        assert not [name for name in names if name in UNPICKLERS or name.split(".")[0] in UNPICKLERS], ast.unparse(node)
        if isinstance(node, ast.Call):
            options = {option.arg: ast.unparse(option.value) for option in node.keywords}
            called = ast.unparse(node.func)
            assert called != "torch.load" or options.get("weights_only") == "True", ast.unparse(node)
            assert options.get("allow_pickle", "False") == "False", ast.unparse(node)
            assert called.rpartition(".")[2] not in ("read_pickle", "Unpickler"), ast.unparse(node)


# Settings

KNOWN_KEYS = sorted(
    {
        ".".join(keys)
        for keys in (
            ("seed",),
            *((name, key) for name, table in to_tree(RunSettings()).items() if isinstance(table, dict) for key in table),
        )
    }
)
SPACE_KEYS = [
    f"search.space.{name}{key}"
    for name in ("lr", "gamma", "step_size", "stem", "x")
    for key in ("", ".low", ".high", ".log", ".when", ".choices")
]
KEYS = st.sampled_from(
    [*KNOWN_KEYS, *SPACE_KEYS, "search.asha.max_epochs", "search.asha.grace_epochs", "search.asha.reduction_factor", "search.points"]
)
NUMBERS = st.integers() | st.floats() | st.sampled_from([0, 1, -1, 10**30, 10**400, 1e308, 5e-324, 2**63])
SIMPLE = NUMBERS | st.booleans() | st.text(max_size=8) | st.sampled_from(["auto", "30m", "9" * 400 + "h", "sample", "small"])
VALUES = st.recursive(
    SIMPLE,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["lr", "low", "high", "choices", "when", "log"]), inner, max_size=3)
    ),
)


def loaded_or_refused(*arguments) -> RunSettings | None:
    """The settings, which can be written and read again, or None if they are refused with a message."""
    refusal = ""
    try:
        found = load_settings(*arguments)
    except ConfigError as error:
        found, refusal = None, str(error)
    assert (found is None) == bool(refusal.strip())
    assert "Input should" not in refusal
    assert len(refusal) < 20_000
    return found and tomllib.loads(to_toml(found)) and found


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=200) | st.text("[]{}=.\"'#\n_-0123456789eTZ:abcseedrch ", max_size=200).map(str.encode))
def test_any_bytes_as_configuration_are_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(content)
    loaded_or_refused(path)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_damaged_configuration_is_read_or_refused(tmp_path_factory, data):
    content = (ROOT / "configs" / "default.toml").read_bytes()
    start, length = data.draw(st.integers(0, len(content))), data.draw(st.integers(0, 40))
    path = tmp_path_factory.getbasetemp() / "damaged.toml"
    path.write_bytes(content[:start] + data.draw(st.binary(max_size=20)) + content[start + length :])
    loaded_or_refused(path)


@settings(max_examples=150, deadline=None)
@given(flags=st.dictionaries(KEYS, VALUES, max_size=4))
@pytest.mark.slow
def test_any_value_of_any_setting_is_accepted_or_refused(flags):
    found = loaded_or_refused(None, (), flags)
    assert found is None or load_settings(None, (), flags) == found


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(st.text(max_size=30) | st.builds("{}={}".format, KEYS, st.text(max_size=20) | NUMBERS), max_size=3))
def test_any_assignment_is_accepted_or_refused(texts):
    loaded_or_refused(None, texts)


@pytest.mark.parametrize(
    "content",
    [
        b"a = " + b"[" * 5000,
        b"a = " + b"{a=" * 5000,
        b".".join([b"a"] * 20_000) + b" = 1",
        b"seed = " + b"9" * 5000,
        b"[search]\npoints = [" + b"[" * 50 + b"]" * 50 + b"]",
        b"search.samples = 1" + b"0" * 300,
        b"search.space.lr.low = 1" + b"0" * 400,
        b"[search.space.step_size]\nhigh = 7\nlow = 1" + b"0" * 400,
        b"[search.space.step_size]\nlog = true\nhigh = 7\nlow = -1" + b"0" * 400,
        b"search.space.batch_size = 1" + b"0" * 400,
    ],
)
def test_absurd_settings_are_refused(tmp_path, content):
    path = tmp_path / "absurd.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"absurd\.toml"):
        load_settings(path)


# Weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    save_weights(build_resnet18(0), path)
    return path.read_bytes()


def refused(path: Path) -> str:
    """Why weights are refused; "" if they are not. Other errors than DataError fail the test."""
    try:
        load_weights(path)
    except DataError as error:
        return str(error).removeprefix(f"{path}: expected the state_dict")
    return ""


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=200), prefix=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"PK\x05\x06" + bytes(18)]))
def test_any_bytes_as_weights_are_refused(tmp_path_factory, content, prefix):
    path = tmp_path_factory.getbasetemp() / "any.pt"
    path.write_bytes(prefix + content)
    assert refused(path)


def small_file(state: object) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


SMALL_FILE = small_file({"conv1.weight": torch.zeros(64, 1, 7, 7)})


@settings(max_examples=150, deadline=None)
@given(data=st.data())
@pytest.mark.slow
def test_a_damaged_small_file_of_tensors_is_refused(tmp_path_factory, data):
    content = bytearray(SMALL_FILE)
    for _ in range(data.draw(st.integers(1, 8))):
        # Most of the file is the tensor's zeros; the structure is at both ends.
        place = data.draw(st.integers(0, 1500) | st.integers(-1500, -1)) % len(content)
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "small.pt"
    path.write_bytes(content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))])
    assert refused(path)


def pickled_call(name: str, arguments: bytes) -> bytes:
    """A pickle that calls the function of that dotted name."""
    return b"\x80\x02c" + "\n".join(name.rsplit(".", 1)).encode() + b"\n" + arguments + b"R."


CALLS = [
    "os.system",
    "builtins.eval",
    "builtins.bytearray",
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor_v2",
    "torch.storage._load_from_bytes",
]


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(CALLS), text=st.text("abc;(){}0123", max_size=12), tail=st.binary(max_size=20), record=st.binary(max_size=64))
def test_a_zip_with_any_pickle_is_refused_and_nothing_in_it_runs(tmp_path_factory, name, text, tail, record):
    argument = b"(X" + struct.pack("<I", len(text)) + text.encode() + b"t"
    path = tmp_path_factory.getbasetemp() / "odd.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled_call(name, argument) + tail)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data/0", record)
    assert refused(path)


STRANGE_TENSORS = {
    "shape": torch.zeros(64, 1, 7, 8),
    "huge and expanded": torch.zeros(1).expand(10**6, 10**6, 7, 7),
    "integers": torch.zeros(64, 1, 7, 7, dtype=torch.int64),
    "complex": torch.zeros(64, 1, 7, 7, dtype=torch.complex64),
    "truth": torch.zeros(64, 1, 7, 7, dtype=torch.bool),
    "meta": torch.zeros(64, 1, 7, 7, device="meta"),
    "sparse": torch.zeros(64, 1, 7, 7).to_sparse(),
    "nan": torch.full((64, 1, 7, 7), float("nan")),
    "no tensor": [1.0],
}


@pytest.mark.parametrize("strange", STRANGE_TENSORS)
def test_one_strange_tensor_is_refused(tmp_path, strange):
    path = tmp_path / "model.pt"
    state = build_resnet18(0).state_dict() | {"conv1.weight": STRANGE_TENSORS[strange]}
    torch.save(dict(state), path)
    assert refused(path)


@settings(max_examples=100, deadline=None)
@given(
    state=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.builds(torch.zeros, st.lists(st.integers(0, 3), max_size=3)),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["conv1.weight", "fc.bias", "x", "reports"]), inner, max_size=3)
        ),
        max_leaves=6,
    )
)
@pytest.mark.slow
def test_any_values_instead_of_weights_or_a_checkpoint_are_refused(tmp_path_factory, state):
    folder = tmp_path_factory.getbasetemp() / "values"
    folder.mkdir(exist_ok=True)
    (folder / "model.pt").write_bytes(small_file(state))
    assert refused(folder / "model.pt")
    if isinstance(state, dict):
        save_checkpoint(LocalCheckpoints(folder), 0, state)
        found = load_checkpoint(LocalCheckpoints(folder))
        assert found is None or type(found["reports"]) is int


def test_truncated_and_compressed_weights_are_refused(tmp_path, weights):
    path = tmp_path / "model.pt"
    for length in (0, 1, 100, len(weights) // 2, len(weights) - 1):
        path.write_bytes(weights[:length])
        assert refused(path)
    with zipfile.ZipFile(io.BytesIO(weights)) as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for member in plain.namelist()[:3]:
            packed.writestr(member, plain.read(member))
    assert "compressed" in refused(path)


def test_weights_in_half_precision_are_accepted(tmp_path):
    state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in build_resnet18(0).state_dict().items()}
    torch.save(state, tmp_path / "model.pt")
    assert not refused(tmp_path / "model.pt")


def test_a_pickle_without_an_archive_is_refused(tmp_path):
    (tmp_path / "model.pt").write_bytes(pickle.dumps({"conv1.weight": 1}))
    assert "File is not a zip file" in refused(tmp_path / "model.pt")
