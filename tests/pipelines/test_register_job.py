import json

import numpy as np
import ome_zarr_models
import pytest
import tifffile
import zarr
from running import markers, object_hashes, pixels, register
from scipy import ndimage
from volumes import content, draw, make_pair, write_pair

from warpbeam.kernels.maps.interpolate import offsets_at
from warpbeam.kernels.maps.irregular import jacobian
from warpbeam.pipelines import report
from warpbeam.transforms.storage import displacements, tables
from warpbeam.transforms.storage.errors import InputError

PAIR = make_pair()
POINTS = np.stack(np.meshgrid(*(np.arange(6, n - 6, 5.0) for n in PAIR.shape), indexing="ij"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_pair(tmp_path_factory.mktemp("pair"), PAIR)


@pytest.fixture(scope="module")
def registered(files, tmp_path_factory):
    output = tmp_path_factory.mktemp("registered") / "out"
    return output, register(files, output)


def forward(output):
    return displacements.load(str(output / "maps" / "forward.zarr")).read()


def errors(output, pair=PAIR):
    """How far the map is off the truth, over the points whose truth is in view."""
    truth = np.moveaxis(pair.target(np.moveaxis(POINTS, 0, -1)), -1, 0)
    limit = np.reshape(pair.shape, (3, 1, 1, 1)) - 4
    seen = ((truth > 3) & (truth < limit)).all(axis=0)
    found = POINTS + offsets_at(forward(output), POINTS)
    return np.linalg.norm(found - truth, axis=0)[seen]


def test_the_map_is_the_truth(registered):
    output, outcome = registered
    assert np.median(errors(output)) < 0.1
    assert np.quantile(errors(output), 0.95) < 0.25
    assert outcome.numbers["poor_chunks"] == []
    assert outcome.numbers["chunks"] == 4
    assert outcome.numbers["left_median_px"] < 0.2


def test_the_map_does_not_fold_and_is_small(registered):
    output, outcome = registered
    assert jacobian(forward(output)).min() > 0.5
    assert outcome.numbers["map_bytes_per_voxel"] < 0.07  # a whole stride of nodes at each end


def test_the_volume_shows_what_the_fixed_one_shows(registered):
    output, _ = registered
    volume = pixels(output)[0, 0].astype(float)
    fixed, moving = (v.astype(float) for v in draw(PAIR))
    inner = (slice(8, -8),) * 3
    seen = volume[inner] > 0
    assert volume.shape == PAIR.shape
    assert pixels(output).dtype == np.uint16
    before = np.corrcoef(moving[inner][seen], fixed[inner][seen])[0, 1]
    after = np.corrcoef(volume[inner][seen], fixed[inner][seen])[0, 1]
    assert before < 0.5
    assert after > 0.98


def test_the_inverse_map_undoes_the_forward_map(registered):
    output, _ = registered
    inverse = displacements.load(str(output / "maps" / "inverse.zarr")).read()
    there = POINTS + offsets_at(forward(output), POINTS)
    back = there + offsets_at(inverse, there)
    apart = np.linalg.norm(back - POINTS, axis=0)
    assert np.isfinite(apart).mean() > 0.8
    assert np.nanmax(apart) < 0.3


def test_one_chunk_gives_the_same_map_as_many(files, registered, tmp_path):
    output, _ = registered
    whole = register(files, tmp_path / "whole", chunks={"size_px": 1000})
    assert whole.numbers["chunks"] == 1
    np.testing.assert_allclose(forward(tmp_path / "whole").u, forward(output).u, atol=1e-3)


def test_same_bytes_whatever_the_workers(files, registered, tmp_path):
    output, _ = registered
    register(files, tmp_path / "other", ["--direct_num_workers=1"])
    for part in ("volume.ome.zarr", "maps"):
        assert object_hashes(tmp_path / "other" / part) == object_hashes(output / part)


def test_running_again_does_nothing(files, registered):
    output, first = registered
    before, marks = object_hashes(output / "volume.ome.zarr"), markers(output)
    again = register(files, output)
    assert markers(output) == marks
    assert object_hashes(output / "volume.ome.zarr") == before
    assert again.numbers["ncc"] == first.numbers["ncc"]


def test_stages_run_alone(files, registered, tmp_path):
    output, _ = registered
    register(files, tmp_path / "out", stages=["convert", "reduce", "coarse", "match_0"])
    assert not (tmp_path / "out" / "maps").exists()
    done = markers(tmp_path / "out")
    register(files, tmp_path / "out")
    assert {k: v for k, v in markers(tmp_path / "out").items() if k in done} == done
    assert object_hashes(tmp_path / "out" / "maps") == object_hashes(output / "maps")


def test_three_steps_are_the_whole_job(files, registered, tmp_path):
    output, outcome = registered
    there = tmp_path / "out" / "volume.ome.zarr"
    with_tiff = {"draw": {"tiff": True}}
    assert not register(files, tmp_path / "out", step="coarse", **with_tiff).numbers
    with pytest.raises(InputError, match="not run yet"):
        register(files, tmp_path / "out", step="volume", **with_tiff)
    register(files, tmp_path / "out", step="chunks", **with_tiff)
    assert not there.exists()
    last = register(files, tmp_path / "out", step="volume", **with_tiff)
    assert last.numbers["ncc"] == outcome.numbers["ncc"]
    assert object_hashes(there) == object_hashes(output / "volume.ome.zarr")
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "out" / "volume.ome.tif"), pixels(tmp_path / "out").squeeze()
    )


