"""Keys travel as bytes that are the same on every worker."""

import pickle
import subprocess
import sys

import apache_beam as beam
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st
from running import environment

from warpbeam.transforms.keys import KeyCoder, MontageKey, ShardKey, TileKey

indices = st.integers(-(2**40), 2**40)
tiles = st.builds(TileKey, indices, indices, st.text())
shards = st.builds(ShardKey, st.integers(0, 9), st.tuples(indices, indices, indices))


@given(st.one_of(tiles, shards, st.builds(MontageKey, indices, indices)))
def test_round_trip(key):
    coder = beam.coders.registry.get_coder(type(key))
    assert isinstance(coder, KeyCoder)
    assert coder.is_deterministic()
    back = coder.decode(coder.encode(key))
    assert back == key
    assert type(back) is type(key)
    assert hash(back) == hash(key)
    assert pickle.loads(pickle.dumps(key)) == key


@given(tiles, tiles)
def test_different_keys_have_different_bytes(a, b):
    coder = KeyCoder(TileKey)
    assert (coder.encode(a) == coder.encode(b)) == (a == b)


def test_another_process_encodes_the_same():
    key = ShardKey(2, (0, 1, 2, 3, 4))
    code = (
        "from warpbeam.transforms.keys import *; import sys;"
        "sys.stdout.buffer.write(KeyCoder(ShardKey).encode(ShardKey(2, (0, 1, 2, 3, 4))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment(), "PYTHONHASHSEED": "7"}, capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout == KeyCoder(ShardKey).encode(key)


def test_grouping_by_key_goes_through_the_coder():
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        keyed = (
            pipeline
            | beam.Create(
                [(TileKey(0, 1, "é"), 1), (TileKey(0, 1, "é"), 2), (TileKey(0, 2, ""), 3)]
            )
            | beam.Map(lambda kv: kv).with_output_types(tuple[TileKey, int])
        )
        grouped = keyed | beam.GroupByKey() | beam.MapTuple(lambda k, v: (k, sorted(v)))
        assert_that(grouped, equal_to([(TileKey(0, 1, "é"), [1, 2]), (TileKey(0, 2, ""), [3])]))
