"""A section that is cracked in two, whose halves moved apart."""

import numpy as np
import pytest
import tifffile
from running import align
from stacks import content

from warpbeam.kernels.maps.points import warp_points
from warpbeam.transforms.storage import displacements, tables

SHAPE, CRACKED, WIDTH = (320, 360), 2, 26
SETTINGS = {
    "rough": {"model": "none"},
    "flow": {"patch_px": 64, "stride_px": 20, "search_px": 20, "scales": (1,)},
    "mesh": {"bending_px": 160.0, "linear_drift": False, "drift_sections": 0},
}


def crack(y):
    """Where it runs, x at y."""
    return 180 + 30 * np.sin(y / 60)


def displacement(z, points):
    """The right side of the cracked section shows what lies further left, and lower."""
    side = np.where(points[..., 1] > crack(points[..., 0]), 1.0, -1.0)
    moved = np.stack([2.0 * side, -5.0 * side], axis=-1)
    return moved if z == CRACKED else np.zeros_like(moved)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Cracks are black, and nothing else is."""
    folder, truth = tmp_path_factory.mktemp("cracked"), content(3)
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1).astype(float)
    for z in range(4):
        depth = np.full((*SHAPE, 1), float(z))
        there = np.concatenate([depth, grid + displacement(z, grid)], -1)
        image = np.clip(truth.at(there), 1, 255).astype(np.uint8)
        if z == CRACKED:
            image[np.abs(grid[..., 1] - crack(grid[..., 0])) < WIDTH / 2] = 0
        tifffile.imwrite(folder / f"s{z}.tif", image)
    return folder


def errors(folder, output, *, cuts):
    """Beside the crack, 10 to 50 px from it, px."""
    rule = {"below": 1, "cuts": cuts}
    outcome = align(folder, output, **{**SETTINGS, "flow": {**SETTINGS["flow"], "exclude": [rule]}})
    assert outcome.exit_code == 0
    field = displacements.load(str(output / "maps" / "forward.zarr"))
    y = np.repeat(np.arange(40.0, 281.0, 8), 10)
    x = crack(y) + WIDTH / 2 * np.tile([-1, 1], y.size // 2) + np.tile(np.linspace(-50, 50, 10), 31)
    near = np.abs(x - crack(y)) > WIDTH / 2 + 10
    points = np.stack([y, x], -1)[near]
    moved = warp_points(field.read(CRACKED), points)
    neighbour = warp_points(field.read(CRACKED - 1), points + displacement(CRACKED, points))
    return np.linalg.norm(moved - neighbour, axis=-1)


def test_the_two_sides_of_a_crack_move_by_themselves(folder, tmp_path):
    whole = errors(folder, tmp_path / "whole", cuts=False)
    cut = errors(folder, tmp_path / "cut", cuts=True)
    assert np.quantile(whole, 0.9) > 2
    assert np.quantile(cut, 0.9) < 0.8
    assert np.median(cut) < 0.2
    nodes = [
        [row["cut_nodes"] for row in tables.read(str(tmp_path / name / "sections.parquet"))]
        for name in ("whole", "cut")
    ]
    assert nodes[0] == [0, 0, 0, 0]
    assert nodes[1][CRACKED] > 16  # a wall from one end of the section to the other
    assert sum(nodes[1]) == nodes[1][CRACKED]