def test_the_tables_and_the_files_say_what_was_done(registered):
    output, _ = registered
    rows = tables.read(str(output / "chunks.parquet"))
    assert [row["chunk"] for row in rows] == ["0,0,0", "0,0,1", "0,1,0", "0,1,1"]
    assert all(row["ncc"] > row["ncc_before"] - 0.05 for row in rows)
    assert all(0 < row["inverse_error_px"] < 0.3 for row in rows)
    assert all(row["ncc"] < row["ncc_ceiling"] + 0.02 <= 1.02 for row in rows)
    held = [row["held_out_px"] for row in rows if row["held_out_px"] is not None]
    assert held
    assert np.median(held) < 0.5  # no worse than the map itself (see above), and a match
    matrix = np.array(json.loads((output / "transforms.json").read_text())["moving"]["matrix"])
    linear = np.linalg.inv(PAIR.matrix)[:3, :3]
    np.testing.assert_allclose(matrix[:, :3], linear, atol=0.13)  # the bend leans
    ome_zarr_models.open_ome_zarr(zarr.open_group(str(output / "volume.ome.zarr"), mode="r"))


def test_the_report_shows_the_pair(registered):
    output, _ = registered
    page = (output / report.write(output)).read_text()
    for title in ("Before and after", "Deformation", "Chunks", "Result"):
        assert f">{title}<" in page
    assert "could not be drawn" not in page
    assert "4 chunks registered" in page


def test_other_voxel_sizes_and_shapes(tmp_path):
    """The moving volume has planes of half the distance, and is cut on one side."""
    truth, pair = content(), make_pair((32, 56, 56), amplitude=1.0)
    z, y, x = (np.arange(n, dtype=float) for n in (76, 56, 50))
    grid = np.stack(np.meshgrid((z - 0.5) / 2, y, x, indexing="ij"), -1)
    moving = np.clip(10 * truth.at(grid) + 500, 0, 65535).astype(np.uint16)
    fixed, _ = draw(pair)
    paths = tmp_path / "f.tif", tmp_path / "m.tif"
    for path, volume in zip(paths, (fixed, moving), strict=True):
        tifffile.imwrite(path, volume, photometric="minisblack")
    register(paths, tmp_path / "out", volumes={"fixed_voxel_um": (1, 1, 1),
                                               "moving_voxel_um": (0.5, 1, 1)})  # fmt: skip
    points = np.stack(np.meshgrid(*(np.arange(10, n - 14, 6.0) for n in pair.shape), indexing="ij"))
    wanted = np.moveaxis(pair.target(np.moveaxis(points, 0, -1)), -1, 0)
    wanted[0] = 2 * wanted[0] + 0.5
    seen = wanted[2] < 44
    found = points + offsets_at(forward(tmp_path / "out"), points)
    apart = np.linalg.norm((found - wanted) * np.reshape([0.5, 1, 1], (3, 1, 1, 1)), axis=0)
    assert np.median(apart[seen]) < 0.15
    assert pixels(tmp_path / "out").shape[2:] == pair.shape


