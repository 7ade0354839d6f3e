import itertools
import math
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.storage import volume
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.volume import (
    VolumeSpec,
    choose_levels,
    create,
    downsample,
    lengthen,
    open_volume,
)

FORMATS = ["zarr3", "zarr2", "n5", "precomputed"]
numbers = itertools.count()


def fresh():
    return f"memory://volumes/{next(numbers)}"


def noise(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        return rng.normal(0, 100, shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


def numpy_mean(array, factor):
    """Block means; integers are rounded half to even from exact sums."""
    total, count = array.astype(np.float64), np.ones(array.shape)
    for axis, f in enumerate(factor):
        starts = np.arange(0, array.shape[axis], f)
        total, count = (np.add.reduceat(a, starts, axis) for a in (total, count))
    mean = total / count
    return (np.rint(mean) if array.dtype.kind in "iu" else mean).astype(array.dtype)


def numpy_mode(array, factor):
    shape = [math.ceil(n / f) for n, f in zip(array.shape, factor, strict=True)]
    out = np.empty(shape, array.dtype)
    for index in np.ndindex(*shape):
        block = array[tuple(slice(i * f, i * f + f) for i, f in zip(index, factor, strict=True))]
        values, counts = np.unique(block, return_counts=True)
        out[index] = values[counts.argmax()]
    return out


def fill(volume, array):
    """Writes everything as a job does: shards with levels, then the levels above."""
    for index in volume.level(0).shard_grid.indices():
        box = volume.level(0).shard_grid.box(index)
        volume.write_with_levels(box, array[box.slices])
    for k in volume.spec.group_starts[1:]:
        for index in volume.level(k).shard_grid.indices():
            volume.build_shard(k, index)


def whole(volume, k):
    return volume.level(k).read(Box.of_shape(volume.level(k).shape))


@pytest.mark.parametrize("format", ["zarr3", "zarr2"])
@pytest.mark.parametrize("stopped", [False, True])
def test_a_volume_grows_in_time(tmp_path, format, stopped, monkeypatch):
    """Also where it was stopped on the way; what it held stays."""
    short = VolumeSpec(
        str(tmp_path / "v"), (2, 1, 1, 40, 48), "uint16", (1, 1, 1, 16, 16), (1, 1, 1, 32, 32),
        format, factors=((1, 2, 2),),
    )  # fmt: skip
    long = replace(short, shape=(5, *short.shape[1:]))
    first = noise(short.shape, "uint16")
    fill(create(short), first)
    before = [whole(open_volume(short.uri), k) for k in range(2)]
    if stopped:
        monkeypatch.setattr(volume, "write_json", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            lengthen(long)
        monkeypatch.undo()
    longer = lengthen(long)
    for k in range(2):
        found = whole(longer, k)
        np.testing.assert_array_equal(found[:2], before[k])
        assert found.shape[0] == 5
        assert not found[2:].any()
    fill(longer, np.concatenate([first, noise((3, *short.shape[1:]), "uint16", 1)]))
    assert whole(open_volume(short.uri), 1)[2:].all(axis=0).any()
    assert lengthen(long).spec == long
    for other in (short, replace(long, shape=(6, 1, 1, 44, 48)), replace(long, dtype="uint8")):
        with pytest.raises(InputError, match="the output exists"):
            lengthen(other)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint64", "float32"])
@pytest.mark.parametrize("channels", [1, 2])
def test_what_is_written_is_read(format, dtype, channels):
    # Two channels in one chunk make chunks of four axes, which TensorStore 0.1.86 loses when
    # it writes from the caller's array.
    shape, chunk = (1, channels, 5, 37, 50), (1, channels, 2, 8, 8)
    shard = (1, channels, 4, 16, 16)
    array = noise(shape, dtype)
    volume = create(VolumeSpec(fresh(), shape, dtype, chunk, shard, format=format))
    for index in volume.level(0).shard_grid.indices():
        box = volume.level(0).shard_grid.box(index)
        stored = volume.level(0).write_shards(box, array[box.slices])
        assert stored == array[box.slices].nbytes
    back = whole(open_volume(volume.spec.uri), 0)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.just(1), st.integers(1, 2), *3 * [st.integers(1, 23)]),
    chunk=st.tuples(*3 * [st.sampled_from([1, 2, 3, 4])]),
    times=st.tuples(*3 * [st.sampled_from([1, 2, 3, 4, 8])]),
    factors=st.lists(
        st.tuples(*3 * [st.integers(1, 3)]).filter(lambda f: max(f) > 1), min_size=1, max_size=3
    ),
    dtype=st.sampled_from(["uint8", "int16", "float32"]),
)
def test_pyramid_is_the_mean_of_the_level_below_for_any_shard(shape, chunk, times, factors, dtype):
    chunk5 = (1, 1, *chunk)
    shard = (1, 1, *(c * n for c, n in zip(chunk, times, strict=True)))
    array = noise(shape, dtype)
    volume = create(VolumeSpec(fresh(), shape, dtype, chunk5, shard, factors=tuple(factors)))
    fill(volume, array)
    for k, factor in enumerate(factors, 1):
        below = whole(volume, k - 1)
        expected = numpy_mean(below, (1, 1, *factor))
        if dtype == "float32":
            np.testing.assert_allclose(whole(volume, k), expected, rtol=1e-4, atol=1e-4)
        else:
            np.testing.assert_array_equal(whole(volume, k), expected)


@pytest.mark.parametrize(
    ("format", "dtype"), [*((f, "uint16") for f in FORMATS), ("zarr3", "float32")]
)
def test_the_volume_does_not_depend_on_the_shard(format, dtype):
    shape, chunk = (1, 1, 6, 75, 90), (1, 1, 2, 8, 8)
    factors = ((1, 2, 2), (2, 2, 2), (1, 2, 2))
    array = noise(shape, dtype)
    results, in_shard = [], []
    for shard in ((1, 1, 2, 8, 8), (1, 1, 4, 16, 32), (1, 1, 4, 64, 64)):
        spec = VolumeSpec(fresh(), shape, dtype, chunk, shard, format=format, factors=factors)
        volume = create(spec)
        fill(volume, array)
        results.append([whole(volume, k) for k in range(volume.levels)])
        in_shard.append(len(spec.group(0)) - 1)
    assert in_shard == [0, 1, 3]
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_levels_of_a_group_equal_those_built_from_the_store():
    shape, chunk, shard = (1, 1, 5, 61, 70), (1, 1, 2, 8, 8), (1, 1, 4, 32, 32)
    spec = VolumeSpec(fresh(), shape, "uint16", chunk, shard, factors=((1, 2, 2), (2, 2, 2)))
    assert spec.group_starts == (0,)
    volume = create(spec)
    fill(volume, noise(shape, "uint16"))
    for k in (1, 2):
        from_memory = whole(volume, k)
        for index in volume.level(k).shard_grid.indices():
            box = volume.level(k).shard_grid.box(index)
            volume.level(k).write_shards(box, np.zeros(box.shape, np.uint16))
        assert not whole(volume, k).any()
        for index in volume.level(k).shard_grid.indices():
            volume.build_shard(k, index)
        np.testing.assert_array_equal(whole(volume, k), from_memory)


def test_mode_keeps_labels():
    labels = np.random.default_rng(0).choice([0, 7, 2**40], (1, 1, 4, 9, 10)).astype(np.uint64)
    reduced = downsample(labels, (1, 1, 2, 3, 2), "mode")
    np.testing.assert_array_equal(reduced, numpy_mode(labels, (1, 1, 2, 3, 2)))


def test_level_shapes_and_shards():
    spec = VolumeSpec(
        "memory://x",
        (1, 1, 10, 1001, 999),
        "uint8",
        (1, 1, 4, 64, 64),
        (1, 1, 8, 256, 256),
        factors=((1, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2)),
    )
    assert [level.shape[2:] for level in spec.levels] == [
        (10, 1001, 999),
        (10, 501, 500),
        (5, 251, 250),
        (5, 126, 125),
        (5, 63, 63),
    ]
    # 256 / 2 / 2 = 64 is still a chunk; 32 is not, so level 3 takes the full shard again.
    assert spec.group_starts == (0, 3)
    assert [spec.group(k) for k in (0, 2, 3)] == [range(3), range(2, 3), range(3, 5)]
    assert [level.shard[2:] for level in spec.levels] == [
        (8, 256, 256),
        (8, 128, 128),
        (4, 64, 64),
        (8, 256, 256),
        (8, 128, 128),
    ]
    factors = [(1, 1, 1), (1, 2, 2), (2, 4, 4), (2, 8, 8), (2, 16, 16)]
    assert [level.factor for level in spec.levels] == factors


@settings(deadline=None)
@given(
    shape=st.tuples(*3 * [st.integers(1, 10**6)]),
    chunk=st.tuples(*3 * [st.integers(1, 512)]),
    voxel=st.tuples(*3 * [st.floats(0.01, 100)]),
)
def test_chosen_levels_end_in_one_chunk_and_never_add_anisotropy(shape, chunk, voxel):
    size, pitch = list(shape), list(voxel)
    for factor in choose_levels((1, 1, *shape), (1, 1, *chunk), voxel):
        long = [k for k in range(3) if size[k] > 1]
        before = max(pitch[k] for k in long) / min(pitch[k] for k in long)
        size = [math.ceil(n / f) for n, f in zip(size, factor, strict=True)]
        pitch = [p * f for p, f in zip(pitch, factor, strict=True)]
        after = max(pitch[k] for k in long) / min(pitch[k] for k in long)
        assert after <= max(before, 2 * math.sqrt(2))
    assert size[1] <= chunk[1]
    assert size[2] <= chunk[2]


def test_chosen_levels_take_the_finest_axes_first():
    factors = choose_levels((1, 1, 64, 4096, 4096), (1, 1, 16, 512, 512), (4.0, 1.0, 1.0))
    assert factors == ((1, 2, 2), (1, 2, 2), (2, 2, 2))
    assert choose_levels((1, 1, 1, 100, 900), (1, 1, 1, 64, 256), (1, 1, 1)) == ((1, 2, 2),) * 2


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        ((0, 0, 0, 0, 8), (1, 1, 2, 16, 32)),
        ((0, 0, 0, 0, 0), (1, 1, 2, 16, 20)),
        ((0, 0, 0, 0, 0), (1, 1, 2, 16, 64)),
        ((0, 0, 0, 0, -16), (1, 1, 2, 16, 16)),
    ],
)
def test_refuses_boxes_that_cut_a_shard(start, stop):
    volume = create(
        VolumeSpec(fresh(), (1, 1, 2, 40, 40), "uint8", (1, 1, 1, 8, 8), (1, 1, 2, 16, 16))
    )
    box = Box(start, stop)
    with pytest.raises(ValueError, match="not a union of whole shards") as caught:
        volume.level(0).write_shards(box, np.ones(box.shape, np.uint8))
    assert str(stop) in str(caught.value)
    assert "(1, 1, 2, 16, 16)" in str(caught.value)


