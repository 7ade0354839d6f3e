"""`segment` end to end on the local runner: right objects, the same bytes and rows."""

import errno
import json

import numpy as np
import pytest
import tifffile
from plates import (
    discs,
    masks_of,
    picture,
    plate_and_run,
    rows_of,
    segment,
    write_plate,
    write_rows,
)
from running import fuse, markers, object_hashes
from skimage import filters, measure

from warpbeam.pipelines import cli
from warpbeam.pipelines.segment_config import SegmentConfig
from warpbeam.transforms.storage import tables
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.plate import Selection, read_plate

MASK = "masks/experiment/{well}/{well}_T{time}_{tile}_nuclei_ENCODED.tif"


@pytest.fixture(scope="module")
def plate(tmp_path_factory):
    return plate_and_run(tmp_path_factory.mktemp("plate"))


def test_crops_are_squares_of_every_channel_in_the_order_of_the_labels(plate, tmp_path):
    table, _ = plate
    segment(table, tmp_path / "run", masks={"crops_px": 24})
    for row in tables.read(str(tmp_path / "run" / "cells.parquet"))[::7]:
        name = f"{row['well']}_T{row['timepoint']}_{row['tile']}.tif"
        made = tifffile.imread(tmp_path / "run" / "crops" / "experiment" / row["well"] / name)
        mask = tifffile.imread(tmp_path / "run" / MASK.format(
            well=row["well"], time=row["timepoint"], tile=row["tile"]))  # fmt: skip
        assert made.shape[2:] == (24, 24)
        assert len(made) == mask.max()
        y, x = np.rint(np.argwhere(mask == row["label"]).mean(axis=0)).astype(int)
        inside = np.pad(mask, 24)[y + 12 : y + 36, x + 12 : x + 36] == row["label"]
        square = made[row["label"] - 1, 0].astype(float)
        assert square[inside].mean() > square[~inside].mean()


def test_masks_and_rows_are_those_of_scikit_image(plate):
    table, run = plate
    cells = tables.read(str(run / "cells.parquet"))
    assert len(cells) == 8 * 6
    stored = rows_of(run)
    tiles = {(r["id"]): r for r in stored["tiledata"]}
    for well in ("A1", "B2"):
        for tile in (1, 2):
            name = {"well": well, "time": 1, "tile": tile}
            image = tifffile.imread(table.parent / f"{well}_T1_{tile}_nuclei.tif")
            actin = tifffile.imread(table.parent / f"{well}_T1_{tile}_actin.tif")
            expected = measure.label(image > filters.threshold_otsu(image))
            mask = tifffile.imread(run / MASK.format(**name))
            np.testing.assert_array_equal(mask, expected)
            mine = [c for c in cells
                    if (c["well"], c["timepoint"], c["tile"]) == (well, 1, tile)]  # fmt: skip
            for region in measure.regionprops(expected, image):
                row = mine[region.label - 1]
                assert row["label"] == region.label
                assert row["perimeter"] == pytest.approx(region.perimeter, rel=1e-9)
                assert row["solidity"] == pytest.approx(region.solidity, rel=1e-9)
                assert row["centroid_weighted_y"] == pytest.approx(region.centroid_weighted[0])
                assert row["nuclei:intensity_mean"] == pytest.approx(region.intensity_mean)
                grey = actin[expected == region.label]
                assert row["actin:intensity_std"] == pytest.approx(grey.std(), rel=1e-9)
            in_database = [r for r in stored["celldata"] if tiles[r["tiledata_id"]]["filename"]
                           == str(table.parent / f"{well}_T1_{tile}_nuclei.tif")]  # fmt: skip
            assert sorted(r["area"] for r in in_database) == sorted(c["area"] for c in mine)
    assert len(stored["intensitycelldata"]) == 2 * len(cells)
    assert {r["channel"] for r in stored["channeldata"]} == {"nuclei", "actin"}


def test_plates_are_valid_ome_zarr(plate):
    from ome_zarr_models import open_ome_zarr
    from ome_zarr_models.v05.hcs import HCS

    run = plate[1]
    import zarr

    root = run / "plates" / "experiment.ome.zarr"
    found = open_ome_zarr(zarr.open_group(root, mode="r"))
    assert isinstance(found, HCS)
    field = zarr.open_group(root / "B" / "2" / "1", mode="r")
    labels = field["labels/cells"]
    for t in (0, 1):
        mask = tifffile.imread(run / MASK.format(well="B2", time=t, tile=1))
        np.testing.assert_array_equal(labels["0"][t, 0, 0], mask)
        image = tifffile.imread(plate[0].parent / f"B2_T{t}_1_actin.tif")
        np.testing.assert_array_equal(field["0"][t, 0, 0], image)
    assert labels.attrs["ome"]["image-label"]["source"] == {"image": "../../"}
    assert sorted(labels.array_keys()) == sorted(field.array_keys())  # as many levels
    levels = [labels[name] for name in sorted(labels.array_keys())]
    assert len(levels) > 1
    coarse = levels[1][0, 0, 0]
    assert set(np.unique(coarse)) <= set(np.unique(levels[0][0, 0, 0]))


