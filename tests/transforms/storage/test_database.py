"""The database: rows of a site are replaced as one, in SQLite and in PostgreSQL."""

from dataclasses import replace

import numpy as np
import pytest
import sqlalchemy as sa

from warpbeam.transforms.storage.database import connect, schema, write
from warpbeam.transforms.storage.database.connect import database_url, engine, open_database
from warpbeam.transforms.storage.database.read import read_table
from warpbeam.transforms.storage.database.write import SiteRows, replace_site
from warpbeam.transforms.storage.errors import InputError


def site(cells, *, well="A1", tile=1, experiment="e", puncta=True, value=1.0):
    greys = {name: np.arange(cells) + value for name in schema.GREYS}
    spots = {"cell": np.arange(cells) + 1, "area": np.full(cells, 4),
             "centroid_y": np.zeros(cells), "centroid_x": np.zeros(cells)}  # fmt: skip
    return SiteRows(
        experiment, well, 0, (tile,), "nuclei", ("nuclei", "actin"),
        {"nuclei": {"filename": "a.tif", "maskpath": "m.tif"}, "actin": {"filename": "b.tif"}},
        {"randomcellid": np.arange(1, cells + 1), "area": np.full(cells, 60),
         "centroid_y": np.full(cells, value), "solidity": np.full(cells, np.nan)},
        {"nuclei": greys, "actin": greys},
        {"actin": spots} if puncta else {},
        {"actin": {"nuclei": greys, "actin": greys}} if puncta else {},
    )  # fmt: skip


def counts(url):
    return {name: len(read_table(url, name)) for name in schema.METADATA.tables}


def test_a_rerun_replaces_its_own_rows_and_no_others(url):
    assert replace_site(url, site(5)) == 5 * (1 + 2 + 1 + 2)
    replace_site(url, site(7, tile=2))
    replace_site(url, site(3, experiment="another"))
    others = read_table(url, "celldata")
    before = counts(url)
    assert before["celldata"] == 15
    assert (before["experimentdata"], before["welldata"], before["channeldata"]) == (2, 2, 4)
    replace_site(url, site(5))
    assert counts(url) == before
    assert read_table(url, "celldata") == others  # the same rows have the same keys
    replace_site(url, site(2, value=9.0))
    after = counts(url)
    assert (after["celldata"], after["intensitycelldata"], after["punctadata"]) == (12, 24, 12)
    assert after["intensitypunctadata"] == 24
    tile = {r["id"]: r["tile"] for r in read_table(url, "tiledata")}
    changed = [r for r in read_table(url, "celldata") if r["centroid_y"] == 9.0]
    assert len(changed) == 2
    assert {tile[r["tiledata_id"]] for r in changed} == {1}


def test_values_come_back_as_they_were(url):
    replace_site(url, site(3, value=1 / 3))
    cells = sorted(read_table(url, "celldata"), key=lambda r: r["randomcellid"])
    assert [r["centroid_y"] for r in cells] == [1 / 3] * 3
    assert [r["solidity"] for r in cells] == [None] * 3
    greys = [r["intensity_mean"] for r in read_table(url, "intensitycelldata")]
    assert sorted(greys) == sorted([k + 1 / 3 for k in range(3)] * 2)


def test_a_site_without_objects_is_a_tile_without_cells(url):
    replace_site(url, site(4))
    replace_site(url, site(0))
    found = counts(url)
    assert (found["tiledata"], found["celldata"], found["punctadata"]) == (2, 0, 0)