def test_takes_several_shards_cut_at_the_edge():
    volume = create(
        VolumeSpec(fresh(), (1, 1, 2, 40, 40), "uint8", (1, 1, 1, 8, 8), (1, 1, 2, 16, 16))
    )
    box = Box((0, 0, 0, 16, 0), (1, 1, 2, 40, 40))
    volume.level(0).write_shards(box, np.full(box.shape, 3, np.uint8))
    assert whole(volume, 0).sum() == 3 * box.size


def test_refuses_an_array_that_does_not_fit():
    volume = create(
        VolumeSpec(fresh(), (1, 1, 1, 16, 16), "uint8", (1, 1, 1, 8, 8), (1, 1, 1, 16, 16))
    )
    box = Box.of_shape((1, 1, 1, 16, 16))
    for array in (np.ones((1, 1, 1, 16, 15), np.uint8), np.ones(box.shape, np.uint16)):
        with pytest.raises(ValueError, match="does not fill"):
            volume.level(0).write_shards(box, array)
    with pytest.raises(ValueError, match="not inside"):
        volume.level(0).read(Box.of_shape((1, 1, 1, 16, 17)))


def test_the_callers_array_may_change_after_the_write():
    shape = (1, 1, 1, 64, 64)
    volume = create(VolumeSpec(fresh(), shape, "uint16", (1, 1, 1, 16, 16), shape))
    array = noise(shape, "uint16")
    kept = array.copy()
    volume.level(0).write_shards(Box.of_shape(shape), array)
    array[:] = 0
    np.testing.assert_array_equal(whole(volume, 0), kept)


