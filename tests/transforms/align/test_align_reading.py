import cv2
import numpy as np
import pytest
import tifffile

from warpbeam.kernels.flow.exclude import Exclusion
from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.align.reading import ReduceSection, SectionReader, SectionSettings
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.storage.tiles.sections import read_sections
from warpbeam.transforms.tiles import PlacedTile, as_rows, sources_of


def ramp(y, x):
    return 20 + 0.5 * y + 0.25 * x


@pytest.fixture
def stack(tmp_path):
    """Two sections that show a plane, with an unknown corner of value 0."""
    y, x = np.mgrid[:200, :240]
    image = ramp(y, x).astype(np.float32)
    image[:40, :60] = 0
    for z in range(2):
        tifffile.imwrite(tmp_path / f"s{z}.tif", image)
    sources = sources_of(read_sections(str(tmp_path)), direct=True)
    return RunFolder(str(tmp_path / "run")), sources


def placed(source, shift=(0.0, 0.0), degrees=0.0):
    a = np.deg2rad(degrees)
    matrix = np.array([[np.cos(a), -np.sin(a), shift[0]], [np.sin(a), np.cos(a), shift[1]],
                       [0, 0, 1]])  # fmt: skip
    return PlacedTile(source, as_rows(matrix))


def reduced(run, sources, settings, scales):
    work = ReduceSection(run, settings, scales, (2, 200, 240), "float32")
    work.setup()
    for source in sources:
        work(source.key, [source])


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (8.0, -12.0), (3.3, 5.6)])
@pytest.mark.parametrize("degrees", [0.0, 7.0])
def test_a_section_is_read_as_it_lies_in_the_world(stack, scale, shift, degrees):
    run, sources = stack
    settings = SectionSettings(0)
    reduced(run, sources, settings, (2, 4))
    tile = placed(sources[1], shift, degrees)
    box = Box((60 // scale, 70 // scale), (130 // scale, 150 // scale))
    image = SectionReader(run, settings).image(tile, scale, box)
    # voxel i of the reduction has its centre at scale * i + (scale - 1) / 2
    y, x = np.mgrid[box.slices] * scale + (scale - 1) / 2
    inverse = np.linalg.inv(np.array(tile.matrix))
    sy, sx = (inverse[k, 0] * y + inverse[k, 1] * x + inverse[k, 2] for k in range(2))
    np.testing.assert_allclose(image, ramp(sy, sx), atol=1e-3)


@pytest.mark.parametrize("scale", [1, 2])
def test_background_and_outside_are_not_known(stack, scale):
    run, sources = stack
    settings = SectionSettings(0, (Exclusion(0, (0.0,)),))
    reduced(run, sources, settings, (2,))
    box = Box((-10, -10), (110, 130))
    image = SectionReader(run, settings).image(placed(sources[0]), scale, box)
    known = np.isfinite(image)
    assert not known[:10].any()
    assert not known[:, :10].any()
    assert not known[10 : 10 + 40 // scale, 10 : 10 + 60 // scale].any()
    assert known[10 + 40 // scale : 100, 10:120].all()


@pytest.mark.parametrize("scale", [1, 2])
def test_what_a_rule_excludes_is_the_same_from_any_box(stack, scale):
    run, sources = stack
    settings = SectionSettings(0, (Exclusion(0, above=120.0, grow=9),))
    reduced(run, sources, settings, (2,))
    reader, tile = SectionReader(run, settings), placed(sources[0])
    whole = reader.image(tile, scale, Box.of_shape((200 // scale, 240 // scale)))
    part = Box((50 // scale, 90 // scale), (120 // scale, 150 // scale))
    np.testing.assert_array_equal(reader.image(tile, scale, part), whole[part.slices])
    y, x = np.mgrid[:200:scale, :240:scale] + (scale - 1) / 2
    away = (120 - ramp(y, x)) / np.hypot(0.5, 0.25)  # px to the line where the ramp is 120
    assert np.isfinite(whole[(away > 9 + 2 * scale) & (x > 60)]).all()
    assert not np.isfinite(whole[away < 8 - 2 * scale]).any()


def test_a_reduction_is_the_mean_of_its_pixels(stack):
    run, sources = stack
    reduced(run, sources, SectionSettings(0), (4,))
    image = SectionReader(run, SectionSettings(0)).image(
        placed(sources[0]), 4, Box.of_shape((50, 60))
    )
    y, x = np.mgrid[:200, :240]
    full = ramp(y, x)
    full[:40, :60] = 0
    expected = cv2.resize(full, (60, 50), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(image, expected, atol=1e-3)
