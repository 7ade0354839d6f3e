"""Sections as they are drawn."""

import numpy as np
import pytest
import tifffile

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.shading.contrast import evened, grey_range
from warpbeam.transforms.align.pixels import SectionPixels
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.storage.tiles import read_tiles
from warpbeam.transforms.tiles import sources_of

SHAPE = (300, 340)


def section(dtype, seed=0):
    fall = np.linspace(1, 0.3, SHAPE[1])
    grey = np.random.default_rng(seed).uniform(20, 250, SHAPE) * fall
    return grey.astype(dtype)


def source(folder, image, mask=None):
    tifffile.imwrite(folder / "s.tif", image)
    row, columns = "s.tif", "file"
    if mask is not None:
        tifffile.imwrite(folder / "m.tif", mask.astype(np.uint8))
        row, columns = "s.tif,m.tif", "file,mask"
    (folder / "sections.csv").write_text(f"{columns},y,x\n{row},0,0\n")
    return sources_of(read_tiles(str(folder / "sections.csv")), direct=True)[0]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("how", ["none", "local", "clahe"])
def test_a_box_shows_what_the_whole_shows(tmp_path, how, dtype):
    one = source(tmp_path, section(dtype))
    pixels = SectionPixels(RunFolder(str(tmp_path / "run")), 0.0, how, 64)
    whole = pixels.read(one, 0, Box.of_shape(SHAPE))
    assert whole.dtype == dtype
    for corner, shape in (((0, 0), (70, 90)), ((100, 130), (64, 64)), ((250, 290), (50, 50))):
        box = Box.of_shape(shape, corner)
        apart = np.abs(pixels.read(one, 0, box).astype(float) - whole[box.slices])
        assert apart.max() <= (0 if how == "none" else 1.3)  # a value of 256, rounded


def test_contrast_is_evened_out_in_the_sections_range(tmp_path):
    image = section("uint8")
    one = source(tmp_path, image)
    run = RunFolder(str(tmp_path / "run"))
    found = SectionPixels(run, 0.0, "local", 64).read(one, 0, Box.of_shape(SHAPE))
    # the windows that are looked at hold more than half of so small a section
    low, high = grey_range(image.astype(np.float32))
    expected = evened(image.astype(np.float32), "local", 64, (max(low, 0.0), min(high, 255.0)))
    np.testing.assert_allclose(found, expected, atol=2)
    assert image[:, :60].std() > 2 * image[:, -60:].std()
    assert found[:, :60].std() < 1.2 * found[:, -60:].std()


@pytest.mark.parametrize("how", ["none", "local", "clahe"])
def test_what_is_masked_is_background(tmp_path, how):
    mask = np.ones(SHAPE, bool)
    mask[40:90, 50:140] = False
    one = source(tmp_path, section("uint8"), mask)
    pixels = SectionPixels(RunFolder(str(tmp_path / "run")), 7.0, how, 64)
    found = pixels.read(one, 0, Box((30, 30), (120, 160)))
    hidden = ~mask[30:120, 30:160]
    assert (found[hidden] == 7).all()
    assert (found[~hidden] != 7).mean() > 0.9


@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_values_do_not_wrap(tmp_path, dtype):
    """Bright things that the windows do not see are as bright as the range, not dark."""
    image = section(dtype) // 2
    limits = np.iinfo(dtype)
    image[150, 200], image[151, 201] = limits.max, limits.min
    one = source(tmp_path, image)
    pixels = SectionPixels(RunFolder(str(tmp_path / "run")), 0.0, "local", 64)
    found = pixels.read(one, 0, Box.of_shape(SHAPE))
    assert found[150, 200] == found.max()
    assert found[151, 201] == found.min()


@pytest.mark.parametrize("how", ["none", "local", "clahe"])
def test_what_is_not_a_number_is_background(tmp_path, how):
    image = section("float32")
    image[40:90, 50:140] = np.nan
    one = source(tmp_path, image)
    found = SectionPixels(RunFolder(str(tmp_path / "run")), 7.0, how, 64).read(
        one, 0, Box((30, 30), (120, 160))
    )
    hidden = np.isnan(image[30:120, 30:160])
    assert (found[hidden] == 7).all()
    assert np.isfinite(found).all()


def test_the_range_of_a_section_that_the_windows_miss(tmp_path):
    """Tissue between them, on background that is all alike."""
    image = np.zeros((1600, 1600), np.uint8)
    image[70:200, 70:200] = np.random.default_rng(0).integers(50, 150, (130, 130))
    one = source(tmp_path, image)
    pixels = SectionPixels(RunFolder(str(tmp_path / "run")), 0.0, "clahe", 64)
    assert pixels.read(one, 0, Box((60, 60), (210, 210))).max() > 100
