import numpy as np
import pytest
from bent_chunk import BEFORE, BEND, FIXED, TEXTURE, apart

from warpbeam.kernels.register.chunk_engine import improved
from warpbeam.kernels.register.greedy import Greedy

pytest.importorskip("picsl_greedy")
NCC = Greedy("medium", "NCC", 2, (1.7, 0.7))


def test_more_iterations_reach_greedy():
    errors = [apart(NCC.displacement(FIXED, TEXTURE, a)) for a in ("dry", "low", "high")]
    assert BEFORE > errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.1 * BEFORE


@pytest.mark.parametrize(("metric", "radius"), [("NCC", 4), ("NMI", 1), ("SSD", 1)])
def test_every_metric_moves_the_chunk_the_right_way(metric, radius):
    engine = Greedy("high", metric, radius, (1.7, 0.7))
    assert apart(engine.displacement(FIXED, TEXTURE, "high")) < 0.4 * BEFORE


def test_the_radius_and_the_smoothing_reach_greedy():
    def roughness(radius, smoothing):
        found = Greedy("low", "NCC", radius, smoothing).displacement(FIXED, TEXTURE, "low")
        return np.abs(np.diff(found, 2, axis=3)).mean()

    assert roughness(2, (1.7, 0.7)) > roughness(2, (1.7, 3.0))
    assert roughness(2, (1.7, 0.7)) != roughness(4, (1.7, 0.7))


def test_the_same_chunk_gives_the_same_bits():
    first, again = (NCC.displacement(FIXED, TEXTURE, "low") for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_unknown_voxels_take_no_part():
    fixed, moving = FIXED.copy(), TEXTURE.copy()
    fixed[:8], moving[-4:] = np.nan, np.nan
    found = NCC.displacement(fixed, moving, "medium")
    assert np.isfinite(found).all()
    inner = (slice(None), slice(14, -10), slice(6, -6), slice(6, -6))
    assert np.linalg.norm((found - BEND)[inner], axis=0).mean() < 0.2 * BEFORE


def test_a_flat_part_is_no_error():
    flat = [np.where(np.arange(44) < 15, np.float32(1000), v) for v in (FIXED, TEXTURE)]
    assert np.isfinite(NCC.displacement(*flat, "low")).all()


def test_chunks_get_better_and_nothing_is_written(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    found = improved(FIXED, TEXTURE, NCC)
    assert found.accuracy == "medium"
    assert found.after > found.before
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
