"""Databases of both kinds for the tests."""

import postgres
import pytest

from warpbeam.transforms.storage.database import schema
from warpbeam.transforms.storage.database.connect import engine, open_database


@pytest.fixture(scope="module")
def server():
    if reason := postgres.missing():
        pytest.skip(reason)
    with postgres.server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """An empty database."""
    if request.param == "sqlite":
        address = f"sqlite:///{tmp_path / 'plate.sqlite'}"
    else:
        address = request.getfixturevalue("server")
        with engine(address).begin() as connection:
            schema.METADATA.drop_all(connection)
    open_database(address)
    yield address
    engine(address).dispose()
