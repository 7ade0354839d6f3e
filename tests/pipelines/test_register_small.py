"""Volumes that are thin or small beside what a chunk looks at."""

import nibabel
import numpy as np
import pytest
import tifffile
from running import pixels, register
from volumes import make_pair, write_pair

from warpbeam.kernels.maps.interpolate import offsets_at
from warpbeam.transforms.storage import displacements
from warpbeam.transforms.storage.errors import InputError


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


def test_volumes_of_two_types_that_must_be_copied(tmp_path):
    """A compressed NIfTI file cannot be read in parts, so both are copied first."""
    fixed, moving = write_pair(tmp_path, make_pair((20, 40, 44), shift=1.0))
    grey = tifffile.imread(moving).astype(np.float32) / 7
    copied, plain = tmp_path / "moving.nii.gz", tmp_path / "moving_float.tif"
    nibabel.save(nibabel.Nifti1Image(grey.T, np.eye(4)), copied)
    tifffile.imwrite(plain, grey, photometric="minisblack")
    for name, path in (("copied", copied), ("plain", plain)):
        register((fixed, path), tmp_path / name, engine="none")
    found = [pixels(tmp_path / name) for name in ("copied", "plain")]
    assert found[0].dtype == np.float32
    np.testing.assert_array_equal(*found)


def test_landmarks_that_cannot_be_read_leave_no_run(tmp_path):
    pair = write_pair(tmp_path, make_pair((20, 40, 44), shift=1.0))
    bad = tmp_path / "bad.csv"
    bad.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="landmarks cannot be read"):
        register(pair, tmp_path / "out", engine="none", coarse={"initial": str(bad)})
    assert not (tmp_path / "out").exists()
