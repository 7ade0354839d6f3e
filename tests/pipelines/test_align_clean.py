"""Which vectors `align` believes, by its settings: expected from the flow that it measured."""

import cv2
import numpy as np
import pytest
import tifffile
from running import align

from warpbeam.kernels.geometry.box import Box
from warpbeam.pipelines.align import AlignJob
from warpbeam.pipelines.align_config import AlignConfig
from warpbeam.transforms.align.frame import FLOW_CHANNELS, clean_uri, flow_uri, load_frame
from warpbeam.transforms.storage import fields
from warpbeam.transforms.storage.run_folder import RunFolder

SIDE = 176
# Nothing is tested but what a test sets.
ANY = {"min_peak_ratio": 1.0, "max_deviation_px": 1e3, "min_component": 1}
HOW = {"patch_px": 32, "scales": (1, 2), "gaps": (1, 2), "bridges": ()}
UP_TO_CLEAN = ["convert", "reduce", "frame", "flow", "clean"]


def texture(rng, shape):
    return np.clip(cv2.GaussianBlur(rng.normal(size=shape), (0, 0), 2) * 200 + 128, 0, 255)


@pytest.fixture(scope="module")
def sections(tmp_path_factory):
    """Three sections: of the second a third has slid by 6 px, of the third a part is lost."""
    folder, rng = tmp_path_factory.mktemp("cleaned"), np.random.default_rng(5)
    first = texture(rng, (SIDE, SIDE))
    slid, torn = np.roll(first, (3, 2), (0, 1)), np.roll(first, (1, -2), (0, 1))
    slid[:, 112:] = np.roll(slid, 6, 0)[:, 112:]
    torn[60:120, 40:100] = texture(rng, (60, 60))
    for z, section in enumerate((first, slid, torn)):
        tifffile.imwrite(folder / f"sec_{z:03d}.tif", section.astype(np.uint8))
    return folder


def kept(sections, output, **flow):
    """The nodes with a vector, `[section, gap, y, x]`; the first section has none."""
    align(
        sections, output, stages=UP_TO_CLEAN, flow=ANY | HOW | flow, rough={"model": "none"},
        run={"workers": 1},
    )  # fmt: skip
    run = RunFolder(str(output))
    shape = load_frame(run).lattice.shape
    vectors = fields.load(clean_uri(run)).read(Box.of_shape((2, 2, 3, *shape)))
    return np.isfinite(vectors).all(axis=1).swapaxes(0, 1)


@pytest.fixture(scope="module")
def measured(sections, tmp_path_factory):
    """Vectors, peak ratio, sharpness and correlation: `[section, gap, scale, (2,) y, x]`."""
    output = tmp_path_factory.mktemp("measured") / "out"
    kept(sections, output)
    run = RunFolder(str(output))
    shape = load_frame(run).lattice.shape
    stored = fields.load(flow_uri(run)).read(Box.of_shape((2, 2, FLOW_CHANNELS, 3, *shape)))
    by_section = stored.transpose(3, 1, 0, 2, 4, 5).astype(float)
    return by_section[:, :, :, :2], *(by_section[:, :, :, channel] for channel in (3, 4, 2))


def there(vectors):
    return np.isfinite(vectors).all(axis=-3)


def combined(vectors, good):
    """Each node's vector from the first scale where it is good, `[section, gap, 2, y, x]`."""
    fine, coarse = np.moveaxis(np.where(good[:, :, :, None], vectors, np.nan), 2, 0)
    return np.where(np.isfinite(fine), fine, coarse)


def agree(got, expected, measured):
    """They are the same, and say something: some vectors are dropped and some are not."""
    np.testing.assert_array_equal(got, expected)
    every = there(measured[0]).any(axis=2)
    assert 0 < expected.sum() < every.sum()


def test_peaks_that_are_not_distinct_are_dropped(sections, measured, tmp_path):
    vectors, ratio, *_ = measured
    agree(
        kept(sections, tmp_path / "out", min_peak_ratio=3.0),
        (there(vectors) & (ratio >= 3)).any(axis=2),
        measured,
    )


def test_blurred_peaks_are_dropped(sections, measured, tmp_path):
    vectors, _, sharpness, _ = measured
    agree(
        kept(sections, tmp_path / "out", min_sharpness=10.0),
        (there(vectors) & (sharpness >= 10)).any(axis=2),
        measured,
    )