def test_an_ome_zarr_plate_is_segmented_as_its_images_are(plate, tmp_path):
    segment(plate[1] / "plates" / "experiment.ome.zarr", tmp_path / "run")
    assert masks_of(tmp_path / "run") == masks_of(plate[1])


def test_a_part_of_a_plate_keeps_its_numbers(plate, tmp_path):
    """Written as OME-Zarr and read again; whatever its experiment is called, inside the run."""
    folder = plate[0].parent
    rows = [
        {"experiment": "../a/b", "well": "A1", "timepoint": t, "tile": k, "channel": "nuclei",
         "file": str(folder / f"A1_T{t}_{k}_nuclei.tif")}
        for t in (0, 1) for k in (1, 2)
    ]  # fmt: skip
    table = write_rows(tmp_path / "plate.csv", rows)
    select = {"timepoints": "T1", "tile": 2}
    segment(table, tmp_path / "part", select=select)
    assert {p.name for p in tmp_path.iterdir()} == {"plate.csv", "part"}
    (stored,) = (tmp_path / "part" / "plates").iterdir()
    found = read_plate(str(stored), Selection())
    assert [(s.key.experiment, s.key.name) for s in found.sites] == [("../a/b", "A1_T1_2")]


def test_a_background_needs_several_images(plate, tmp_path):
    """One is its own median, and nothing would be left of it."""
    wanted = {"select": {"tile": 2, "wells": "A1"}, "background": {"correct": "subtract"}}
    outcome = segment(plate[0], tmp_path / "run", expect=1, **wanted)
    causes = {f.stage: f.cause for f in outcome.failures}
    assert "background of a single image" in causes["background"]
    assert "segment" in causes


@pytest.mark.parametrize(
    ("workers", "flags"), [(1, []), (2, ["--direct_running_mode=multi_processing"])]
)
def test_any_workers_give_the_same(plate, tmp_path, workers, flags):
    run = tmp_path / "run"
    segment(plate[0], run, flags, run={"workers": workers})
    assert masks_of(run) == masks_of(plate[1])
    assert object_hashes(run / "plates") == object_hashes(plate[1] / "plates")
    assert rows_of(run) == rows_of(plate[1])
    assert tables.read(str(run / "cells.parquet")) == tables.read(str(plate[1] / "cells.parquet"))


def test_a_montage_is_read_and_segmented_once(tmp_path, monkeypatch):
    from warpbeam.transforms.segment import objects

    tifffile.imwrite(tmp_path / "montage.tif", picture(discs(3), 3))
    table = write_rows(
        tmp_path / "plate.csv",
        [
            {"well": "A1", "tile": k, "file": "montage.tif", "channel": "nuclei"}
            for k in range(1, 10)
        ],
    )
    reads = []
    original = objects.read_image
    monkeypatch.setattr(objects, "read_image", lambda image: reads.append(1) or original(image))
    outcome = segment(table, tmp_path / "run", run={"workers": 1})
    assert len(reads) == 1
    assert outcome.numbers["objects"] == 6
    stored = rows_of(tmp_path / "run")
    assert len(stored["tiledata"]) == 9
    assert len(stored["celldata"]) == 6
    assert {r["newimagemontage"] for r in stored["tiledata"]} == {str(tmp_path / "montage.tif")}
    assert sorted(r["randomcellid_montage"] for r in stored["celldata"]) == [1, 2, 3, 4, 5, 6]


def test_an_image_without_objects_is_no_error(tmp_path):
    table = write_plate(tmp_path / "images", wells=("A1",), channels=("nuclei",))
    tifffile.imwrite(tmp_path / "images" / "A1_T0_2_nuclei.tif", np.zeros((96, 120), np.uint16))
    outcome = segment(table, tmp_path / "run")
    assert outcome.numbers["empty_sites"] == 1
    assert len(rows_of(tmp_path / "run")["tiledata"]) == 2
    assert tifffile.imread(tmp_path / "run" / MASK.format(well="A1", time=0, tile=2)).max() == 0


