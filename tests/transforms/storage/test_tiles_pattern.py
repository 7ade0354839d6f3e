"""Folders of files with places in their names."""

import itertools

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.images import read
from warpbeam.transforms.storage.tiles import TileOptions, read_tiles
from warpbeam.transforms.storage.tiles.pattern import compile_pattern, grid_place


def save(folder, names, shape=(20, 30)):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.zeros(shape, np.uint8))


def listed(folder, pattern, **options):
    return read_tiles(str(folder), options=TileOptions(pattern=pattern, **options))


def places(folder, pattern, **options):
    return {t.tile: t.position for t in listed(folder, pattern, **options)}


@pytest.mark.parametrize(
    ("overlap", "step"), [(0.1, (18, 27)), (4.0, (16, 26)), ((0.5, 3.0), (10, 27))]
)
def test_rows_and_columns(tmp_path, overlap, step):
    save(tmp_path, [f"t_{r}_{c}.png" for r in (1, 2) for c in (1, 2, 3)])
    expected = {
        f"r{r}_c{c}": ((r - 1) * step[0], (c - 1) * step[1]) for r in (1, 2) for c in (1, 2, 3)
    }
    found = places(tmp_path, "t_{row}_{col}.png", overlap=overlap)
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[k] for k in expected], list(expected.values()))


def test_brackets_are_plain_text_and_other_files_are_left_out(tmp_path):
    save(tmp_path, ["s[Grid@0 0].jpg", "s[Grid@0 1].jpg", "overview.jpg"])
    assert len(places(tmp_path, "s[Grid@{row} {col}].jpg", overlap=0.1)) == 2


@pytest.mark.parametrize(
    ("order", "snake", "expected"),
    [
        ("row", False, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]),
        ("row", True, [(0, 0), (0, 1), (0, 2), (1, 2), (1, 1), (1, 0)]),
        ("column", False, [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]),
        ("column", True, [(0, 0), (1, 0), (1, 1), (0, 1), (0, 2), (1, 2)]),
    ],
)
def test_index_on_a_grid(tmp_path, order, snake, expected):
    save(tmp_path, [f"i{k:02}.png" for k in range(7, 13)])
    found = places(
        tmp_path, "i{index}.png", overlap=0.0, grid=(2, 3), order=order, snake=snake
    )  # fmt: skip
    assert list(found.values()) == [(20 * r, 30 * c) for r, c in expected]


def test_index_needs_a_grid_that_is_large_enough(tmp_path):
    save(tmp_path, ["i1.png", "i9.png"])
    with pytest.raises(InputError, match="grid of the tiles is not known"):
        listed(tmp_path, "i{index}.png", overlap=0.1)
    with pytest.raises(InputError, match="outside the grid"):
        listed(tmp_path, "i{index}.png", overlap=0.1, grid=(2, 3))


def test_channels_sections_and_folders(tmp_path):
    save(tmp_path, [f"{w}/{c}_{w}_w{n}.png" for w in ("B10", "B2") for c in (0, 1) for n in "12"])
    tiles = listed(tmp_path, "{section}/{col}_{section}_{channel}.png", overlap=0.1)
    assert tiles.channels == ("w1", "w2")
    assert [t.section for t in tiles] == [0, 0, 1, 1]
    assert "B2" in tiles.tiles[0].images[0].file  # wells in natural order
    assert [t.position for t in tiles] == [(0, 0), (0, 27)] * 2


def test_planes_become_a_stack(tmp_path):
    for c in (0, 1):
        for z in range(3):
            array = np.full((8, 9), 10 * c + z, np.uint16)
            tifffile.imwrite(tmp_path / f"t{c}_z{z + 9}_ch0.tif", array)
    tiles = listed(tmp_path, "t{col}_z{z}_ch{channel}.tif", overlap=0.0)
    assert [t.position for t in tiles] == [(0, 0, 0), (0, 0, 9)]
    assert read(tiles.tiles[1].images[0])[:, 0, 0].tolist() == [10, 11, 12]
    assert len(tiles.fingerprint()) == 64


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("t_{row}_{colum}.png", r"unknown field; did you mean col\?"),
        ("x_{row}_{col}.png", "no file matches"),
        ("t_{row}_*.png", "duplicate tile"),
        ("t_{row}_{col}.png", "overlap of a grid"),
        ("t_{channel}_{row}.png", "lacks a channel"),
    ],
)
def test_wrong_patterns(tmp_path, pattern, message):
    save(tmp_path, ["t_0_0.png", "t_0_1.png", "t_1_0.png"])
    overlap = None if message == "overlap of a grid" else 0.1
    with pytest.raises(InputError, match=message):
        listed(tmp_path, pattern, overlap=overlap)


fields = st.permutations(["row", "col", "time"])
text = st.text("ab.[]()+^$\\ -", min_size=1, max_size=4)


@given(fields, st.lists(text, min_size=4, max_size=4), st.tuples(*[st.integers(0, 9999)] * 3))
def test_what_a_pattern_writes_it_reads(names, between, numbers):
    a, b, c, d = between
    pattern = f"{a}{{{names[0]}}}{b}{{{names[1]}}}{c}{{{names[2]}}}{d}"
    written = f"{a}{numbers[0]:03}{b}{numbers[1]}{c}{numbers[2]}{d}"
    match = compile_pattern(pattern).fullmatch(written)
    assert {n: int(match[n]) for n in names} == dict(zip(names, numbers, strict=True))


@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from(["row", "column"]), st.booleans())
def test_every_scan_visits_each_place_once(rows, columns, order, snake):
    options = TileOptions(order=order, snake=snake)
    scan = [grid_place(k, (rows, columns), options) for k in range(rows * columns)]
    assert len(set(scan)) == rows * columns
    if snake:  # neighbours in time are neighbours in space
        assert all(abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1 for a, b in itertools.pairwise(scan))
