"""Folders in a store: safe names, whole files, another try after an error of the network, and clear messages."""

from pathlib import Path

import pyarrow as pa
import pytest

from digit_search.errors import RunFolderError, StorageError
from digit_search.files import object_store
from digit_search.files.object_store import Remote, parse_location
from tests.own_process import in_own_process


@pytest.mark.parametrize(
    "text",
    ["s3://bucket", "s3:///x", "s3://b/../x", "s3://b/a/./x", "s3://b/a%2F..", "s3://b//x", "s3://b/x#f", "file://host/x", "file:///"],
)
def test_a_uri_of_something_else_than_a_folder_in_a_store_is_refused(text):
    with pytest.raises(RunFolderError, match="expected a folder in a bucket"):
        parse_location(text)


def test_an_unknown_kind_of_store_is_refused_and_the_known_ones_are_named():
    with pytest.raises(RunFolderError, match="expected a folder, or a URI that begins with s3://, gs://, file://"):
        parse_location("ftp://host/x")


def test_credentials_in_a_uri_are_refused_and_not_repeated():
    with pytest.raises(RunFolderError, match="expected no credentials") as refused:
        parse_location("s3://key:secret@bucket/x")
    assert "secret" not in str(refused.value)


def test_a_local_folder_is_a_path_and_a_uri_keeps_its_options_in_every_subfolder():
    assert parse_location("results") == Path("results")
    place = parse_location("s3://bucket/results/?scheme=http").child("run")
    assert (place.uri, place.name) == ("s3://bucket/results/run?scheme=http", "run")
    assert place.display_uri("trials.csv") == "s3://bucket/results/run/trials.csv"
    assert place.split() == (Remote("s3://bucket/results?scheme=http"), "run")


def test_files_are_written_read_listed_and_deleted(tmp_path):
    place = parse_location(f"file://{tmp_path}/results/run")
    assert place.files() == {}
    assert place.get("a", 10) is None
    place.put("a", b"old")
    place.put("a", b"new")
    (tmp_path / "local").write_bytes(b"0123456789")
    place.upload(tmp_path / "local", "below/b", max_bytes=4)
    assert {name: seen.size for name, seen in place.files().items()} == {"a": 3, "below/b": 4}
    assert place.get("a", 3) == b"new"
    assert place.download("below/b", tmp_path / "back" / "b", 4)
    assert (tmp_path / "back" / "b").read_bytes() == b"0123"
    assert not place.download("c", tmp_path / "back" / "c", 4)
    place.delete("a")
    place.delete("a")
    assert list(place.files()) == ["below/b"]
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["b", "b", "local"]


def test_a_file_beyond_its_limit_is_refused(tmp_path):
    place = parse_location(f"file://{tmp_path}")
    place.put("a", b"1234")
    with pytest.raises(StorageError, match=r"/a: expected at most 3 bytes, found more"):
        place.get("a", 3)


def test_a_uri_may_have_escaped_blanks(tmp_path):
    place = parse_location(f"file://{tmp_path}/my%20results")
    place.put("a", b"1")
    assert (tmp_path / "my results" / "a").read_bytes() == b"1"


def test_a_request_is_repeated_when_the_network_fails_for_a_moment(store):
    place = Remote(store.uri("run"))
    store.failures_left = 2
    place.put("a", b"1")
    assert place.get("a", 1) == b"1"


def test_a_network_that_stays_away_is_one_clear_error(store):
    place = Remote(store.uri("run"))
    store.failures_left = 3
    with pytest.raises(StorageError, match=r"s3://bucket/run/a: cannot be written: AWS Error NETWORK_CONNECTION.* Check the network"):
        place.put("a", b"1")


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError("AWS Error ACCESS_DENIED during HeadObject operation"), "Check that this machine has the credentials"),
        (PermissionError("Forbidden"), "Check that this machine has the credentials"),
        (OSError("AWS Error NO_SUCH_BUCKET during CreateMultipartUpload operation"), "Create the bucket"),
        (pa.ArrowInvalid("Unexpected query parameter in S3 URI: 'foo'"), "Fix the URI"),
    ],
)
def test_an_error_that_another_try_would_not_change_is_raised_at_once_with_advice(monkeypatch, error, advice):
    tries = []

    def connect(uri):
        tries.append(uri)
        raise error

    monkeypatch.setattr(object_store, "connect", connect)
    with pytest.raises(StorageError, match=advice):
        Remote("s3://bucket/run").files()
    assert len(tries) == 1


def s3_connection() -> tuple[str, bool, bool]:
    """The path of a connection to S3, and whether it equals one made by hand, with and without the timeouts."""
    from pyarrow.fs import S3FileSystem

    filesystem, path = object_store.connect("s3://bucket/results/run?endpoint_override=127.0.0.1:9&scheme=http&region=eu-west-1")
    options = {"endpoint_override": "127.0.0.1:9", "scheme": "http", "region": "eu-west-1", "allow_delayed_open": True}
    with_timeouts = S3FileSystem(**options, connect_timeout=5, request_timeout=15)
    return path, filesystem == with_timeouts, filesystem == S3FileSystem(**options)


def test_a_connection_to_s3_has_the_options_of_its_uri_and_timeouts_of_seconds():
    path, equals_one_with_timeouts, equals_one_without = in_own_process(s3_connection)
    assert path == "bucket/results/run"
    assert equals_one_with_timeouts
    assert not equals_one_without


def unknown_s3_option() -> str:
    try:
        object_store.connect("s3://bucket/run?region=eu-west-1&tls=off")
    except ValueError as error:
        return str(error)
    return ""


def test_an_unknown_option_of_s3_is_refused():
    assert "Unexpected query parameter in S3 URI: 'tls'" in in_own_process(unknown_s3_option)