def test_masked_parts_are_not_compared(files, tmp_path):
    fixed, mask = tifffile.imread(files[0]), np.ones(PAIR.shape, np.uint8)
    fixed[:, 20:40, 30:50] = 60000  # a blob that the moving volume does not have
    mask[:, 18:42, 28:52] = 0
    tifffile.imwrite(tmp_path / "fixed.tif", fixed, photometric="minisblack")
    tifffile.imwrite(tmp_path / "mask.tif", mask, photometric="minisblack")
    register((tmp_path / "fixed.tif", files[1]), tmp_path / "out",
             volumes={"fixed_mask": str(tmp_path / "mask.tif")})  # fmt: skip
    assert np.quantile(errors(tmp_path / "out"), 0.95) < 0.6


def test_chunks_that_a_mask_empties_are_left_out(files, tmp_path):
    """No chunk reads the moving volume for them, and none of them is called poor."""
    mask = np.zeros(PAIR.shape, np.uint8)
    mask[:, :20] = 1
    tifffile.imwrite(tmp_path / "mask.tif", mask, photometric="minisblack")
    outcome = register(files, tmp_path / "out", volumes={"fixed_mask": str(tmp_path / "mask.tif")},
                       chunks={"least_known": 0.3})  # fmt: skip
    rows = {row["chunk"]: row for row in tables.read(str(tmp_path / "out" / "chunks.parquet"))}
    assert [name for name, row in rows.items() if row["left_out"]] == ["0,1,0", "0,1,1"]
    assert outcome.numbers["chunks_left_out"] == 2
    assert not {"0,1,0", "0,1,1"} & set(outcome.numbers["poor_chunks"])
    assert np.isfinite(forward(tmp_path / "out").u).all()


def test_landmarks_lead_where_nothing_can_be_compared(files, tmp_path):
    """Half of the fixed volume is masked; a few landmarks there are as good as matches."""
    mask = np.ones(PAIR.shape, np.uint8)
    mask[:, :, 36:] = 0
    tifffile.imwrite(tmp_path / "mask.tif", mask, photometric="minisblack")
    grid = np.meshgrid(*(np.arange(6.0, n - 6, 8) for n in PAIR.shape), indexing="ij")
    fixed = np.stack(grid, -1).reshape(-1, 3)
    fixed = fixed[fixed[:, 2] > 36]
    moving = PAIR.target(fixed)
    lines = [f'"p","true",{",".join(map(str, [*m[::-1], *f[::-1]]))}'
             for f, m in zip(fixed, moving, strict=True)]  # fmt: skip
    (tmp_path / "landmarks.csv").write_text("\n".join(lines))
    masked = {"fixed_mask": str(tmp_path / "mask.tif")}
    register(files, tmp_path / "without", volumes=masked)
    register(files, tmp_path / "with", volumes=masked,
             landmarks={"file": str(tmp_path / "landmarks.csv"), "error_px": 0.2})  # fmt: skip
    worst = [np.quantile(errors(tmp_path / name), 0.9) for name in ("without", "with")]
    assert worst[1] < 0.6 * worst[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"landmarks": {"file": "nowhere.csv"}}, "no such file"),
        ({"volumes": {"fixed_channel": 3}}, "no such channel"),
        ({"volumes": {"moving_mask": "nowhere.tif"}}, "does not exist"),
        ({"run": {"worker_memory_gb": 0.1}}, "more memory"),
    ],
)
def test_settings_that_do_not_fit_are_refused(files, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        register(files, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_one_plane_is_too_thin(files, tmp_path):
    tifffile.imwrite(tmp_path / "flat.tif", tifffile.imread(files[0])[:1])
    with pytest.raises(InputError, match="too thin"):
        register((files[0], tmp_path / "flat.tif"), tmp_path / "out")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda v: np.full_like(v, 7), "shows nothing"),
        (lambda v: np.random.default_rng(5).integers(0, 900, v.shape, np.uint16), "resemble"),
    ],
)
def test_volumes_that_have_nothing_in_common_are_an_error(files, tmp_path, other, message):
    volume = other(tifffile.imread(files[1]))
    tifffile.imwrite(tmp_path / "moving.tif", volume, photometric="minisblack")
    outcome = register((files[0], tmp_path / "moving.tif"), tmp_path / "out", expect=1)
    assert outcome.stopped
    assert message in outcome.failures[0].cause


