"""All objects of a plate in one table: `cells.parquet`, `puncta.parquet`, or CSV as well."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

from warpbeam.transforms.segment.files import load_sites, objects_uri, puncta_uri
from warpbeam.transforms.segment.track import cell_numbers
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import store, tables
from warpbeam.transforms.storage.ledger import Ledger, Record, key_name
from warpbeam.transforms.storage.plate import SiteKey
from warpbeam.transforms.storage.run_folder import RunFolder

_FILES: dict[str, Callable[[str, SiteKey], str]] = {"cells": objects_uri, "puncta": puncta_uri}


def list_tables(
    names: tuple[str, ...], segmented: Ledger, tracked: Ledger | None
) -> Iterator[Unit]:
    """A unit per table; done again whenever a site was."""
    marks = [segmented.fingerprint(), tracked.fingerprint() if tracked is not None else None]
    for name in names:
        yield (name,), marks


class GatherTable:
    """Work of the stage `tables`: the rows of all sites, with what each site is.

    Cells have their numbers as `cellid` where they were tracked.
    """

    def __init__(
        self, run: RunFolder, segmented: Ledger, tracked: Ledger | None, *, csv: bool
    ) -> None:
        self._run, self._segmented, self._tracked, self._csv = run, segmented, tracked, csv

    def __call__(self, key: tuple[str], payload: Any) -> Record:
        import pyarrow
        from pyarrow import csv, parquet

        done, parts = self._segmented.done(), []
        tracked = self._tracked.done() if self._tracked is not None else {}
        for site in load_sites(self._run.uri):
            if key_name(site.key) not in done:
                continue
            part = tables.arrow_table(_FILES[key[0]](self._run.uri, site.key))
            if key[0] == "cells" and key_name(site.key[:2]) in tracked:
                numbers = pyarrow.array(cell_numbers(self._run.uri, site.key))
                part = part.add_column(0, "cellid", numbers)
            for at, (name, value) in enumerate(site.key._asdict().items()):
                part = part.add_column(at, name, pyarrow.array([value] * part.num_rows))
            parts.append(part)
        table = pyarrow.concat_tables(parts, promote_options="permissive") if parts else (
            pyarrow.table({}))  # fmt: skip
        buffer = io.BytesIO()
        parquet.write_table(table, buffer)
        store.write_bytes(self._run.table(key[0]), buffer.getvalue())
        if self._csv:
            text = io.BytesIO()
            csv.write_csv(table, text)
            store.write_bytes(store.join(self._run.uri, f"{key[0]}.csv"), text.getvalue())
        return {"rows": table.num_rows, "bytes_written": buffer.tell()}
