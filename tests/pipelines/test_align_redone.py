"""A range of an aligned stack, aligned again by itself; and a section that stays as it is."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from running import align, markers, pixels
from stacks import make_stack, residuals, write_stack

from warpbeam.kernels.maps.points import warp_points
from warpbeam.transforms.align.section_maps import load_maps
from warpbeam.transforms.canvas import load_canvas
from warpbeam.transforms.storage import tables
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.run_folder import RunFolder

DEPTH, FIRST, LAST = 24, 8, 15  # the range lies within one layer of shards
STACK = make_stack(DEPTH, amplitude=2.0)
INSIDE = slice(FIRST, LAST)  # of the residuals, between neighbours
POINTS = np.stack(np.meshgrid(*[np.arange(40, 121, 20)] * 2, indexing="ij"), -1).reshape(-1, 2)
LAYERS = {"shard_3d": (8, 64, 64)}
STIFF = {"mesh": {"bending_px": 3000.0}, "volume": LAYERS}  # follows no bend


@pytest.fixture(scope="module")
def sections(tmp_path_factory):
    return write_stack(tmp_path_factory.mktemp("stack"), STACK)


@pytest.fixture(scope="module")
def part(sections, tmp_path_factory):
    """The range with its bends, from other places: each section lies turned where it was rough."""
    output = tmp_path_factory.mktemp("part") / "part"
    align(sections, output, first_section=FIRST, last_section=LAST, rough={"model": "rigid"})
    return output


@pytest.fixture(scope="module")
def whole(sections, tmp_path_factory):
    """The stack whose bends were not followed, and what it was before the range was redone."""
    output = tmp_path_factory.mktemp("whole") / "whole"
    align(sections, output, **STIFF)
    return output


@pytest.fixture(scope="module")
def before(whole):
    return pixels(whole)[0, 0], reached(whole), markers(whole), apart(whole)


@pytest.fixture(scope="module")
def again(sections, part, whole, before):
    return align(sections, whole, redone=(str(part),), **STIFF)


def reached(run):
    return [warp_points(load_maps(str(run), z)[0], POINTS) for z in range(DEPTH)]


def showing(section):
    """Where a section shows what truly lies at the points."""
    places = POINTS.astype(float)
    for _ in range(20):
        places = POINTS - STACK.displacement(section, places)
    return places


def apart(run):
    return np.median(residuals(STACK, reached(run), POINTS), axis=1)


def test_the_range_gets_its_bends_and_the_rest_stays(whole, before, again):
    volume, places, _, poor = before
    better = apart(whole)
    assert np.median(poor[INSIDE]) > 0.8
    assert np.median(better[INSIDE]) < 0.3 * np.median(poor[INSIDE])
    now = pixels(whole)[0, 0]
    assert now.shape == volume.shape
    for z, (then, place) in enumerate(zip(places, reached(whole), strict=True)):
        same = z <= FIRST or z >= LAST
        assert np.array_equal(volume[z], now[z]) == same, z
        if same:
            np.testing.assert_array_equal(then, place)


def test_its_ends_are_held(whole, before, again):
    places = before[1]
    for z, place in enumerate(reached(whole)):
        assert np.linalg.norm(place - places[z], axis=1).max() < 6, z
    assert 0 < again.numbers["held_step_px"] < 1
    assert again.numbers["redone_sections"] == LAST - FIRST - 1


def test_only_what_changed_is_done_again(whole, before, again):
    then, now = before[2], markers(whole)
    changed = {name for name in now if then.get(name) != now[name]}
    stages = {name.split("/")[0] for name in changed}
    assert stages == {"settle", "invert", "render"} | {s for s in stages if "pyramid" in s}
    drawn = [name for name in changed if name.startswith("render/")]
    every = [name for name in now if name.startswith("render/")]
    assert len(drawn) == len(every) / 3


def test_the_table_tells_which_sections_were_redone(whole, part, again):
    rows = {row["section"]: row for row in tables.read(str(whole / "sections.parquet"))}
    theirs = {row["section"]: row for row in tables.read(str(part / "sections.parquet"))}
    assert [z for z, row in rows.items() if row["redone"]] == list(range(FIRST + 1, LAST))
    for z in range(FIRST + 1, LAST):
        assert rows[z]["residual_px"] == theirs[z]["residual_px"]
    assert rows[LAST]["residual_px"] != theirs[LAST]["residual_px"]


def test_a_stack_that_was_never_whole_gives_the_same(sections, whole, part, again, tmp_path):
    align(sections, tmp_path / "at_once", redone=(str(part),), **STIFF)
    np.testing.assert_array_equal(pixels(whole), pixels(tmp_path / "at_once"))


def test_a_run_is_not_continued_without_what_was_redone(sections, whole, again):
    with pytest.raises(InputError, match=r"redone = \['.*part'\] instead of \[\]"):
        align(sections, whole, **STIFF)


def test_a_run_that_was_being_overwritten_can_be_overwritten(sections, tmp_path):
    align(sections, tmp_path / "out", stages=["convert"])
    owner = Path(RunFolder(str(tmp_path / "out")).owner)
    owner.write_text('{"job": "none: it was being overwritten"}')
    with pytest.raises(InputError, match="the output exists"):
        align(sections, tmp_path / "out", stages=["convert"])
    align(sections, tmp_path / "out", stages=["convert"], overwrite=True)


def test_a_run_without_a_table_of_sections_is_refused(sections, part, tmp_path):
    shutil.copytree(part, tmp_path / "part")
    (tmp_path / "part" / "sections.parquet").unlink()
    with pytest.raises(InputError, match=r"no sections\.parquet"):
        align(sections, tmp_path / "out", redone=(str(tmp_path / "part"),), **STIFF)


def test_at_the_end_of_the_stack_one_section_holds(sections, tmp_path):
    align(sections, tmp_path / "end", first_section=18)
    align(sections, tmp_path / "whole", redone=(str(tmp_path / "end"),), **STIFF)
    better = apart(tmp_path / "whole")
    assert np.median(better[18:]) < 0.3 * np.median(better[:18])


def test_what_does_not_fit_is_refused(sections, part, tmp_path):
    def refused(match, *runs, **settings):
        with pytest.raises(InputError, match=match):
            align(sections, tmp_path / "out", redone=tuple(map(str, runs)), **STIFF, **settings)
        assert not (tmp_path / "out").exists()

    refused("no finished alignment", tmp_path / "nothing")
    refused("same sections", part, part)
    refused("other sections", part, last_section=10)
    refused("hold", part, first_section=FIRST, last_section=LAST)
    other = write_stack(tmp_path / "small", make_stack(DEPTH, (96, 96)))
    align(other, tmp_path / "other", first_section=2, last_section=5)
    refused("another image", tmp_path / "other")


def test_what_a_range_could_not_align_keeps_its_place(tmp_path):
    sections = write_stack(tmp_path / "in", STACK, blank=(11,))
    align(sections, tmp_path / "part", first_section=FIRST, last_section=LAST)
    align(sections, tmp_path / "whole", redone=(str(tmp_path / "part"),), **STIFF)
    rows = {row["section"]: row for row in tables.read(str(tmp_path / "whole/sections.parquet"))}
    taken = [z for z, row in rows.items() if row["redone"]]
    assert taken == [9, 10, 12, 13, 14]


def test_an_anchor_stays_as_it_is(sections, tmp_path):
    anchor = 14
    align(sections, tmp_path / "out", mesh={"anchor": anchor}, rough={"model": "rigid"})
    (first, *corner), shape = load_canvas(RunFolder(str(tmp_path / "out"))).origin, STACK.shape
    image = cv2.imread(str(sorted(sections.iterdir())[anchor]), cv2.IMREAD_UNCHANGED)
    y, x = (-c for c in corner)
    drawn = pixels(tmp_path / "out")[0, 0, anchor - first][y : y + shape[0], x : x + shape[1]]
    inner = (slice(4, -4),) * 2
    assert np.abs(drawn.astype(int) - image)[inner].max() <= 1
    arrived = [
        warp_points(load_maps(str(tmp_path / "out"), z)[0], showing(z)) for z in range(DEPTH)
    ]
    assert np.median(np.linalg.norm(np.diff(arrived, axis=0), axis=-1)) < 0.15
    moved = warp_points(load_maps(str(tmp_path / "out"), anchor)[0], POINTS)
    np.testing.assert_allclose(moved, POINTS, atol=0.01)


def test_an_anchor_must_be_there(sections, tmp_path):
    with pytest.raises(InputError, match=r"mesh\.anchor"):
        align(sections, tmp_path / "out", mesh={"anchor": DEPTH})