def test_unknown_engines_and_models_name_the_choices(files, tmp_path):
    from warpbeam.pipelines.register_config import RegisterConfig
    from warpbeam.pipelines.settings import load

    places = {"fixed": "a", "moving": "b", "output": "c"}
    for name, choice in (("engine", "greedy"), ("coarse.model", "similarity"),
                         ("ants.transform", "SyNOnly")):  # fmt: skip
        with pytest.raises(InputError, match=choice):
            load(RegisterConfig, None, places | {name: "nonsense"})
    with pytest.raises(InputError, match="tile lists"):
        load(RegisterConfig, None, places | {"input.flip_y": True})


def test_centres_of_mass_lead_to_the_same_map(files, tmp_path):
    register(files, tmp_path / "out", coarse={"start": "moments", "model": "trsaa"})
    assert np.median(errors(tmp_path / "out")) < 0.1


def test_features_find_a_volume_that_lies_turned(tmp_path):
    pair = make_pair(degrees=120.0)
    files = write_pair(tmp_path, pair)
    assert register(files, tmp_path / "scanned", step="coarse", expect=1).stopped
    outcome = register(files, tmp_path / "out", coarse={"start": "features"})
    assert outcome.numbers["start_score"] > 8
    assert np.median(errors(tmp_path / "out", pair)) < 0.1


def test_a_start_far_from_any_scan_and_the_export_for_itk(files, tmp_path):
    start = tmp_path / "start.json"
    start.write_text(json.dumps({"matrix": PAIR.matrix.tolist()}))
    register(files, tmp_path / "out", coarse={"start": "physical", "initial": str(start)},
             export={"itk": True})  # fmt: skip
    assert np.median(errors(tmp_path / "out")) < 0.1
    ants = pytest.importorskip("ants")
    fixed, moving = (v.astype(np.float32).transpose() for v in draw(PAIR))
    folder = tmp_path / "out" / "transforms"
    drawn = ants.apply_transforms(
        ants.from_numpy(fixed), ants.from_numpy(moving),
        [str(folder / "warp.nii.gz"), str(folder / "affine.mat")],
    ).numpy()  # fmt: skip
    ours = pixels(tmp_path / "out")[0, 0].transpose().astype(float)
    seen = (ours > 0) & (drawn > 0)
    assert seen.mean() > 0.5
    assert np.abs(ours - drawn)[seen].mean() < 2  # of grey values that deviate by 400


def test_a_given_matrix_is_drawn_as_one_resampling_of_the_whole(files, tmp_path):
    start = tmp_path / "start.json"
    start.write_text(json.dumps({"matrix": PAIR.matrix.tolist()}))
    given = {"start": "physical", "initial": str(start), "model": "none"}
    outcome = register(files, tmp_path / "out", engine="none", chunks={"size_px": 32}, coarse=given)
    moving = draw(PAIR)[1].astype(float)
    linear, offset = PAIR.matrix[:3, :3], PAIR.matrix[:3, 3]
    whole = ndimage.affine_transform(moving, linear, offset, order=1, cval=np.nan, prefilter=False)
    ours, seen = pixels(tmp_path / "out")[0, 0], np.isfinite(whole)
    assert outcome.numbers["chunks"] == 6
    assert outcome.numbers["matches"] == 0
    assert np.abs(ours - whole)[seen].max() < 1  # rounded
    wanted = POINTS + offsets_at(forward(tmp_path / "out"), POINTS)
    exact = np.tensordot(linear, POINTS, 1) + offset.reshape(3, 1, 1, 1)
    np.testing.assert_allclose(wanted, exact, atol=1e-4)


def test_a_chunk_that_fails_takes_the_joint_field(files, tmp_path, monkeypatch):
    from warpbeam.transforms.register.chunks import MatchChunk

    measured = MatchChunk._measured

    def failing(self, number, nodes):
        if nodes.start == (0, 0, 0):
            raise ValueError("the engine failed")
        return measured(self, number, nodes)

    monkeypatch.setattr(MatchChunk, "_measured", failing)
    outcome = register(files, tmp_path / "out", run={"failed_share": 0.25})
    assert {failure.key[1] for failure in outcome.failures} == {(0, 0, 0)}  # one of four
    assert np.quantile(errors(tmp_path / "out"), 0.95) < 2
    again = register(files, tmp_path / "out", expect=1, run={"failed_share": 0.2})
    assert len(again.failures) == len(outcome.failures)
