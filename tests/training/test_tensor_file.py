"""A file from a stranger neither runs code nor takes more memory than its own size."""

import copy
import io
import zipfile

import pytest
import torch

from digit_search.errors import DataError
from digit_search.training import tensor_file
from digit_search.training.tensor_file import describe_problem, load_tensors, save_tensors


def saved(state: dict) -> bytes:
    file = io.BytesIO()
    save_tensors(state, file)
    return file.getvalue()


def archive(pickled: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as members:
        for name, content in (("data.pkl", pickled), ("byteorder", b"little"), ("version", b"3\n")):
            members.writestr(f"archive/{name}", content)
    return file.getvalue()


def test_tensors_and_plain_values_are_loaded_as_they_were_saved():
    state = {"weights": torch.arange(6.0).view(2, 3), "half": torch.ones(2).half(), "plain": [1, 2.5, None, "x", {"a": True}]}
    loaded = load_tensors(saved({**state, "parameter": torch.nn.Parameter(torch.ones(2))}))
    assert torch.equal(loaded["weights"], state["weights"])
    assert torch.equal(loaded["half"], state["half"])
    assert loaded["plain"] == state["plain"]
    assert torch.equal(loaded["parameter"], torch.ones(2))


@pytest.mark.parametrize("name", ["builtins bytearray", "os system", "torch Tensor", "torch.storage UntypedStorage"])
@pytest.mark.parametrize("opcode", [b"c", b"i"])
def test_a_reference_to_anything_but_tensors_is_refused(name, opcode):
    # torch 2.14.1 calls bytearray with any size, so a file of 400 bytes takes gigabytes.
    pickled = b"\x80\x02(J\x10\x00\x00\x00" + opcode + name.replace(" ", "\n").encode() + b"\n."
    with pytest.raises(DataError, match=f"found a reference to '{name}'"):
        load_tensors(archive(pickled))


def test_a_reference_by_names_on_the_stack_is_refused():
    with pytest.raises(DataError, match="found a reference to"):
        load_tensors(archive(b"\x80\x04\x8c\x08builtins\x8c\x09bytearray\x93."))


def test_a_record_that_the_directory_lists_twice_is_refused():
    content = io.BytesIO(saved({"weights": torch.zeros(10_000)}))
    with zipfile.ZipFile(content, "a") as members:
        record = next(member for member in members.infolist() if member.filename.endswith("/data/0"))
        twin = copy.copy(record)
        twin.filename = record.filename[:-1] + "1"
        members.filelist.append(twin)
        members.writestr("archive/last", b"")
    with pytest.raises(DataError, match="holds more than its own size"):
        load_tensors(content.getvalue())


def test_a_compressed_archive_is_refused():
    content = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved({"weights": torch.zeros(10_000)}))) as plain,
        zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(DataError, match="compressed"):
        load_tensors(content.getvalue())


def test_too_many_plain_values_are_refused(monkeypatch):
    content = saved({"plain": list(range(1000))})
    assert load_tensors(content)
    monkeypatch.setattr(tensor_file, "MAX_PICKLE_BYTES", 1000)
    with pytest.raises(DataError, match="that are not tensors"):
        load_tensors(content)


def test_a_tensor_that_cannot_replace_a_weight_is_described():
    expected = torch.zeros(2, 3)
    assert describe_problem(torch.ones(2, 3, dtype=torch.float64), expected) == ""
    assert describe_problem(1.0, expected) == "a float"
    assert describe_problem(torch.ones(3, 2), expected) == "the shape [3, 2] instead of [2, 3]"
    assert describe_problem(torch.full((2, 3), float("inf")), expected) == "a value that is no finite number"
    assert "torch.int64" in describe_problem(torch.ones(2, 3, dtype=torch.int64), expected)
