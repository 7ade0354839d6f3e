"""Torn and squeezed sections in `align`: what counts as a fold, and what is done about it.

The halves of the second section are moved apart or together, so that its mesh would stretch, or
shrink, between two columns of nodes and nowhere else.
"""

import cv2
import numpy as np
import pytest
import tifffile
from running import ALIGNED, align

from warpbeam.transforms.align.frame import chained_uri, clean_uri, load_frame
from warpbeam.transforms.align.mesh_store import read_mesh
from warpbeam.transforms.storage import fields
from warpbeam.transforms.storage.run_folder import RunFolder

SIDE, STRIDE = 176, ALIGNED["flow"]["stride_px"]
FLOW = {"patch_px": 32, "gaps": (1,), "bridges": (), "max_deviation_px": 100.0}
STAGES = ["convert", "frame", "flow", "clean", "mesh", "starts", "chain"]
SOFT = {"bending_px": 30.0, "most_scatter_px": 50.0}


def written(folder, apart):
    """Two sections; the second one's halves are `apart` px further from one another."""
    rng, k, half = np.random.default_rng(5), apart // 2, SIDE // 2
    noise = cv2.GaussianBlur(rng.normal(size=(SIDE, SIDE + 80)), (0, 0), 2)
    truth = np.clip(noise * 200 + 128, 0, 255).astype(np.uint8)
    left, right = truth[:, 40 - k :][:, :half], truth[:, 40 + half + k :][:, :half]
    for z, section in enumerate((truth[:, 40:][:, :SIDE], np.hstack([left, right]))):
        tifffile.imwrite(folder / f"sec_{z:03d}.tif", section)
    return folder


@pytest.fixture(scope="module")
def torn(tmp_path_factory):
    return written(tmp_path_factory.mktemp("torn"), 16)


@pytest.fixture(scope="module")
def squeezed(tmp_path_factory):
    return written(tmp_path_factory.mktemp("squeezed"), -12)


def solved(sections, output, **mesh):
    """Of the second section: the distances of its nodes along x as a share of the stride, and how
    far each node is from where its flow leads, px."""
    align(sections, output, stages=STAGES, flow=FLOW, mesh=SOFT | mesh, rough={"model": "none"},
          run={"workers": 1})  # fmt: skip
    run = RunFolder(str(output))
    frame = load_frame(run)
    offsets = read_mesh(fields.load(chained_uri(run)), frame, 1)
    asked = fields.load(clean_uri(run)).read(frame.nodes(1, (1, 2)))[0, :, 0]
    apart = np.linalg.norm(offsets - asked, axis=0)
    return 1 + np.diff(offsets[1], axis=1) / STRIDE, apart[np.isfinite(apart)]


def test_nodes_that_move_far_apart_are_a_fold(torn, tmp_path):
    """Two columns whose halves went 16 px apart are twice their 16 px from one another."""
    free, _ = solved(torn, tmp_path / "free", most_stretch=3.0)
    assert np.median(free.max(axis=1)) == pytest.approx(2, abs=0.1)
    held, _ = solved(torn, tmp_path / "held", most_stretch=1.7)
    assert held.max() <= 1.7


def test_nodes_that_come_close_are_a_fold(squeezed, tmp_path):
    """Where 12 px are lost a quarter is left."""
    free, _ = solved(squeezed, tmp_path / "free", least_stretch=0.1)
    assert np.median(free.min(axis=1)) == pytest.approx(1 / 4, abs=0.1)
    held, _ = solved(squeezed, tmp_path / "held", least_stretch=0.6)
    assert held.min() >= 0.6


def test_without_retries_a_fold_stays(torn, tmp_path):
    stretch, _ = solved(torn, tmp_path / "out", most_stretch=1.7, fold_retries=0)
    assert np.median(stretch.max(axis=1)) == pytest.approx(2, abs=0.1)


def test_flow_around_a_fold_is_believed_so_much_less(torn, tmp_path):
    more, less = (
        solved(torn, tmp_path / f"{weight}", most_stretch=1.9, fold_weight=weight)[0].max(axis=1)
        for weight in (0.7, 0.01)
    )
    assert np.median(more) > np.median(less) + 0.2


def test_flow_is_believed_less_so_far_around_a_fold(torn, tmp_path):
    """Until all of it is, the last time."""
    given = {"most_stretch": 1.9, "fold_weight": 0.01}
    near, far = (
        (solved(torn, tmp_path / f"{radius}", fold_radius=radius, **given)[1] > 0.5).mean()
        for radius in (1, 4)
    )
    assert 0 < near < 0.7 * far
