"""`stitch` end to end: positions against the truth, and what cannot be known is said."""

import json

import numpy as np
import pytest
from phantoms import Waves, damage, shifted, to_uint16, write_list, write_tiff
from running import markers, object_hashes, pixels, stitch
from scipy import ndimage

from warpbeam.transforms.storage import tables

OFF = {"shading": {"flatfield": "off", "gain": "off"}}
LARGE = {"volume": {"shard_2d": (256, 256), "chunk_2d": (128, 128), "pyramid": False}, **OFF}


class Grains:
    """Blurred white noise between its voxels: a few waves would repeat within a volume."""

    mean = 1000.0

    def __init__(self, seed, shape, margin=5):
        noise = np.random.default_rng(seed).standard_normal(shape)
        smooth = ndimage.gaussian_filter(noise, 1.6)
        self._spline = ndimage.spline_filter(200 * smooth / smooth.std(), 5)
        self._margin = margin

    def image(self, shape, matrix):
        grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(float)
        at = grid + (matrix[:-1, -1] + self._margin).reshape(-1, *[1] * len(shape))
        return self.mean + ndimage.map_coordinates(self._spline, at, order=5, prefilter=False)


def cut(folder, truth, nominal, positions, shape, *, blank=lambda *p: False, noise=10.0, **how):
    """Writes tiles of a truth at fractional positions, and their list with nominal ones."""
    rng = np.random.default_rng(1)
    folder.mkdir()
    rows = []
    for k, (at, where) in enumerate(zip(nominal, positions, strict=True)):
        image = truth.image(shape, shifted(*where))
        points = np.meshgrid(*(np.arange(n) + w for n, w in zip(shape, where, strict=True)),
                             indexing="ij")  # fmt: skip
        image = np.where(blank(*points), truth.mean, image) + rng.normal(0, noise, shape)
        write_tiff(folder / f"t{k}.tif", to_uint16(image), **how)
        rows.append({"file": f"t{k}.tif", **dict(zip("zyx"[-len(at) :], at, strict=True))})
    return write_list(folder / "tiles.csv", rows)


def solved(run):
    """Per tile its origin, and whether it is an island, in the order of the list."""
    found = sorted(tables.read(str(run / "tiles.parquet")), key=lambda r: r["tile"])
    return np.array([[row[-1] for row in r["matrix"]][: len(r["shape"])] for r in found]), [
        r["island"] for r in found
    ]


def errors(found, truth, islands):
    apart = found - truth
    main = [i for i, island in enumerate(islands) if not island]
    return np.abs(apart - np.median(apart[main], axis=0))[main].max()


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory):
    """3 x 3 tiles of 192², one blank overlap, and one corner tile all of whose overlaps are."""
    folder = tmp_path_factory.mktemp("stitch")
    truth = Waves.random(5, wavelengths=(5, 60), count=60)
    nominal = [(160 * r, 160 * c) for r in range(3) for c in range(3)]
    positions = np.array(nominal) + np.random.default_rng(1).uniform(-6, 6, (9, 2))

    def blank(y, x):
        between = (x > 150) & (x < 202) & (y < 200)
        around = ((y > 310) & (y < 362) & (x > 310)) | ((x > 310) & (x < 362) & (y > 310))
        return between | around

    tiles = cut(folder / "tiles", truth, nominal, positions, (192, 192), blank=blank)
    outcome = stitch(tiles, folder / "run", **LARGE)
    return tiles, folder / "run", positions, outcome


def test_positions_are_found(mosaic):
    _, run, positions, outcome = mosaic
    found, islands = solved(run)
    assert errors(found, positions, islands) < 0.1
    assert outcome.numbers["residual_max_px"] < 0.1
    assert outcome.numbers["stage_error_max_px"] > 3


def test_blank_links_are_rejected_and_no_other(mosaic):
    links = tables.read(str(mosaic[1] / "links.parquet"))
    rejected = {(r["tile_a"], r["tile_b"]) for r in links if not r["accepted"]}
    assert rejected == {("t0", "t1"), ("t5", "t8"), ("t7", "t8")}
    assert len(links) == 12
    assert all(r["kept"] == r["accepted"] for r in links)
    assert all(r["reason"] for r in links if not r["accepted"])


def test_the_island_is_listed_and_stays(mosaic):
    _, run, _, outcome = mosaic
    found, islands = solved(run)
    assert islands == [False] * 8 + [True]
    assert outcome.numbers["islands"] == outcome.numbers["island_tiles"] == 1
    others = found[:8] - np.array([(160 * r, 160 * c) for r in range(3) for c in range(3)])[:8]
    assert np.abs(found[8] - (320, 320) - np.median(others, axis=0)).max() < 8


def test_the_fused_volume_shows_the_truth(mosaic):
    _, run, positions, _ = mosaic
    origin = np.array(json.loads((run / ".ledger" / "canvas.json").read_text())["origin"])
    found, _ = solved(run)
    offset = np.median((found - positions)[:8], axis=0)
    image = pixels(run)[0, 0, 0]
    truth = Waves.random(5, wavelengths=(5, 60), count=60).image(
        image.shape, shifted(*(origin - offset))
    )
    window = (slice(20, 140), slice(20, 140))  # inside the first tile, far from blank parts
    assert np.corrcoef(image[window].ravel(), truth[window].ravel())[0, 1] > 0.98


