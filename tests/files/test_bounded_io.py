"""A file that a stranger wrote is read up to a limit, and a pipe is not waited for."""

import os
from pathlib import Path

import pytest

from digit_search.files.bounded_io import MAX_DOTS_A_LINE, is_nested_beyond, parse_json, parse_toml, read_bounded


def test_a_file_is_read_as_it_is(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"a\r\n\x1ab")
    assert read_bounded(path, 5) == b"a\r\n\x1ab"


def test_a_file_beyond_its_limit_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"1234")
    assert read_bounded(path, 4) == b"1234"
    with pytest.raises(OSError, match="expected at most 3 bytes, found more"):
        read_bounded(path, 3)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs a file that is longer than its size says, as Linux has in /proc")
def test_a_file_that_grows_while_it_is_read_is_refused_beyond_its_limit():
    assert Path("/proc/self/status").stat().st_size == 0
    with pytest.raises(OSError, match="expected at most 3 bytes, found more"):
        read_bounded(Path("/proc/self/status"), 3)


def test_a_pipe_a_device_and_a_folder_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError, match="expected a file, found a folder, a pipe or a device"):
            read_bounded(path, 10)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"9" * 21, b"NaN", b"-Infinity", b"{", b"\xff"])
def test_json_that_is_too_deep_or_too_long_or_not_strict_is_refused(content):
    with pytest.raises(ValueError):  # noqa: PT011
        parse_json(content)


def test_json_may_have_the_largest_integers_of_64_bits():
    assert parse_json(b"[18446744073709551615, 1.5]") == [2**64 - 1, 1.5]


def test_toml_with_a_very_long_dotted_key_or_deep_nesting_is_refused():
    assert parse_toml("a.b = 1") == {"a": {"b": 1}}
    with pytest.raises(ValueError, match="more than 200 dots in line 2; break the line"):
        parse_toml("x = 1\n" + "a." * (MAX_DOTS_A_LINE + 1) + "b = 1")
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_toml("x = " + "[" * 10_000)


def test_the_depth_of_tables_and_lists_is_counted():
    tree = {"a": [{"b": 1}]}
    assert is_nested_beyond(tree, 2)
    assert not is_nested_beyond(tree, 3)