def test_a_corrupt_image_costs_itself_only(tmp_path):
    table = write_plate(tmp_path / "images", channels=("nuclei",))
    bad = tmp_path / "images" / "B2_T0_1_nuclei.tif"
    image = tifffile.imread(bad)
    tifffile.imwrite(bad, image, compression="zlib")
    sound = bad.read_bytes()
    at = len(sound) // 2
    bad.write_bytes(sound[:at] + bytes(64) + sound[at + 64 :])
    run = tmp_path / "run"
    outcome = segment(table, run, expect=1)
    (failure,) = outcome.failures
    assert (failure.stage, failure.key) == ("segment", ("experiment", "B2", 0, 1))
    assert str(bad) in failure.cause
    assert len(rows_of(run)["tiledata"]) == 3
    assert len(tables.read(str(run / "cells.parquet"))) == 18
    assert not (run / MASK.format(well="B2", time=0, tile=1)).exists()
    done = markers(run, "segment")
    bad.write_bytes(sound)
    segment(table, run)
    assert len(rows_of(run)["celldata"]) == 24
    assert done.items() <= markers(run, "segment").items()


def test_a_full_disk_leaves_no_half_written_site(tmp_path, monkeypatch):
    from warpbeam.transforms.storage import store

    table = write_plate(tmp_path / "images", channels=("nuclei",))
    write, full = store.write_bytes, MASK.format(well="A1", time=0, tile=2)

    def write_bytes(uri, value):
        if str(uri).endswith(full):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(uri, value)

    monkeypatch.setattr(store, "write_bytes", write_bytes)
    outcome = segment(table, tmp_path / "run", expect=1, run={"attempts": 1})
    assert [f.key for f in outcome.failures] == [("experiment", "A1", 0, 2)]
    assert "No space left" in outcome.failures[0].cause
    assert len(rows_of(tmp_path / "run")["celldata"]) == 18
    monkeypatch.undo()
    segment(table, tmp_path / "run")
    assert len(rows_of(tmp_path / "run")["celldata"]) == 24


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": {"channel": "GFP"}}, "no image of a channel"),
        ({"puncta": {"channels": ("GFP",)}}, "no image of a channel"),
        ({"select": {"wells": "C1"}}, "not on the plate"),
        ({"select": {"wells": "A99"}}, "out of range"),
        ({"volume": {"format": "n5"}}, "OME-Zarr alone"),
        ({"database": {"url": "postgresql://nobody@127.0.0.1:1/no"}}, "cannot be reached"),
    ],
)
def test_settings_that_cannot_be(plate, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        segment(plate[0], tmp_path / "run", **settings)
    assert not (tmp_path / "run" / "masks").exists()


def test_background_and_spots(tmp_path):
    folder = tmp_path / "images"
    table = write_plate(folder, wells=("A1",), tiles=5)
    shade = np.linspace(0, 4000, 120)[None]
    for path in folder.glob("*_nuclei.tif"):
        tifffile.imwrite(path, (tifffile.imread(path) + shade).astype(np.uint16))
    for path in folder.glob("*_actin.tif"):
        image, nuclei = tifffile.imread(path), discs(int(path.name.split("_")[2]) - 1)
        y, x = (int(np.mean(c)) for c in np.nonzero(nuclei == 1))
        image[y - 1 : y + 2, x - 1 : x + 2] += 4000
        tifffile.imwrite(path, image)
    run = tmp_path / "run"
    settings = {"puncta": {"channels": ("actin",), "contrast": 300.0}, "tables": {"csv": True}}
    outcome = segment(table, run, background={"correct": "subtract"}, **settings)
    assert outcome.numbers["objects"] == 30  # otsu alone finds the shade
    assert outcome.numbers["puncta"] == 5
    stored = rows_of(run)
    assert len(stored["punctadata"]) == 5
    assert len(stored["intensitypunctadata"]) == 10
    assert {r["celldata_id"] for r in stored["punctadata"]} <= {r["id"] for r in stored["celldata"]}
    lines = (run / "cells.csv").read_text().splitlines()
    assert len(lines) == 31
    assert segment(table, tmp_path / "plain", **settings).numbers["objects"] != 30


def test_tryall_draws_figures_alone(tmp_path):
    table = write_plate(tmp_path / "images", wells=("A1",), channels=("nuclei",))
    outcome = segment(table, tmp_path / "run", threshold={"method": "tryall"})
    assert outcome.numbers == {"figures": 2}
    figures = sorted((tmp_path / "run" / "tryall").rglob("*.png"))
    assert [p.name for p in figures] == ["A1_T0_1.png", "A1_T0_2.png"]
    assert not (tmp_path / "run" / "masks").exists()


def test_the_quick_form(tmp_path, capsys):
    table = write_plate(tmp_path / "images", wells=("A1", "A2", "B1"), times=3)
    chosen = ["--chosen-wells", "A1-B1", "--chosen-wells-toggle", "exclude",
              "--chosen-timepoints", "T0-T1", "--chosen-channels", "nuclei", "--tile", "1",
              "--experiment", "experiment"]  # fmt: skip
    run = tmp_path / "run"
    assert cli.main(["segment", str(table), str(run), *chosen, "--quiet"]) == 0
    assert "objects" in capsys.readouterr().out
    assert sorted(p.name for p in (run / "masks").rglob("*.tif")) == [
        "A2_T0_1_nuclei_ENCODED.tif", "A2_T1_1_nuclei_ENCODED.tif",
    ]  # fmt: skip
    page = (run / "report.html").read_text()
    assert "12 objects in 2 images" in page
    assert page.count("<figure>") == 3  # the map, the distributions, a picture of the one well
    assert json.loads((run / "run.json").read_text())["numbers"]["rows"] == 24


def test_cells_keep_their_numbers_over_time(tmp_path):
    """Discs that move together and a little by themselves; one leaves, one comes."""
    rows, rng = [], np.random.default_rng(8)
    start = np.array([[30, 30], [30, 90], [80, 60], [120, 110], [130, 30], [75, 130]], float)
    y, x = np.mgrid[:170, :170]
    for t in range(3):
        at = start + np.array([9, -7]) * t + rng.normal(0, 1.0, start.shape)
        labels = np.zeros((170, 170), int)
        for k, (cy, cx) in enumerate(at[: 6 - (t == 2)], start=1):
            labels[(y - cy) ** 2 + (x - cx) ** 2 < 64] = k
        if t == 2:
            labels[(y - 15) ** 2 + (x - 150) ** 2 < 64] = 6
        name = f"A1_{t}.tif"
        tifffile.imwrite(tmp_path / name, picture(labels, 0))
        tifffile.imwrite(tmp_path / f"truth_{t}.tif", labels)
        rows.append({"well": "A1", "timepoint": t, "channel": "nuclei", "file": name})
    table, run = write_rows(tmp_path / "plate.csv", rows), tmp_path / "run"
    outcome = segment(table, run, track={"step_px": 12.0, "shift_px": 20.0, "masks": True})
    assert outcome.numbers["cells"] == 7
    seen = {}
    for row in tables.read(str(run / "cells.parquet")):
        truth = tifffile.imread(tmp_path / f"truth_{row['timepoint']}.tif")
        cell = int(truth[round(row["centroid_y"]), round(row["centroid_x"])])
        who = "new" if row["timepoint"] == 2 and cell == 6 else cell
        seen.setdefault(who, set()).add(row["cellid"])
    assert all(len(numbers) == 1 for numbers in seen.values())
    assert len(set.union(*seen.values())) == 7
    for t in range(3):
        name = f"A1/A1_T{t}_*_nuclei_{{}}.tif"
        masks = [tifffile.imread(next((run / kind / "experiment").glob(name.format(end))))
                 for kind, end in (("masks", "ENCODED"), ("tracked", "TRACKED"))]  # fmt: skip
        mine = [r for r in tables.read(str(run / "cells.parquet")) if r["timepoint"] == t]
        wanted = dict.fromkeys([0], 0) | {r["label"]: r["cellid"] for r in mine}
        np.testing.assert_array_equal(masks[1], np.vectorize(wanted.get)(masks[0]))
    stored = rows_of(run)["celldata"]
    assert sorted({r["cellid"] for r in stored}) == [1, 2, 3, 4, 5, 6, 7]
    assert len(stored) == 18


def test_numbers_of_cells_need_masks_to_be_written_into():
    with pytest.raises(ValueError, match=r"needs masks\.tiff"):
        SegmentConfig(plate="a", output="b", track={"masks": True}, masks={"tiff": False})


def test_a_stitched_volume_is_a_montage(tmp_path):
    """Tiles that overlap are fused first; a plane of the volume is segmented as any image is."""
    labels = discs(5, (150, 180), 9)
    whole = picture(labels, 5)
    rows = []
    for y, x in ((0, 0), (0, 84), (54, 0), (54, 84)):
        tifffile.imwrite(tmp_path / f"{y}_{x}.tif", whole[y : y + 96, x : x + 96])
        rows.append({"file": f"{y}_{x}.tif", "y": y, "x": x})
    fuse(write_rows(tmp_path / "tiles.csv", rows), tmp_path / "fused")
    row = {"well": "A1", "channel": "nuclei", "file": "fused/volume.ome.zarr", "file_channel": 0,
           "file_time": 0, "file_plane": 0}  # fmt: skip
    table = write_rows(tmp_path / "plate.csv", [{**row, "tile": k} for k in (1, 2, 3, 4)])
    assert segment(table, tmp_path / "run").numbers["objects"] == 9
    mask = tifffile.imread(tmp_path / "run" / MASK.format(well="A1", time=0, tile=1))
    np.testing.assert_array_equal(mask, measure.label(whole > filters.threshold_otsu(whole)))
