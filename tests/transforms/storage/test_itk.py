import numpy as np
import pytest

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.coordinate_map import on_lattice
from warpbeam.kernels.maps.points import warp_points
from warpbeam.transforms.storage import itk
from warpbeam.transforms.storage.errors import InputError

FIXED, MOVING = (2.0, 0.5, 0.75), (1.0, 0.5, 0.25)
RNG = np.random.default_rng(0)
MATRIX = np.eye(4)
MATRIX[:3] += RNG.normal(0, 0.1, (3, 4))
MATRIX[:3, 3] += (1.0, -2.0, 3.0)


def test_an_affine_comes_back(tmp_path):
    path = str(tmp_path / "a.mat")
    itk.write_affine(path, MATRIX, FIXED, MOVING)
    np.testing.assert_allclose(itk.read_affine(path, FIXED, MOVING), MATRIX, atol=1e-12)


def test_a_text_transform_with_a_centre(tmp_path):
    linear, centre, shift = np.diag([1.1, 0.9, 1.0]), np.array([4.0, 5, 6]), np.array([1.0, 2, 3])
    numbers = " ".join(map(str, [*linear.ravel(), *shift]))
    (tmp_path / "a.tfm").write_text(
        f"#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        f"Parameters: {numbers}\nFixedParameters: 4 5 6\n"
    )
    found = itk.read_affine(str(tmp_path / "a.tfm"), (1.0,) * 3, (1.0,) * 3)
    point = np.array([7.0, 8, 9])  # xyz
    wanted = linear @ (point - centre) + centre + shift
    np.testing.assert_allclose(affine.apply(found, point[None, ::-1])[0], wanted[::-1])


def test_ants_maps_points_as_we_do(tmp_path):
    ants = pytest.importorskip("ants")
    lattice = Lattice((0.0, 0.0, 0.0), (4.0, 8.0, 8.0), (5, 6, 7))
    field = on_lattice(RNG.normal(0, 1, (3, *lattice.shape)), lattice)
    itk.write_warp(str(tmp_path / "w.nii.gz"), field, FIXED)
    itk.write_affine(str(tmp_path / "a.mat"), MATRIX, FIXED, MOVING)
    points = RNG.uniform(1, 14, (20, 3))
    wanted = affine.apply(MATRIX, warp_points(field, points)) * MOVING
    import pandas as pd

    table = pd.DataFrame((points * FIXED)[:, ::-1], columns=list("xyz"))
    found = ants.apply_transforms_to_points(
        3, table, [str(tmp_path / "w.nii.gz"), str(tmp_path / "a.mat")]
    )
    np.testing.assert_allclose(found[list("zyx")].to_numpy(), wanted, atol=1e-3)


def test_what_is_no_transform_is_refused(tmp_path):
    (tmp_path / "a.tfm").write_text("nothing")
    for name in ("a.tfm", "b.mat"):
        with pytest.raises(InputError, match="no affine transform"):
            itk.read_affine(str(tmp_path / name), FIXED, MOVING)
