"""`segment` on a volume end to end: the labels of blocks are those of the whole volume."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from running import _run, markers, object_hashes
from scipy import ndimage
from solids import balls, grey_of, same_partition, threads, write_image

from warpbeam.kernels.geometry.box import Box
from warpbeam.pipelines import cli, segment_volume
from warpbeam.pipelines.volume_config import SegmentVolumeConfig
from warpbeam.transforms.storage import tables, volume

SMALL = {"chunk_3d": (8, 16, 16), "shard_3d": (8, 32, 32)}
RANK = {6: 1, 18: 2, 26: 3}


def segment(image, output, flags=(), **settings):
    settings["volume"] = SMALL | settings.get("volume", {})
    settings["labels"] = {"fan_out": 2} | settings.get("labels", {})
    return _run(segment_volume.run, SegmentVolumeConfig, image, output, flags, settings)


def labels_of(run, level=0, name="objects"):
    opened = volume.open_volume(str(run / "volume.ome.zarr" / "labels" / name)).level(level)
    return opened.read(Box.of_shape(opened.shape))[0, 0]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    folder = tmp_path_factory.mktemp("image")
    return write_image(folder / "image.ome.zarr", grey_of(threads()), (2.0, 0.5, 0.5))


@pytest.fixture(scope="module")
def plain(image, tmp_path_factory):
    run = tmp_path_factory.mktemp("plain") / "run"
    return run, segment(image, run)


@pytest.mark.parametrize(
    ("connectivity", "shard", "fan_out"),
    [(6, (8, 32, 32), 2), (18, (16, 16, 48), 3), (26, (8, 16, 16), 2), (26, (32, 96, 96), 4)],
)
def test_labels_are_those_of_the_whole_volume(image, tmp_path, connectivity, shard, fan_out):
    run = tmp_path / "run"
    outcome = segment(
        image, run, objects={"connectivity": connectivity}, volume={"shard_3d": shard},
        labels={"fan_out": fan_out},
    )  # fmt: skip
    structure = ndimage.generate_binary_structure(3, RANK[connectivity])
    expected, count = ndimage.label(threads(), structure)
    assert same_partition(labels_of(run), expected)
    assert outcome.numbers["objects"] == count


def test_the_table_says_what_each_object_is(plain):
    run, outcome = plain
    labels = labels_of(run)
    rows = tables.read(str(run / "objects.parquet"))
    ids, counts = np.unique(labels[labels > 0], return_counts=True)
    assert sorted(r["id"] for r in rows) == ids.tolist()
    assert outcome.numbers["largest_object_voxels"] == counts.max()
    voxels = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    for row in sorted(rows, key=lambda r: -r["voxels"])[:10]:
        place = np.argwhere(labels == row["id"])
        assert row["voxels"] == voxels[row["id"]]
        assert row["volume_um3"] == pytest.approx(0.5 * row["voxels"])
        for k, axis in enumerate("zyx"):
            assert row[f"low_{axis}"] == place[:, k].min()
            assert row[f"high_{axis}"] == place[:, k].max() + 1
            assert row[axis] == pytest.approx(place[:, k].mean())


def test_ids_name_the_block_of_an_object(plain):
    ids = np.unique(labels_of(plain[0]))[1:]
    assert (ids >> np.uint64(32)).max() > 0
    assert ((ids & np.uint64(0xFFFFFFFF)) > 0).all()


def test_dense_ids_have_no_gaps(image, plain, tmp_path):
    segment(image, tmp_path / "run", labels={"dense": True})
    dense = labels_of(tmp_path / "run")
    assert same_partition(dense, labels_of(plain[0]))
    assert np.array_equal(np.unique(dense), np.arange(dense.max() + 1))


def test_sizes_are_those_of_whole_objects(image, plain, tmp_path):
    outcome = segment(image, tmp_path / "run", objects={"smallest": 40, "largest": 3000})
    whole = labels_of(plain[0])
    ids, counts = np.unique(whole, return_counts=True)
    kept = ids[(counts > 40) & (counts < 3000) & (ids > 0)]
    expected = np.where(np.isin(whole, kept), whole, 0)
    np.testing.assert_array_equal(labels_of(tmp_path / "run"), expected)
    assert outcome.numbers["objects"] == kept.size
    assert outcome.numbers["objects_left_out"] == ids.size - 1 - kept.size


def test_smoothing_and_threshold_are_those_of_the_whole_volume(image, tmp_path):
    from skimage import filters

    outcome = segment(image, tmp_path / "run", threshold={"gaussian_px": (0.5, 1.0, 1.5)})
    wide = ndimage.gaussian_filter(
        grey_of(threads()).astype(np.float32), (0.5, 1.0, 1.5), truncate=3.0, mode="nearest"
    )
    level = filters.threshold_otsu(wide)
    assert outcome.numbers["threshold"] == pytest.approx(float(level))
    assert same_partition(labels_of(tmp_path / "run"), ndimage.label(wide > level)[0])


def test_levels_are_those_of_the_image_and_hold_no_new_ids(image, plain):
    run = plain[0]
    opened = volume.open_volume(str(run / "volume.ome.zarr" / "labels" / "objects"))
    theirs = volume.open_volume(str(image))
    assert [lv.shape for lv in opened.spec.levels] == [lv.shape for lv in theirs.spec.levels]
    for k in range(1, opened.levels):
        assert set(np.unique(labels_of(run, k))) <= set(np.unique(labels_of(run, k - 1)))
        copied = volume.open_volume(str(run / "volume.ome.zarr")).level(k)
        every = Box.of_shape(copied.shape)
        np.testing.assert_array_equal(copied.read(every), theirs.level(k).read(every))


def test_labels_are_valid_ome_zarr(plain):
    import zarr
    from ome_zarr_models import open_ome_zarr
    from ome_zarr_models.v05.image import Image
    from ome_zarr_models.v05.image_label import ImageLabel

    root = plain[0] / "volume.ome.zarr"
    assert isinstance(open_ome_zarr(zarr.open_group(root, mode="r")), Image)
    found = zarr.open_group(root / "labels" / "objects", mode="r")
    ImageLabel.from_zarr(found)
    assert found.attrs["ome"]["image-label"]["source"] == {"image": "../../"}
    assert zarr.open_group(root / "labels", mode="r").attrs["ome"]["labels"] == ["objects"]
    assert cli.main(["inspect", str(plain[0])]) == 0


def test_labels_alone_name_their_image(image, plain, tmp_path):
    segment(image, tmp_path / "run", labels={"with_image": False})
    np.testing.assert_array_equal(labels_of(tmp_path / "run"), labels_of(plain[0]))
    found = json.loads(
        (tmp_path / "run/volume.ome.zarr/labels/objects/zarr.json").read_text()
    )["attributes"]["ome"]  # fmt: skip
    assert found["image-label"]["source"]["image"] == str(image)
    assert not (tmp_path / "run/volume.ome.zarr/0").exists()


@pytest.mark.parametrize(
    ("workers", "flags"), [(1, []), (2, ["--direct_running_mode=multi_processing"])]
)
def test_any_workers_give_the_same_bytes(image, plain, tmp_path, workers, flags):
    run = tmp_path / "run"
    segment(image, run, flags, run={"workers": workers})
    assert object_hashes(run / "volume.ome.zarr") == object_hashes(plain[0] / "volume.ome.zarr")
    assert tables.read(str(run / "objects.parquet")) == tables.read(
        str(plain[0] / "objects.parquet")
    )


def test_a_second_run_does_nothing(image, plain):
    before = markers(plain[0])
    segment(image, plain[0])
    assert markers(plain[0]) == before


def test_a_block_that_was_lost_is_made_again(image, plain, tmp_path):
    run = tmp_path / "run"
    segment(image, run, stages=["threshold", "label", "join"])
    marks = sorted((run / ".ledger" / "done" / "label").rglob("*@*"))
    marks[3].unlink()
    kept = markers(run, "label")
    segment(image, run)
    assert object_hashes(run / "volume.ome.zarr") == object_hashes(plain[0] / "volume.ome.zarr")
    assert {name: markers(run, "label")[name] for name in kept} == kept


def test_touching_balls_are_cut_and_joined_across_blocks(tmp_path):
    from warpbeam.kernels.segment.metrics import agreement, matches

    truth = balls((36, 80, 80))
    image = write_image(tmp_path / "balls.ome.zarr", grey_of(truth > 0))
    cut = {"enabled": True, "halo_px": (8, 12, 12), "smoothing_um": 1.5}
    found = {}
    for name, shard in (("blocks", (16, 32, 32)), ("whole", (40, 80, 80))):
        segment(image, tmp_path / name, watershed=cut, volume={"shard_3d": shard})
        found[name] = labels_of(tmp_path / name)
        assert matches(truth, found[name], 0.5).f1 > 0.95
    assert agreement(found["whole"], found["blocks"]).rand_error < 0.01
    together = ndimage.label(truth > 0)[1]
    assert together < 0.6 * truth.max()  # without cuts they would be far fewer


def test_a_mask_and_dark_objects(tmp_path):
    mask = threads(3)
    image = write_image(tmp_path / "mask.ome.zarr", mask.astype(np.uint8))
    manual = {"method": "manual", "manual": 0}
    segment(image, tmp_path / "bright", threshold=manual)
    assert same_partition(labels_of(tmp_path / "bright"), ndimage.label(mask)[0])
    segment(image, tmp_path / "dark", threshold={**manual, "objects": "dark"})
    assert same_partition(labels_of(tmp_path / "dark"), ndimage.label(~mask)[0])


def test_a_compressed_tiff_and_an_empty_volume(tmp_path):
    mask = threads(4, (12, 40, 50))
    tifffile.imwrite(tmp_path / "image.tif", grey_of(mask), compression="zlib",
                     photometric="minisblack", metadata={"axes": "ZYX"})  # fmt: skip
    segment(tmp_path / "image.tif", tmp_path / "run")
    assert same_partition(labels_of(tmp_path / "run"), ndimage.label(mask)[0])
    black = write_image(tmp_path / "black.ome.zarr", np.zeros((9, 40, 40), np.uint16))
    outcome = segment(black, tmp_path / "none")
    assert outcome.numbers["objects"] == 0
    assert not labels_of(tmp_path / "none").any()
    assert tables.read(str(tmp_path / "none" / "objects.parquet")) == []


def test_a_corrupt_chunk_loses_its_blocks_alone(image, plain, tmp_path):
    import shutil

    broken = tmp_path / "broken.ome.zarr"
    shutil.copytree(image, broken)
    chunk = broken / "0" / "c" / "0" / "0" / "1" / "0" / "1"
    chunk.write_bytes(chunk.read_bytes()[:100])
    settings = {"threshold": {"method": "manual", "manual": 700}, "labels": {"with_image": False}}
    outcome = segment(broken, tmp_path / "run", expect=1, **settings)
    assert {(f.stage, f.key) for f in outcome.failures} == {("label", (0, (1, 0, 1)))}
    expected = threads()
    expected[8:16, :32, 32:64] = False
    assert same_partition(labels_of(tmp_path / "run"), ndimage.label(expected)[0])
    shutil.copytree(image, broken, dirs_exist_ok=True)
    segment(broken, tmp_path / "run", **settings)
    assert same_partition(labels_of(tmp_path / "run"), ndimage.label(threads())[0])


def test_a_volume_of_which_nothing_can_be_read_fails_with_a_list(image, tmp_path):
    import shutil

    broken = tmp_path / "broken.ome.zarr"
    shutil.copytree(image, broken)
    for chunk in (broken / "0" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(chunk.read_bytes()[:100])
    settings = {"threshold": {"method": "manual", "manual": 700}}
    outcome = segment(broken, tmp_path / "run", expect=1, **settings)
    assert {f.stage for f in outcome.failures} >= {"label"}


def test_a_run_may_be_overwritten_in_the_process_that_made_it(tmp_path):
    few = write_image(tmp_path / "few.ome.zarr", grey_of(threads()[:4]), (2.0, 0.5, 0.5))
    for settings in ({"labels": {"with_image": False}}, {"link": {"enabled": True}}, {}):
        segment(few, tmp_path / "run", overwrite=True, **settings)
    segment(few, tmp_path / "plain")
    np.testing.assert_array_equal(labels_of(tmp_path / "run"), labels_of(tmp_path / "plain"))


SETTINGS = [f"--set=volume.{k}={list(v)}" for k, v in SMALL.items()]


def test_the_quick_form_and_the_job_file(image, tmp_path, capsys):
    assert cli.main(["segment", str(image), str(tmp_path / "quick"), *SETTINGS, "--quiet"]) == 0
    assert "objects" in capsys.readouterr().out
    job = tmp_path / "job.yaml"
    job.write_text(f"image: {image}\noutput: {tmp_path / 'job'}\nlabels: {{dense: true}}\n")
    assert cli.main(["segment", str(job), *SETTINGS, "--quiet"]) == 0
    assert same_partition(labels_of(tmp_path / "quick"), labels_of(tmp_path / "job"))
    capsys.readouterr()
    assert cli.main(["plan", "segment", str(image)]) == 0
    assert "union, settle" in capsys.readouterr().out
    assert cli.main(["explain", "segment"]) == 0
    text = capsys.readouterr().out
    assert "  watershed.halo_px  [" in text
    assert "  select.wells  [" in text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["--set=input.channel=3"], ["there is no such channel", "input.channel"]),
        (["--set=input.time=2"], ["no such time"]),
        (["--set=watershed.halo_px=[0,1,1]"], ["watershed.halo_px", "1 to 512"]),
        (["--set=labels.name=a/b"], ["labels.name"]),
        (["--set=volume.format=n5"], ["labels are OME-Zarr alone", "volume.format"]),
        (["--set=watershed.smooth=1"], ["watershed.smoothing_um?", "warpbeam explain segment"]),
        (["--set=run.worker_memory_gb=0.1"], ["more memory than a worker may have"]),
    ],
)
def test_bad_settings_are_refused_before_any_work(image, tmp_path, capsys, settings, words):
    assert cli.main(["segment", str(image), str(tmp_path / "run"), *settings]) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["missing.ome.zarr", "missing.tif"])
def test_a_volume_that_is_not_there(tmp_path, capsys, name):
    assert cli.main(["segment", str(tmp_path / name), str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "does not exist" in said
    assert "to do:" in said


def test_the_report_shows_slices_with_outlines(plain):
    import cv2

    from warpbeam.pipelines import report
    from warpbeam.pipelines.report.solid import tinted

    text = Path(report.write(plain[0])).read_text()
    assert text.count("data:image/png") == 4
    assert "could not be drawn" not in text
    assert f"{plain[1].numbers['objects']} objects" in text
    # ids that differ beyond what a float holds are still told apart
    labels = np.zeros((20, 30), np.uint64)
    labels[4:16, 4:15], labels[4:16, 15:26] = (1 << 60) + 1, (1 << 60) + 2
    drawn = cv2.imdecode(np.frombuffer(tinted(np.zeros((20, 30)), labels), np.uint8), 1)
    assert not drawn[0, 0].any()
    assert (drawn[10, 9] > 0).all()
    assert (drawn[10, 9] != drawn[10, 20]).any()
    assert drawn[10, 14].sum() > 2 * drawn[10, 9].sum()  # the line between the two
