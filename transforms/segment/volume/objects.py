"""All objects of a volume in one table, `objects.parquet`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from warpbeam.kernels.segment.traits import nothing
from warpbeam.transforms.segment.volume.frame import table_uri
from warpbeam.transforms.segment.volume.label import traits_of
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import tables
from warpbeam.transforms.storage.ledger import Key, Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder

TABLE = "objects"


def one_table(settled: list[Ledger]) -> Iterator[Unit]:
    """The single unit. Payload: fingerprints of all that settled objects."""
    yield (TABLE,), [ledger.fingerprint() for ledger in settled]


class GatherObjects:
    """Work of the stage `objects`: a row per object, a row group per region.

    Columns: `id`; `voxels`; `volume_um3` where the size of a voxel is known; the bounding box
    `low_z` to `high_x` and the centroid `z`, `y`, `x` in voxels, `high` behind the last one.
    """

    def __init__(
        self, run: RunFolder, settled: list[Ledger], voxel_um: tuple[float, ...] | None
    ) -> None:
        self._run, self._settled, self._voxel = run, settled, voxel_um

    def __call__(self, key: Key, payload: Any) -> Record:
        regions = (
            self._columns(table_uri(self._run, TABLE, level, index))
            for ledger in self._settled
            for level, index in ledger.marks()
        )
        rows, written = tables.write_groups(self._run.table(TABLE), self._columns(None), regions)
        return {"rows": rows, "bytes_written": written}

    def _columns(self, uri: str | None) -> dict[str, Any]:
        """The rows of one region; None gives the columns alone."""
        if uri is None:
            ids, traits = np.zeros(0, np.uint64), nothing()
        else:
            found = tables.read_columns(uri)
            ids, traits = found["id"], traits_of(found)
        columns: dict[str, Any] = {"id": ids, "voxels": traits.voxels}
        if self._voxel is not None:
            columns["volume_um3"] = traits.voxels * float(np.prod(self._voxel))
        for name in ("low", "high"):
            box = getattr(traits, name)
            columns |= {f"{name}_{a}": box[:, k] for k, a in enumerate("zyx")}
        return columns | {a: traits.centroid[:, k] for k, a in enumerate("zyx")}
