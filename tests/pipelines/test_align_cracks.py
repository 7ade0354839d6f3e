"""A section that is cracked in two, whose halves moved apart."""

import numpy as np
import pytest
import tifffile
from running import align
from stacks import content

from warpbeam.kernels.maps.points import warp_points
from warpbeam.transforms.storage import displacements, tables

HEIGHT, WIDTH, TALLER = 320, 360, 70
CRACK, SECTIONS = 26, 4
SETTINGS = {
    "rough": {"model": "none"},
    "flow": {"patch_px": 64, "stride_px": 20, "search_px": 20, "scales": (1,)},
    "mesh": {"bending_px": 160.0, "steady_drift": False, "drift_sections": 0},
}


def middle(y):
    """Where the crack runs, x at y."""
    return 180 + 30 * np.sin(y / 60)


def displacement(points):
    """The right side of the cracked section shows what lies further left, and lower."""
    side = np.where(points[..., 1] > middle(points[..., 0]), 1.0, -1.0)
    return np.stack([2.0 * side, -5.0 * side], axis=-1)


def write_sections(folder, cracked):
    """Cracks are black, and nothing else is. The other sections go on below the cracked one."""
    folder.mkdir()
    truth = content(3)
    for z in range(SECTIONS):
        shape = (HEIGHT if z == cracked else HEIGHT + TALLER, WIDTH)
        grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).astype(float)
        there = grid + displacement(grid) if z == cracked else grid
        depth = np.full((*shape, 1), float(z))
        image = np.clip(truth.at(np.concatenate([depth, there], -1)), 1, 255).astype(np.uint8)
        if z == cracked:
            image[np.abs(grid[..., 1] - middle(grid[..., 0])) < CRACK / 2] = 0
        tifffile.imwrite(folder / f"s{z}.tif", image)
    return folder


def errors(folder, output, cracked, *, cuts):
    """Beside the crack, 10 to 50 px from it and up to its ends: px between neighbours."""
    flow = {**SETTINGS["flow"], "exclude": [{"below": 1, "cuts": cuts}]}
    assert align(folder, output, **{**SETTINGS, "flow": flow}).exit_code == 0
    field = displacements.load(str(output / "maps" / "forward.zarr"))
    y = np.repeat(np.arange(15.0, HEIGHT - 5, 8), 10)
    x = middle(y) + np.tile([-60, -50, -40, -30, -24, 24, 30, 40, 50, 60], y.size // 10)
    points = np.stack([y, x], -1)
    moved = warp_points(field.read(cracked), points)
    beside = 1 if cracked == 0 else cracked - 1
    neighbour = warp_points(field.read(beside), points + displacement(points))
    return np.linalg.norm(moved - neighbour, axis=-1)


@pytest.mark.parametrize("cracked", [0, 2])
def test_the_two_sides_of_a_crack_move_by_themselves(tmp_path, cracked):
    folder = write_sections(tmp_path / "sections", cracked)
    whole = errors(folder, tmp_path / "whole", cracked, cuts=False)
    cut = errors(folder, tmp_path / "cut", cracked, cuts=True)
    assert np.quantile(whole, 0.9) > 2
    assert np.quantile(cut, 0.95) < 1.3
    assert np.median(cut) < 0.2
    rows = {
        name: tables.read(str(tmp_path / name / "sections.parquet")) for name in ("whole", "cut")
    }
    nodes = {name: [row["cut_nodes"] for row in found] for name, found in rows.items()}
    assert nodes["whole"] == [0] * SECTIONS
    assert nodes["cut"][cracked] > 16  # a wall from one end of the section to the other
    assert sum(nodes["cut"]) == nodes["cut"][cracked]
    assert [row["status"] for row in rows["cut"]].count("start") == 1
    assert rows["cut"][cracked]["status"] == "regular"


def test_the_other_sections_do_not_follow_a_cracked_one(tmp_path):
    """The first section is cracked: what follows lies as the second does, and not in two parts."""
    folder = write_sections(tmp_path / "sections", 0)
    errors(folder, tmp_path / "cut", 0, cuts=True)
    field = displacements.load(str(tmp_path / "cut" / "maps" / "forward.zarr"))
    for z in range(1, SECTIONS):
        assert np.nanmax(np.abs(field.read(z).u)) < 0.5
