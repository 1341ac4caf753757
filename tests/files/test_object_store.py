"""Places in a store: named safely, written whole, asked again when the network fails, and told of in plain words."""

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
def test_a_uri_that_names_no_folder_in_a_store_is_refused(text):
    with pytest.raises(RunFolderError, match="expected a folder in a bucket"):
        parse_location(text)


def test_an_unknown_store_is_refused_with_those_that_there_are():
    with pytest.raises(RunFolderError, match="expected a folder, or a URI that begins with s3://, gs://, file://"):
        parse_location("ftp://host/x")


def test_credentials_in_a_uri_are_refused_and_not_repeated():
    with pytest.raises(RunFolderError, match="expected no credentials") as refused:
        parse_location("s3://key:secret@bucket/x")
    assert "secret" not in str(refused.value)


def test_a_folder_is_a_path_and_a_uri_keeps_its_options_behind_every_name():
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


def test_a_file_of_a_name_with_blanks_is_found_again(tmp_path):
    place = parse_location(f"file://{tmp_path}/my%20results")
    place.put("a", b"1")
    assert (tmp_path / "my results" / "a").read_bytes() == b"1"


def test_a_network_that_fails_for_a_moment_is_asked_again(store):
    place = Remote(store.uri("run"))
    store.failures_left = 2
    place.put("a", b"1")
    assert place.get("a", 1) == b"1"


def test_a_network_that_is_gone_is_one_clear_error(store):
    place = Remote(store.uri("run"))
    store.failures_left = 3
    with pytest.raises(StorageError, match=r"s3://bucket/run/a: cannot be written: AWS Error NETWORK_CONNECTION.* See that the network"):
        place.put("a", b"1")


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError("AWS Error ACCESS_DENIED during HeadObject operation"), "See that this machine has the credentials"),
        (PermissionError("Forbidden"), "See that this machine has the credentials"),
        (OSError("AWS Error NO_SUCH_BUCKET during CreateMultipartUpload operation"), "Make the bucket"),
        (pa.ArrowInvalid("Unexpected query parameter in S3 URI: 'foo'"), "Mend the URI"),
    ],
)
def test_what_another_try_would_not_change_is_told_at_once_with_what_to_do(monkeypatch, error, advice):
    tries = []

    def connect(uri):
        tries.append(uri)
        raise error

    monkeypatch.setattr(object_store, "connect", connect)
    with pytest.raises(StorageError, match=advice):
        Remote("s3://bucket/run").files()
    assert len(tries) == 1


def options_for_s3() -> tuple[dict, str]:
    """The client's options, and the path that it works on."""
    filesystem, path = object_store.connect("s3://bucket/results/run?endpoint_override=127.0.0.1:9&scheme=http&region=eu-west-1")
    _, (options,) = filesystem.__reduce__()
    return options, path


def test_a_request_to_an_s3_server_that_is_gone_is_given_up_in_seconds_not_minutes():
    options, path = in_own_process(options_for_s3)
    assert path == "bucket/results/run"
    assert (options["endpoint_override"], options["scheme"], options["region"]) == ("127.0.0.1:9", "http", "eu-west-1")
    assert options["allow_delayed_open"]
    assert 0 < options["connect_timeout"] <= 10
    assert 0 < options["request_timeout"] <= 60
