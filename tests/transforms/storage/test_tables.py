"""Tables keep rows, and an absent or empty one reads as no rows."""

import pyarrow.parquet

from warpbeam.transforms.storage import tables


def test_round_trip(tmp_path):
    rows = [
        {
            "tile": "a",
            "moved_px": 1.5,
            "kept": True,
            "matrix": [[1.0, 0.0], [0.0, 1.0]],
            "ncc": None,
        },
        {"tile": "é", "moved_px": 0.0, "kept": False, "matrix": [[2.0]], "ncc": 0.5},
    ]
    uri = str(tmp_path / "x.parquet")
    tables.write(uri, rows)
    assert tables.read(uri) == rows
    assert pyarrow.parquet.read_table(uri).num_rows == 2


def test_no_rows(tmp_path):
    tables.write(str(tmp_path / "x.parquet"), [])
    assert tables.read(str(tmp_path / "x.parquet")) == []
    assert tables.read(str(tmp_path / "nothing.parquet")) == []