def test_every_channel_of_a_tile_has_its_file(url):
    """Another run that finds objects in the other channel leaves the first one's mask alone."""
    replace_site(url, site(3))
    other = replace(
        site(2), segmented="actin",
        tile={"nuclei": {"filename": "a.tif"}, "actin": {"filename": "b.tif", "maskpath": "n.tif"}},
    )  # fmt: skip
    replace_site(url, other)
    replace_site(url, site(4))
    name = {r["id"]: r["channel"] for r in read_table(url, "channeldata")}
    rows = {name[r["channeldata_id"]]: r for r in read_table(url, "tiledata")}
    files = {channel: (row["filename"], row["maskpath"]) for channel, row in rows.items()}
    assert files == {"nuclei": ("a.tif", "m.tif"), "actin": ("b.tif", "n.tif")}
    owners = [r["tiledata_id"] for r in read_table(url, "celldata")]
    assert [owners.count(rows[c]["id"]) for c in ("nuclei", "actin")] == [4, 2]


def test_nothing_is_stored_of_a_site_that_fails(url, monkeypatch):
    replace_site(url, site(4))
    before = {name: read_table(url, name) for name in schema.METADATA.tables}
    insert = write._insert

    def failing(connection, table, count, columns):
        if table is schema.PUNCTA:
            raise RuntimeError("stopped half-way")
        return insert(connection, table, count, columns)

    monkeypatch.setattr(write, "_insert", failing)
    for rows in (site(9, value=5.0), site(2, well="C3")):
        with pytest.raises(RuntimeError):
            replace_site(url, rows)
    assert {name: read_table(url, name) for name in schema.METADATA.tables} == before


def test_every_reference_has_an_index(url):
    inspected = sa.inspect(engine(url))
    for name, table in schema.METADATA.tables.items():
        indexed = {tuple(i["column_names"]) for i in inspected.get_indexes(name)}
        for column in table.columns:
            if column.foreign_keys:
                assert (column.name,) in indexed, (name, column.name)


def test_a_database_keeps_its_mark(url):
    assert open_database(url) == open_database(url)


def test_tables_of_another_version_are_refused(url):
    with engine(url).begin() as connection:
        connection.execute(schema.ABOUT.update().values(version=99))
    with pytest.raises(InputError, match="another version") as caught:
        open_database(url)
    assert caught.value.got == "version 99"


def test_tables_of_another_program_are_refused(tmp_path):
    url = f"sqlite:///{tmp_path / 'old.sqlite'}"
    with engine(url).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE celldata (id INTEGER)")
    with pytest.raises(InputError, match="another version"):
        open_database(url)


def test_databases_that_cannot_be_used(tmp_path):
    for url, message in (
        ("postgresql://nobody@127.0.0.1:1/none", "cannot be reached"),
        (f"sqlite:///{tmp_path}/no/such/folder/plate.sqlite", "cannot be reached"),
        ("mysql://host/name", "makes no sense"),
        ("plate.sqlite", "makes no sense"),
    ):
        with pytest.raises(InputError, match=message):
            open_database(url)
    with pytest.raises(InputError) as caught:
        open_database("postgresql://me:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value)


def test_a_database_that_may_only_be_read_is_refused(tmp_path):
    open_database(f"sqlite:///{tmp_path / 'plate.sqlite'}")
    url = f"sqlite:///file:{tmp_path / 'plate.sqlite'}?mode=ro&uri=true"
    with pytest.raises(InputError, match="may only be read"):
        open_database(url)
    with pytest.raises(PermissionError):
        replace_site(url, site(1))


def test_a_busy_database_is_tried_again(tmp_path, monkeypatch):
    from warpbeam.transforms.stage import is_passing

    url = f"sqlite:///{tmp_path / 'plate.sqlite'}"
    open_database(url)
    quick = sa.create_engine(url, connect_args={"timeout": 0.05})
    sa.event.listen(quick, "begin", lambda c: c.exec_driver_sql("BEGIN IMMEDIATE"))
    monkeypatch.setattr(connect, "engine", lambda _: quick)
    with engine(url).begin(), pytest.raises(ConnectionError) as caught:
        replace_site(url, site(1))
    assert is_passing(caught.value)


def test_the_driver_is_named():
    assert database_url("postgresql://a:b@h/n") == "postgresql+pg8000://a:b@h/n"
