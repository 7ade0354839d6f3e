import itertools
import json

import numpy as np
import pytest
import tensorstore as ts
from hypothesis import given, settings
from hypothesis import strategies as st

from warpbeam.transforms.storage.precomputed import shard_bits
from warpbeam.transforms.storage.volume import VolumeSpec, create


def chunk_number(position, grid):
    """Compressed Morton code by its definition: interleave x, y, z bits that the grid needs."""
    code, out = 0, 0
    for bit in range(64):
        for axis, n in enumerate(grid):
            if 2**bit < n:
                code |= (position[axis] >> bit & 1) << out
                out += 1
    return code


@settings(deadline=None)
@given(
    grid=st.tuples(*3 * [st.integers(1, 5)]),
    per_shard=st.tuples(*3 * [st.sampled_from([1, 2, 3, 4, 8, 16])]),
)
def test_shard_bits_are_those_that_make_shards_boxes(grid, per_shard):
    positions = list(itertools.product(*map(range, grid)))
    numbers = [chunk_number(p, grid) for p in positions]
    wanted = [tuple(i // s for i, s in zip(p, per_shard, strict=True)) for p in positions]

    def is_box(bits):
        """Whether chunks share a run of numbers exactly where they share a box."""
        pairs = {(number >> bits, box) for number, box in zip(numbers, wanted, strict=True)}
        return len(pairs) == len({run for run, _ in pairs}) == len(set(wanted))

    found = shard_bits(grid, per_shard)
    assert (found is not None) == any(map(is_box, range(10)))
    assert found is None or is_box(found)


def make(tmp_path, **changed):
    settings = {
        "uri": str(tmp_path),
        "shape": (1, 1, 4, 100, 130),
        "dtype": "uint16",
        "chunk": (1, 1, 1, 16, 16),
        "shard": (1, 1, 1, 64, 64),
        "format": "precomputed",
        "voxel": (2.0, 0.5, 0.25),
        "unit": "micrometer",
        "factors": ((1, 2, 2), (2, 2, 2)),
    }
    spec = VolumeSpec(**(settings | changed))
    array = np.random.default_rng(0).integers(1, 60000, spec.shape).astype(np.uint16)
    volume = create(spec)
    for index in volume.level(0).shard_grid.indices():
        box = volume.level(0).shard_grid.box(index)
        volume.write_with_levels(box, array[box.slices])
    return array, json.loads((tmp_path / "info").read_text())


def read(folder, scale=0):
    """An independent read: x, y, z, channel, from the corner of the volume on."""
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": f"{folder}/"},
        "scale_index": scale,
    }
    return ts.open(spec, open=True).result()


def test_info_has_the_scales_in_nanometres_and_xyz(tmp_path):
    array, info = make(tmp_path)
    assert [s["size"] for s in info["scales"]] == [[130, 100, 4], [65, 50, 4], [33, 25, 2]]
    assert info["scales"][0]["resolution"] == pytest.approx([250, 500, 2000])
    assert info["scales"][2]["resolution"] == pytest.approx([1000, 2000, 4000])
    assert info["type"] == "image"
    np.testing.assert_array_equal(read(tmp_path).read().result(), array[0].transpose(3, 2, 1, 0))


def test_unsharded_where_the_shard_is_no_piece_of_the_curve(tmp_path):
    # Four slices are two bits of z among the low ones: 4 x 4 x 1 chunks are no run.
    _, info = make(tmp_path)
    assert "sharding" not in info["scales"][0]
    assert (tmp_path / "s0" / "0-16_0-16_0-1").stat().st_size == 512


def test_sharded_where_it_is(tmp_path):
    array, info = make(tmp_path, shape=(1, 1, 1, 100, 130), factors=())
    assert info["scales"][0]["sharding"]["@type"] == "neuroglancer_uint64_sharded_v1"
    shards = [p for p in (tmp_path / "s0").iterdir() if p.suffix == ".shard"]
    assert len(shards) == 2 * 3
    assert read(tmp_path).chunk_layout.write_chunk.shape == (64, 64, 1, 1)
    np.testing.assert_array_equal(read(tmp_path).read().result(), array[0].transpose(3, 2, 1, 0))


def test_several_channels_lie_in_one_chunk(tmp_path):
    several = {"shape": (1, 3, 4, 40, 40), "chunk": (1, 3, 2, 16, 16), "shard": (1, 3, 4, 32, 32)}
    array, info = make(tmp_path, **several)
    assert info["num_channels"] == 3
    np.testing.assert_array_equal(read(tmp_path).read().result(), array[0].transpose(3, 2, 1, 0))


def test_origin_is_the_offset_where_all_levels_can_hold_it(tmp_path):
    _, info = make(tmp_path / "a", origin=(4.0, -8.0, 12.0))
    assert [s["voxel_offset"] for s in info["scales"]] == [[12, -8, 4], [6, -4, 4], [3, -2, 2]]
    assert read(tmp_path / "a", 2).domain.origin[:3] == (3, -2, 2)
    _, info = make(tmp_path / "b", origin=(4.5, -8.0, 13.0))
    assert {tuple(s["voxel_offset"]) for s in info["scales"]} == {(0, 0, 0)}
    assert info["warpbeam"]["origin"] == [4.5, -8.0, 13.0]


def test_labels_are_a_segmentation(tmp_path):
    _, info = make(tmp_path, method="mode")
    assert info["type"] == "segmentation"
