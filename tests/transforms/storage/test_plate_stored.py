"""A database as the table of a plate."""

import csv

import pytest
import sqlalchemy as sa
from plates import write_plate

from warpbeam.transforms.storage.database import schema
from warpbeam.transforms.storage.database.connect import engine, open_database
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.plate import Selection, read_plate


def store(url, table):
    """The rows of a CSV plate as another program would store them."""
    keys = {}
    with engine(url).begin() as connection:

        def key(kind, *names, **columns):
            if (kind, *names) not in keys:
                keys[kind, *names] = made = schema.key_of(kind.name, *names)
                connection.execute(kind.insert().values(id=made, **columns))
            return keys[kind, *names]

        for row in csv.DictReader(table.open()):
            e, w, c = "e", row["well"], row["channel"]
            own = {"experimentdata_id": key(schema.EXPERIMENT, e, experiment=e)}
            own["welldata_id"] = key(schema.WELL, e, w, well=w, **own)
            own["channeldata_id"] = key(schema.CHANNEL, e, w, c, channel=c, **own)
            numbers = {name: int(row[name]) for name in ("timepoint", "tile")}
            key(schema.TILE, e, w, c, *numbers.values(), **own, **numbers,
                filename=str(table.parent / row["file"]))  # fmt: skip


def test_the_plate_is_that_of_the_table(url, tmp_path):
    table = write_plate(tmp_path / "in", times=2)
    store(url, table)
    wanted = Selection(wells="B2", timepoints="T1", channels="actin")
    for selection in (Selection(), wanted):
        found, given = read_plate(url, selection), read_plate(str(table), selection)
        assert [s.key[1:] for s in found.sites] == [s.key[1:] for s in given.sites]
        assert [s.images for s in found.sites] == [s.images for s in given.sites]
        assert found.channels == given.channels
    assert {s.key.experiment for s in found.sites} == {"e"}
    with pytest.raises(InputError, match="no image is left"):
        read_plate(url, Selection(experiment="another"))


def test_a_database_without_images_is_an_error(url):
    with pytest.raises(InputError, match="names no image"):
        read_plate(url, Selection())


def test_other_tables_are_an_error(url):
    with engine(url).begin() as connection:
        schema.METADATA.drop_all(connection)
    with pytest.raises(InputError, match="cannot be read as a plate"):
        read_plate(url, Selection())


def test_what_is_not_there_is_not_made(tmp_path):
    with pytest.raises(InputError, match=r"no file .*absent.sqlite"):
        read_plate(f"sqlite:///{tmp_path / 'absent.sqlite'}", Selection())
    assert not list(tmp_path.iterdir())


def test_a_password_is_not_shown():
    with pytest.raises(InputError) as raised:
        read_plate("postgresql://me:secret@127.0.0.1:1/nothing", Selection())
    assert "secret" not in str(raised.value)


def test_a_file_that_may_only_be_read_is_enough(tmp_path):
    path = tmp_path / "images.sqlite"
    url = f"sqlite:///{path}"
    open_database(url)
    store(url, write_plate(tmp_path / "in", wells=("A1",), tiles=1))
    engine(url).dispose()
    path.chmod(0o444)
    before = path.read_bytes()
    assert len(read_plate(url, Selection()).sites) == 1
    assert path.read_bytes() == before
    assert sa.inspect(sa.create_engine(url)).get_table_names()
