import json

import numpy as np
import pytest

from warpbeam.kernels.geometry import affine
from warpbeam.transforms.register.given import read_landmarks, read_start
from warpbeam.transforms.storage.errors import InputError

VOXELS = (2.0, 0.5, 0.5), (1.0, 0.5, 0.25)
MATRIX = np.array([[1.0, 0.1, 0, 3], [-0.1, 1.0, 0, 4], [0, 0, 1.1, 5], [0, 0, 0, 1]])


def write_bigwarp(path, fixed, moving, active):
    """Physical x, y, z of both, moving first."""
    rows = [
        f'"Pt-{i}","{str(a).lower()}",' + ",".join(f'"{v}"' for v in [*m[::-1], *f[::-1]])
        for i, (f, m, a) in enumerate(
            zip(fixed * VOXELS[0], moving * VOXELS[1], active, strict=True)
        )
    ]
    path.write_text("\n".join(rows) + "\n")


def test_landmarks_of_bigwarp(tmp_path):
    fixed = np.random.default_rng(0).uniform(0, 50, (8, 3))
    moving = affine.apply(MATRIX, fixed)
    moving[3] += 500
    write_bigwarp(tmp_path / "l.csv", fixed, moving, np.arange(8) != 3)
    found = read_landmarks(str(tmp_path / "l.csv"), VOXELS)
    np.testing.assert_allclose(found[0], np.delete(fixed, 3, 0))
    matrix = read_start(str(tmp_path / "l.csv"), VOXELS, "affine")
    np.testing.assert_allclose(matrix, MATRIX, atol=1e-6)


def test_a_matrix_in_json(tmp_path):
    (tmp_path / "m.json").write_text(json.dumps({"matrix": MATRIX[:3].tolist()}))
    np.testing.assert_allclose(read_start(str(tmp_path / "m.json"), VOXELS, "affine"), MATRIX)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "1,2,3\n"), ("b.csv", '"p","false",1,2,3,4,5,6\n'), ("c.json", "{}"),
        ("d.json", None), ("e.csv", None),
    ],
)  # fmt: skip
def test_other_files_are_refused(tmp_path, name, text):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="a map or landmarks cannot be read"):
        read_start(str(tmp_path / name), VOXELS, "affine")
