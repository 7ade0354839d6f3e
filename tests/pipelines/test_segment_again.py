"""`segment` done again: nothing twice, on a plate that grew, over another run, with databases."""

import json

import postgres
import pytest
from plates import masks_of, plate_and_run, rows_at, rows_of, segment, write_plate
from running import markers, object_hashes

from warpbeam.pipelines.segment_config import SegmentConfig
from warpbeam.transforms.storage import tables
from warpbeam.transforms.storage.database.connect import engine
from warpbeam.transforms.storage.errors import InputError


@pytest.fixture(scope="module")
def plate(tmp_path_factory):
    return plate_and_run(tmp_path_factory.mktemp("plate"))


def test_the_database_of_a_run_is_the_plate_it_was_made_of(plate, tmp_path, monkeypatch):
    """From any folder, though the table names its files from its own."""
    table, run = plate
    monkeypatch.chdir(table.parent)
    segment(table.name, tmp_path / "beside")
    assert rows_of(tmp_path / "beside") == rows_of(run)
    monkeypatch.chdir(tmp_path)
    segment(f"sqlite:///{tmp_path / 'beside' / 'plate.sqlite'}", tmp_path / "again")
    assert masks_of(tmp_path / "again") == masks_of(run)
    assert rows_of(tmp_path / "again") == rows_of(run)


def test_a_run_may_be_overwritten_in_the_process_that_made_it(plate, tmp_path):
    for method in ("li", "mean", "otsu"):
        segment(plate[0], tmp_path / "run", threshold={"method": method}, overwrite=True)
    assert masks_of(tmp_path / "run") == masks_of(plate[1])
    assert rows_of(tmp_path / "run") == rows_of(plate[1])


def test_what_is_overwritten_leaves_a_shared_database(plate, tmp_path):
    """Objects in another channel than now, or of wells that are left out now."""
    url = f"sqlite:///{tmp_path / 'shared.sqlite'}"
    shared = {"database": {"url": url}, "overwrite": True}
    segment(plate[0], tmp_path / "other", database={"url": url}, select={"wells": "B2"})
    kept = len(rows_at(url)["celldata"])
    segment(plate[0], tmp_path / "run", threshold={"channel": "actin"}, **shared)
    assert len(rows_at(url)["celldata"]) > kept
    segment(plate[0], tmp_path / "run", select={"wells": "A1"}, **shared)
    found = rows_at(url)
    channels = {r["id"]: r["channel"] for r in found["channeldata"]}
    tiles = {r["id"]: channels[r["channeldata_id"]] for r in found["tiledata"]}
    assert {tiles[r["tiledata_id"]] for r in found["celldata"]} == {"nuclei"}
    whole = len(rows_of(plate[1])["celldata"])
    assert len(found["celldata"]) == whole
    masks = [r for r in found["tiledata"] if r["maskpath"]]
    assert {tiles[r["id"]] for r in masks} == {"nuclei"}


def test_a_second_run_does_nothing(plate):
    before, rows = markers(plate[1]), rows_of(plate[1])
    segment(plate[0], plate[1])
    assert markers(plate[1]) == before
    assert rows_of(plate[1]) == rows


def test_rows_come_back_where_the_database_was_lost(plate, tmp_path):
    run = tmp_path / "run"
    segment(plate[0], run)
    segmented, rows = markers(run, "segment"), rows_of(run)
    engine(f"sqlite:///{run / 'plate.sqlite'}").dispose()
    (run / "plate.sqlite").unlink()
    segment(plate[0], run)
    assert rows_of(run) == rows
    assert markers(run, "segment") == segmented


def test_experiments_share_a_database(plate, tmp_path):
    url = f"sqlite:///{tmp_path / 'all.sqlite'}"
    first, second = (write_plate(tmp_path / e, experiment=e, wells=("A1",)) for e in "ab")
    segment(first, tmp_path / "run_a", database={"url": url})
    before = rows_at(url)
    segment(second, tmp_path / "run_b", database={"url": url})
    both = rows_at(url)
    for name, rows in before.items():
        kept = [r for r in both[name] if r in rows]
        assert kept == rows
        assert len(both[name]) == 2 * len(rows)
    segment(first, tmp_path / "again", database={"url": url}, objects={"smallest": 100})
    fewer = rows_at(url)["celldata"]
    assert [r for r in fewer if r["area"] <= 100] == [
        r for r in both["celldata"] if r["area"] <= 100 and r not in before["celldata"]
    ]


@pytest.mark.skipif(bool(postgres.missing()), reason=postgres.missing() or "there is a server")
def test_postgresql_holds_the_same_rows(plate, tmp_path):
    with postgres.server() as url:
        for _ in range(2):
            segment(plate[0], tmp_path / "run", database={"url": url})
        found, expected = rows_at(url), rows_of(plate[1])
        engine(url).dispose()
    for name, rows in expected.items():
        plain = [{k: _plain(v) for k, v in row.items()} for row in found[name]]
        assert plain == [{k: _plain(v) for k, v in row.items()} for row in rows], name


def _plain(value):
    return value.replace("-", "") if isinstance(value, str) else value


def test_a_database_that_goes_away_costs_no_segmentation(tmp_path, monkeypatch):
    from warpbeam.transforms.storage.database import write

    table = write_plate(tmp_path / "images", wells=("A1",), channels=("nuclei",))

    def away(url, site):
        raise ConnectionError("the server closed the connection")

    monkeypatch.setattr(write, "replace_site", away)
    run = tmp_path / "run"
    outcome = segment(table, run, expect=1, run={"attempts": 1})
    assert {f.stage for f in outcome.failures} == {"database"}
    assert rows_of(run)["tiledata"] == []
    segmented = markers(run, "segment")
    monkeypatch.undo()
    segment(table, run)
    assert len(rows_of(run)["celldata"]) == 12
    assert markers(run, "segment") == segmented


def test_no_file_of_the_run_tells_the_password():
    url = "postgresql://me:secret@host/name"
    config = SegmentConfig(plate="p", output="o", database={"url": url})
    assert config.database.url == url
    assert "secret" not in json.dumps(config.model_dump(mode="json"))
    assert config.model_dump()["database"]["url"] == "postgresql://me:***@host/name"


def test_a_plate_grows_while_it_is_recorded(tmp_path):
    """Wells and later times are added to a run; what was done stays as it is."""
    everything = write_plate(tmp_path / "images", times=3)
    lines = everything.read_text().splitlines()
    header, at = lines[0], lines[0].split(",").index("timepoint")
    growing = everything.parent / "growing.csv"
    early = [row for row in lines[1:] if row.startswith("A1") and int(row.split(",")[at]) < 2]
    assert 0 < len(early) < len(lines) - 1
    growing.write_text("\n".join([header, *early]) + "\n")
    segment(growing, tmp_path / "run")
    done = markers(tmp_path / "run", "segment")
    growing.write_text("\n".join(lines) + "\n")
    segment(growing, tmp_path / "run")
    again = markers(tmp_path / "run", "segment")
    assert len(done) == len(early) // 2  # two channels
    assert {name: again.get(name) for name in done} == done
    segment(everything, tmp_path / "whole")
    found = [
        (masks_of(run), object_hashes(run / "plates"), rows_of(run),
         tables.read(str(run / "cells.parquet")))
        for run in (tmp_path / "run", tmp_path / "whole")
    ]  # fmt: skip
    assert found[0] == found[1]
    shrunk = [row for row in lines[1:] if not row.startswith("A1")]
    growing.write_text("\n".join([header, *shrunk]) + "\n")
    with pytest.raises(InputError, match="the output exists"):
        segment(growing, tmp_path / "run")
