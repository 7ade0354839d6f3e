"""Volumes that are thin or small beside what a chunk looks at."""

import numpy as np
import pytest
from running import register
from volumes import make_pair, write_pair

from warpbeam.kernels.maps.interpolate import offsets_at
from warpbeam.transforms.storage import displacements


@pytest.mark.parametrize(
    ("shape", "lattice"),
    [
        ((6, 48, 48), {}),
        ((24, 24, 24), {}),
        ((20, 24, 24), {"stride_px": 7, "window_px": 28, "steps": 3}),
    ],
)
def test_the_map_is_the_truth(tmp_path, shape, lattice):
    # a bend as long as the window is beyond what it resolves
    pair = make_pair(shape, amplitude=max(shape) / 200, shift=1.0)
    register(write_pair(tmp_path, pair), tmp_path / "out", lattice={"search_px": 24.0, **lattice})
    points = np.stack(np.meshgrid(*(np.arange(2.0, n - 2, 3) for n in shape), indexing="ij"))
    truth = np.moveaxis(pair.target(np.moveaxis(points, 0, -1)), -1, 0)
    limit = np.reshape(shape, (3, 1, 1, 1)) - 2
    seen = ((truth > 1) & (truth < limit)).all(axis=0)
    found = displacements.load(str(tmp_path / "out" / "maps" / "forward.zarr")).read()
    apart = np.linalg.norm(points + offsets_at(found, points) - truth, axis=0)[seen]
    before = np.linalg.norm(points - truth, axis=0)[seen]
    assert np.median(apart) < 0.3 < 1 < np.median(before)