def test_patches_that_are_hardly_alike_are_dropped(sections, measured, tmp_path):
    vectors, *_, correlation = measured
    agree(
        kept(sections, tmp_path / "out", min_correlation=0.9),
        (there(vectors) & (correlation >= 0.9)).any(axis=2),
        measured,
    )


def test_vectors_far_from_the_median_of_a_section_are_dropped(sections, measured, tmp_path):
    """What has slid, where less than half has."""
    vectors, *_ = measured
    good = there(vectors)
    for index in np.ndindex(good.shape[:3]):
        middle = [np.median(v[good[index]]) for v in vectors[index]] if good[index].any() else 0
        apart = np.abs(vectors[index] - np.reshape(middle, (-1, 1, 1))).max(axis=0)
        good[index] &= apart <= 4
    agree(kept(sections, tmp_path / "out", max_magnitude_px=4.0), good.any(axis=2), measured)


def test_vectors_unlike_those_around_them_are_dropped(sections, measured, tmp_path):
    vectors, *_ = measured
    good = there(vectors)
    for *index, y, x in np.argwhere(good):
        around = vectors[tuple(index)][:, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        here = vectors[(*index, slice(None), y, x)]
        middle = np.nanmedian(around.reshape(2, -1), axis=1)
        good[(*index, y, x)] = np.abs(here - middle).max() <= 1
    agree(kept(sections, tmp_path / "out", max_deviation_px=1.0), good.any(axis=2), measured)


def test_both_sides_of_a_step_are_dropped(sections, measured, tmp_path):
    vectors, *_ = measured
    whole = combined(vectors, there(vectors))
    good = there(whole)
    for *index, y, x in np.argwhere(there(whole)):
        for other in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            step = whole[(*index, slice(None), y, x)] - whole[(*index, slice(None), *other)]
            if np.abs(step).max() > 2:
                good[(*index, y, x)] = False
    agree(kept(sections, tmp_path / "out", max_gradient_px=2.0), good, measured)


def test_small_pieces_are_dropped(sections, measured, tmp_path):
    vectors, ratio, *_ = measured
    pieces = (there(vectors) & (ratio >= 3)).any(axis=2)
    expected = np.zeros_like(pieces)
    left = set(map(tuple, np.argwhere(pieces).tolist()))
    while left:
        piece, edge = set(), {left.pop()}
        while edge:
            piece |= edge
            near = {(*i, y + j, x + k) for *i, y, x in edge for j, k in ((0, 1), (1, 0))}
            near |= {(*i, y - j, x - k) for *i, y, x in edge for j, k in ((0, 1), (1, 0))}
            edge = near & left
            left -= edge
        if len(piece) >= 8:
            expected[tuple(np.transpose(list(piece)))] = True
    assert expected.sum() < pieces.sum()
    agree(kept(sections, tmp_path / "out", min_peak_ratio=3.0, min_component=8), expected, measured)


def test_coarser_scales_fill_in_from_the_least_gap_on(sections, measured, tmp_path):
    vectors, ratio, *_ = measured
    good = there(vectors) & (ratio >= 3)
    near, far = np.moveaxis(good, 1, 0)
    expected = np.stack([near[:, 0], far.any(axis=1)], axis=1)
    assert (far.any(axis=1) & ~far[:, 0]).any()
    assert (near.any(axis=1) & ~near[:, 0]).any()
    agree(kept(sections, tmp_path / "out", min_peak_ratio=3.0, min_gap=2), expected, measured)


def test_limits_of_none_are_off_and_others_clean_again(sections):
    """What was measured stays as it is."""

    def ledgers(**flow):
        job = AlignJob(AlignConfig(sections=str(sections), output="out", flow=flow))
        return {stage.name: stage.ledger.config_hash for stage in job.graph().stages}

    off = ("min_sharpness", "min_correlation", "max_magnitude_px", "max_gradient_px", "min_gap")
    assert ledgers(**dict.fromkeys(off, 0)) == ledgers()
    for name in off:
        changed = ledgers(**{name: 1})
        assert changed["flow"] == ledgers()["flow"]
        assert changed["clean"] != ledgers()["clean"]