@pytest.mark.parametrize("format", FORMATS)
def test_chunks_of_fill_are_not_stored(tmp_path, format):
    shape, chunk, shard = (1, 1, 1, 64, 64), (1, 1, 1, 16, 16), (1, 1, 1, 32, 32)
    volume = create(VolumeSpec(str(tmp_path), shape, "uint16", chunk, shard, format=format))
    array = np.zeros(shape, np.uint16)
    array[..., 40, 40] = 1
    before = set(tmp_path.rglob("*"))
    fill(volume, array)
    assert len([p for p in set(tmp_path.rglob("*")) - before if p.is_file()]) == 1


def test_fill_value_reads_where_nothing_was_written():
    spec = VolumeSpec(fresh(), (1, 1, 1, 9, 9), "int16", (1, 1, 1, 4, 4), (1, 1, 1, 8, 8), fill=-5)
    assert (whole(create(spec), 0) == -5).all()


@pytest.mark.parametrize("format", FORMATS)
def test_create_again_changes_nothing(tmp_path, format):
    shape = (1, 1, 1, 32, 32)
    spec = VolumeSpec(
        str(tmp_path / "v"), shape, "uint8", (1, 1, 1, 8, 8), (1, 1, 1, 16, 16), format=format
    )
    array = noise(shape, "uint8")
    fill(create(spec), array)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    again = create(spec)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    np.testing.assert_array_equal(whole(again, 0), array)


