import json

import pytest

from warpbeam.transforms.storage import store
from warpbeam.transforms.storage.errors import InputError


@pytest.fixture(params=["path", "file", "memory"])
def root(request, tmp_path):
    if request.param == "memory":
        return f"memory://{tmp_path.name}"
    folder = tmp_path / "with space"
    return f"file://{tmp_path}/with%20space" if request.param == "file" else str(folder)


def test_json_comes_back(root):
    value = {"a": [1, 2.5, None], "ä": "ö"}
    store.write_json(store.join(root, "deep", "er", "x.json"), value)
    assert store.read_json(store.join(root, "deep/er/x.json")) == value


def test_what_is_not_there_reads_as_none(root):
    assert store.read_json(store.join(root, "x.json")) is None
    assert store.read_bytes(store.join(root, "x")) is None


def test_lock_files_of_a_killed_writer_are_not_listed(tmp_path):
    (tmp_path / "1.__lock").write_bytes(b"")
    store.write_bytes(str(tmp_path / "1"), b"1")
    assert store.list_keys(str(tmp_path)) == ["1"]


def test_lists_below_a_prefix_sorted(root):
    for key in ("b", "a/2", "a/1", "ab"):
        store.write_bytes(store.join(root, key), b"1")
    assert store.list_keys(root) == ["a/1", "a/2", "ab", "b"]
    assert store.list_keys(root, "a/") == ["a/1", "a/2"]
    assert store.list_keys(store.join(root, "a")) == ["1", "2"]


def test_deletes_a_prefix_and_nothing_else(root):
    for key in ("a/1", "a/2", "ab", "b"):
        store.write_bytes(store.join(root, key), b"1")
    store.delete_prefix(root, "a/")
    assert store.list_keys(root) == ["ab", "b"]


def test_exists_for_objects_and_folders(root):
    store.write_bytes(store.join(root, "a", "1"), b"1")
    assert store.exists(store.join(root, "a", "1"))
    assert store.exists(store.join(root, "a"))
    assert not store.exists(store.join(root, "a", "2"))
    assert not store.exists(store.join(root, "aa"))


def test_a_failed_write_leaves_the_old_value(root):
    place = store.join(root, "x.json")
    store.write_json(place, 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.write_json(place, float("nan"))
    assert store.read_json(place) == 1


def test_broken_json_names_the_file(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(InputError, match=r"x\.json"):
        store.read_json(str(tmp_path / "x.json"))


@pytest.mark.parametrize(
    ("uri", "parts", "expected"),
    [
        ("/a/", ("b", "/c/"), "/a/b/c"),
        ("/", ("a",), "/a"),
        ("gs://bucket", ("x", "y/z"), "gs://bucket/x/y/z"),
        ("memory://", ("a",), "memory://a"),
        ("a", (), "a"),
        ("a", ("",), "a"),
    ],
)
def test_join(uri, parts, expected):
    assert store.join(uri, *parts) == expected


def test_bucket_specs(monkeypatch):
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    gcs = {"driver": "gcs", "bucket": "b", "path": "x/y/"}
    assert store.kvstore_spec("gs://b/x/y") == gcs
    assert store.kvstore_spec("s3://b/x") == {"driver": "s3", "bucket": "b", "path": "x/"}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert store.kvstore_spec("s3://b") == {
        "driver": "s3",
        "bucket": "b",
        "path": "",
        "endpoint": "http://127.0.0.1:9",
        "aws_region": "us-east-1",
    }


def test_an_unknown_scheme_is_an_error_in_four_parts():
    with pytest.raises(InputError) as caught:
        store.open_kvstore("hdfs://a/b")
    assert "hdfs://" in caught.value.got
    assert "s3://" in caught.value.expected


def test_limits_are_set_once():
    store.context()
    store.configure(store._limits)
    with pytest.raises(ValueError, match="cache_bytes=1,"):
        store.configure(store.ContextLimits(cache_bytes=1))


def test_json_is_plain_text_on_disk(tmp_path):
    store.write_json(str(tmp_path / "x.json"), {"a": 1})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
