"""Flow that the neighbour cannot give is taken from a section further back."""

import cv2
import numpy as np
import pytest
import tifffile
from running import align

from warpbeam.transforms.align.frame import clean_uri, load_frame
from warpbeam.transforms.storage import fields
from warpbeam.transforms.storage.run_folder import RunFolder

SIDE, PATCH = 220, 48
UP_TO_CLEAN = ["convert", "frame", "flow", "clean"]


def texture(rng):
    return cv2.GaussianBlur(rng.normal(size=(SIDE, SIDE)), (0, 0), 2) * 200 + 128


def nothing(_):
    return np.zeros((SIDE, SIDE))


@pytest.mark.parametrize("between", [nothing, texture], ids=["blank", "unrelated"])
def test_a_section_that_resembles_nothing_is_looked_past(tmp_path, between):
    """SOFIMA's case: z=5 is z=3, moved by x + 2, y + 3, so that its flow is (-2, -3) at every
    node, found two sections back."""
    rng = np.random.default_rng(5)
    image = texture(rng)
    (tmp_path / "in").mkdir()
    for z, section in {3: image, 4: between(rng), 5: np.roll(image, (3, 2), (0, 1))}.items():
        tifffile.imwrite(
            tmp_path / "in" / f"sec_{z:03d}.tif", np.clip(section, 0, 255).astype(np.uint8)
        )
    align(
        tmp_path / "in",
        tmp_path / "out",
        stages=UP_TO_CLEAN,
        flow={"patch_px": PATCH, "gaps": (1,), "bridges": (2,)},
        rough={"model": "none"},
    )

    run = RunFolder(str(tmp_path / "out"))
    frame = load_frame(run)
    near, bridged = fields.load(clean_uri(run)).read(frame.nodes(frame.z(5), (2, 2)))[:, :, 0]
    y, x = frame.lattice.nodes()
    inside = (np.minimum(y, x) >= PATCH // 2) & (np.maximum(y, x) <= SIDE - PATCH // 2)
    assert inside.sum() >= 100
    assert not np.isfinite(near[:, inside]).any()
    np.testing.assert_allclose(bridged[:, inside].T, [(-3, -2)] * inside.sum(), atol=0.05)