def test_create_over_another_volume_names_what_differs(tmp_path):
    place = str(tmp_path / "v")
    spec = VolumeSpec(place, (1, 1, 1, 32, 32), "uint8", (1, 1, 1, 8, 8), (1, 1, 1, 16, 16))
    create(spec)
    other = VolumeSpec(place, (1, 1, 1, 32, 32), "uint16", (1, 1, 1, 8, 8), (1, 1, 1, 16, 16))
    with pytest.raises(InputError, match="dtype uint8 instead of uint16"):
        create(other)


def test_create_over_foreign_data_is_refused(tmp_path):
    zarr.open_group(tmp_path / "v", mode="w")
    spec = VolumeSpec(
        str(tmp_path / "v"), (1, 1, 1, 8, 8), "uint8", (1, 1, 1, 8, 8), (1, 1, 1, 8, 8)
    )
    with pytest.raises(InputError, match="another program"):
        create(spec)


def test_create_completes_what_a_killed_run_began(tmp_path):
    spec = VolumeSpec(
        str(tmp_path / "v"), (1, 1, 1, 8, 8), "uint8", (1, 1, 1, 8, 8), (1, 1, 1, 8, 8)
    )
    create(spec)
    (tmp_path / "v" / "zarr.json").unlink()
    with pytest.raises(InputError, match="no volume to open"):
        open_volume(spec.uri)
    assert create(spec) == open_volume(spec.uri)