def test_transforms_are_those_of_the_table(mosaic):
    stored = json.loads((mosaic[1] / "transforms.json").read_text())
    for row in tables.read(str(mosaic[1] / "tiles.parquet")):
        np.testing.assert_array_equal(stored[row["tile"]]["matrix"], row["matrix"])


def test_again_nothing_is_done_and_elsewhere_the_same(mosaic, tmp_path):
    tiles, run, _, outcome = mosaic
    before = markers(run)
    again = stitch(tiles, run, **LARGE)
    assert markers(run) == before
    assert again.numbers["links_kept"] == outcome.numbers["links_kept"]
    stitch(tiles, tmp_path / "other", ["--direct_num_workers=1"], **LARGE)
    for name in ("volume.ome.zarr", "transforms.json", "links.parquet", "tiles.parquet"):
        one, two = run / name, tmp_path / "other" / name
        if one.is_dir():
            assert object_hashes(one) == object_hashes(two)
        else:
            assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("strips", [16, 192], ids=["read in parts", "converted"])
def test_a_corrupt_tile_does_not_take_its_neighbours_along(tmp_path, strips):
    truth = Waves.random(5, wavelengths=(5, 60), count=60)
    nominal = [(0, 160 * c) for c in range(3)] + [(160, 160 * c) for c in range(3)]
    positions = np.array(nominal) + np.random.default_rng(2).uniform(-5, 5, (6, 2))
    tiles = cut(tmp_path / "tiles", truth, nominal, positions, (192, 192), rowsperstrip=strips)
    bad = tmp_path / "tiles" / "t1.tif"
    intact = damage(bad, at=0.02, count=bad.stat().st_size // 2)
    outcome = stitch(tiles, tmp_path / "run", expect=1, **LARGE)
    assert all(str(bad) in failure.cause for failure in outcome.failures)
    found, islands = solved(tmp_path / "run")
    assert not any(islands[:1] + islands[2:])  # what is sound of the tile may be linked too
    assert errors(found, positions, islands) < 0.1
    linked = markers(tmp_path / "run", "link")
    bad.write_bytes(intact)
    stitch(tiles, tmp_path / "run", **LARGE)
    found, islands = solved(tmp_path / "run")
    assert not any(islands)
    assert errors(found, positions, islands) < 0.1
    kept = [m for m, time in markers(tmp_path / "run", "link").items() if linked.get(m) == time]
    assert kept  # links that do not touch the tile were not measured again


def test_volumes_are_stitched_in_3d(tmp_path):
    truth = Grains(7, (36, 190, 190))
    nominal = [(0, 0, 0), (0, 0, 72), (0, 72, 0), (0, 72, 72)]
    jitter = np.random.default_rng(3).uniform(-1, 1, (4, 3)) * (1.5, 4, 4)
    positions = np.array(nominal) + jitter
    tiles = cut(tmp_path / "tiles", truth, nominal, positions, (24, 96, 96))
    stitch(tiles, tmp_path / "run", link={"search_px": 10, "search_z_px": 4}, **OFF)
    found, islands = solved(tmp_path / "run")
    assert not any(islands)
    assert errors(found, positions, islands) < 0.1


@pytest.mark.parametrize("model", ["rigid", "affine"])
def test_turned_tiles(tmp_path, model):
    truth = Waves.random(9, wavelengths=(6, 60), count=60)
    rng, rows, matrices = np.random.default_rng(4), [], {}
    for k in range(4):
        nominal = np.array(divmod(k, 2)) * 170.0
        angle = np.deg2rad(rng.uniform(-0.3, 0.3))
        matrix = shifted(*(nominal + rng.uniform(-3, 3, 2)))
        matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        image = truth.image((224, 224), matrix) + rng.normal(0, 5, (224, 224))
        write_tiff(tmp_path / f"t{k}.tif", to_uint16(image))
        rows.append({"file": f"t{k}.tif", "y": nominal[0], "x": nominal[1]})
        matrices[f"t{k}"] = matrix
    tiles = write_list(tmp_path / "tiles.csv", rows)
    stitch(tiles, tmp_path / "run", solve={"model": model}, **LARGE)
    stored = json.loads((tmp_path / "run" / "transforms.json").read_text())
    corners = np.array([[0, 0, 1], [0, 223, 1], [223, 0, 1], [223, 223, 1]], float).T
    # The mosaic as a whole may be placed anywhere: that is not what the links tell.
    found = np.concatenate([(np.array(stored[n]["matrix"]) @ corners)[:2].T for n in matrices])
    wanted = np.concatenate([(m @ corners)[:2].T for m in matrices.values()])
    columns = np.hstack([found, np.ones((len(found), 1))])
    placed = columns @ np.linalg.lstsq(columns, wanted, rcond=None)[0]
    assert np.abs(placed - wanted).max() < 0.15
