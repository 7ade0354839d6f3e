"""Maps of other programs: what is drawn by them is what was drawn by their own."""

import cv2
import numpy as np
import pytest
from running import _run, pixels
from running import align as align_stack
from stacks import make_stack, write_stack

from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.coordinate_map import from_affine, identity
from warpbeam.kernels.maps.sofima import from_sofima, to_sofima
from warpbeam.pipelines import align_apply
from warpbeam.pipelines.align_config import ApplyStackConfig
from warpbeam.pipelines.align_import import import_maps
from warpbeam.transforms.align.section_maps import load_maps
from warpbeam.transforms.canvas import load_canvas
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.run_folder import RunFolder


def apply(alignment, sections, output, **settings):
    settings["alignment"] = str(alignment)
    return _run(align_apply.run, ApplyStackConfig, sections, output, (), settings)


@pytest.fixture(scope="module")
def sections(tmp_path_factory):
    return write_stack(tmp_path_factory.mktemp("stack"), make_stack(4))


def test_an_alignment_goes_through_sofimas_arrays(sections, tmp_path):
    align_stack(sections, tmp_path / "aligned")
    exported = {z: to_sofima(load_maps(str(tmp_path / "aligned"), z)[1]) for z in range(4)}
    maps = {z: from_sofima(array, 16, start).section(0) for z, (array, start) in exported.items()}
    import_maps(str(tmp_path / "imported"), str(sections), maps)
    apply(tmp_path / "imported", sections, tmp_path / "drawn")
    expected, drawn = pixels(tmp_path / "aligned")[0, 0], pixels(tmp_path / "drawn")[0, 0]
    corners = [
        np.array(load_canvas(RunFolder(str(tmp_path / run))).origin) for run in ("aligned", "drawn")
    ]
    z, y, x = corners[0] - corners[1]
    depth, height, width = expected.shape
    part = drawn[z : z + depth, y : y + height, x : x + width].astype(float)
    both = (part > 0) & (expected > 0)
    assert both.mean() > 0.95 * (expected > 0).mean()
    assert np.abs(part - expected)[both].max() <= 1


def test_points_follow_imported_maps(sections, tmp_path):
    lattice = Lattice((0.0, 0.0), (20.0, 20.0), (10, 11))
    matrix = np.array([[1.0, 0.0, 5.0], [0.0, 1.0, -3.0]])
    import_maps(str(tmp_path / "in"), str(sections), {2: from_affine(matrix, lattice)})
    (tmp_path / "p.csv").write_text("z,y,x\n2,60,70\n")
    assert (
        align_apply.move_points(
            str(tmp_path / "in"), str(tmp_path / "p.csv"), str(tmp_path / "q.csv")
        )
        == 0
    )
    z, y, x = map(float, (tmp_path / "q.csv").read_text().splitlines()[1].split(","))
    assert (z, y, x) == pytest.approx((0, 55, 73), abs=1e-3)
    apply(tmp_path / "in", sections, tmp_path / "drawn", render={"interpolation": "nearest"})
    image = cv2.imread(str(sorted(sections.iterdir())[2]), cv2.IMREAD_UNCHANGED)
    drawn = pixels(tmp_path / "drawn")[0, 0, 0]
    np.testing.assert_array_equal(drawn[20:100, 20:100], image[25:105, 17:97])


def test_what_does_not_go_together(sections, tmp_path):
    lattice = Lattice((0.0, 0.0), (20.0, 20.0), (10, 11))
    with pytest.raises(InputError, match="none of section 7"):
        import_maps(str(tmp_path / "a"), str(sections), {7: identity(lattice)})
    other = Lattice((0.0, 0.0), (10.0, 20.0), (10, 11))
    with pytest.raises(ValueError, match="2 lattices"):
        import_maps(str(tmp_path / "a"), str(sections), {1: identity(lattice), 2: identity(other)})
    assert not (tmp_path / "a").exists()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="the output exists"):
        import_maps(str(tmp_path / "b"), str(sections), {1: identity(lattice)})