def test_open_finds_the_spec_after_a_move(tmp_path):
    spec = VolumeSpec(
        str(tmp_path / "v"), (1, 1, 1, 8, 8), "uint8", (1, 1, 1, 4, 4), (1, 1, 1, 8, 8)
    )
    array = noise(spec.shape, "uint8")
    fill(create(spec), array)
    moved = Path(spec.uri).rename(tmp_path / "w")
    np.testing.assert_array_equal(whole(open_volume(str(moved)), 0), array)


def test_a_volume_pickles_small():
    spec = VolumeSpec(fresh(), (1, 1, 1, 8, 8), "uint8", (1, 1, 1, 4, 4), (1, 1, 1, 8, 8))
    volume = create(spec)
    volume.level(0)
    assert pickle.loads(pickle.dumps(volume)) == volume
    assert len(pickle.dumps(volume)) < 2000


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"format": "tiff"}, "format"),
        ({"format": "zarr2", "ngff": "0.5"}, "ngff"),
        ({"dtype": "float64"}, "dtype"),
        ({"unit": "um"}, "unit"),
        ({"format": "n5", "fill": 1}, "fill"),
        ({"format": "precomputed", "shape": (2, 1, 4, 8, 8)}, "one time point"),
        ({"shard": (1, 1, 4, 8, 12)}, "multiple"),
        ({"voxel": (1.0, 0.0, 1.0)}, "positive"),
        ({"channels": ("a", "b")}, "2 names"),
        ({"factors": ((1, 1, 1),)}, "reduced"),
    ],
)
def test_specs_that_cannot_be_are_refused(changed, match):
    good = {
        "uri": "memory://x",
        "shape": (1, 1, 4, 8, 8),
        "dtype": "uint8",
        "chunk": (1, 1, 4, 8, 8),
        "shard": (1, 1, 4, 8, 8),
    }
    VolumeSpec(**good)
    with pytest.raises(ValueError, match=match):
        VolumeSpec(**(good | changed))


@pytest.mark.parametrize("format", ["zarr3", "zarr2"])
@pytest.mark.parametrize("dtype", ["uint16", "int8", "float32"])
def test_zarr_python_reads_the_same(tmp_path, format, dtype):
    shape = (2, 2, 3, 45, 50)
    spec = VolumeSpec(
        str(tmp_path),
        shape,
        dtype,
        (1, 1, 2, 8, 8),
        (1, 1, 2, 16, 16),
        format=format,
        factors=((1, 2, 2),),
    )
    array = noise(shape, dtype)
    volume = create(spec)
    fill(volume, array)
    group = zarr.open_group(tmp_path, mode="r")
    np.testing.assert_array_equal(group["0"][:], array)
    np.testing.assert_array_equal(group["1"][:], whole(volume, 1))
    assert group["0"].chunks == (1, 1, 2, 8, 8)
    if format == "zarr3":
        assert group["0"].shards == (1, 1, 2, 16, 16)


def test_one_shard_is_one_object(tmp_path):
    shape = (1, 1, 1, 64, 64)
    volume = create(VolumeSpec(str(tmp_path), shape, "uint8", (1, 1, 1, 8, 8), (1, 1, 1, 32, 32)))
    box = volume.level(0).shard_grid.box((0, 0, 0, 1, 1))
    volume.level(0).write_shards(box, noise(box.shape, "uint8"))
    files = [
        p.relative_to(tmp_path).as_posix() for p in (tmp_path / "0" / "c").rglob("*") if p.is_file()
    ]
    assert files == ["0/c/0/0/0/1/1"]


def test_tensorstore_rounds_half_to_even_as_the_convention_says():
    array = np.array([0, 1, 1, 2, 2, 3, 254, 255], np.uint8).reshape(1, 1, 1, 1, 8)
    assert downsample(array, (1, 1, 1, 1, 2), "mean").ravel().tolist() == [0, 2, 2, 254]
