"""One block -> its own labels, and the traits of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.kernels.segment.blocks import Connectivity, label_block
from warpbeam.kernels.segment.solid import BasinSettings, basins, foreground, numbered_inside
from warpbeam.kernels.segment.traits import Traits, measure
from warpbeam.transforms.convert import usable
from warpbeam.transforms.keys import RegionKey
from warpbeam.transforms.segment.volume.frame import BlockFrame, Index, level_uri, table_uri
from warpbeam.transforms.segment.volume.reading import GreyReader, GreySettings
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import store, tables
from warpbeam.transforms.storage.ledger import Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder


@dataclass(frozen=True)
class LabelSettings:
    """What an object of a block is.

    Attributes:
        grey: which grey values are looked at.
        bright: whether objects are above the threshold, or not.
        connectivity: how the voxels of an object hang together; not for basins.
        basins: how touching objects are cut; None for no cuts.
        flat: every section is labelled by itself.
    """

    grey: GreySettings
    bright: bool
    connectivity: Connectivity
    basins: BasinSettings | None
    flat: bool = False


def list_blocks(run: RunFolder, frame: BlockFrame, found: Ledger, converted: Ledger) -> (
    Iterator[Unit]
):  # fmt: skip
    """A unit per block, once there is a threshold. Payload: it, and a mark of the volume."""
    if not found.done():
        return
    level = store.read_json(level_uri(run))
    for source in usable(run, converted):
        for index in frame.grid.indices():
            yield RegionKey(0, index), [level, source.version]


class LabelBlock:
    """Work of the stage `label`: one block with its halo. The array of labels is there."""

    def __init__(self, run: RunFolder, frame: BlockFrame, settings: LabelSettings) -> None:
        self._run, self._frame, self._settings = run, frame, settings

    def setup(self) -> None:
        self._reader = GreyReader(self._run, self._settings.grey)

    def __call__(self, key: RegionKey, payload: Any) -> Record:
        frame, (level, _) = self._frame, payload
        core, box = frame.grid.box(key.region), frame.read_box(key.region)
        grey = self._reader.read(box)
        labels = label_voxels(grey, level, self._settings)
        found = write_labels(self._run, frame, key.region, labels, core.slices_in(box))
        return {"bytes_read": grey.nbytes, **found}


def label_voxels(
    grey: np.ndarray[Any, Any], level: float, settings: LabelSettings
) -> np.ndarray[Any, Any]:
    """Labels of a block with its halo."""
    mask = foreground(grey, level, bright=settings.bright)
    thick = 1 if settings.flat else max(len(mask), 1)
    parts = [_labelled(mask[z : z + thick], settings) for z in range(0, len(mask), thick)]
    return numbered_on(parts, mask.shape)


def numbered_on(
    parts: Sequence[np.ndarray[Any, Any]], shape: Sequence[int]
) -> np.ndarray[Any, Any]:
    """Labels of parts along z, each numbered from 1, as those of a whole of this shape."""
    out, count = [np.zeros(0, np.uint32)], 0
    for part in parts:
        out.append(np.where(part > 0, part + np.uint32(count), np.uint32(0)).ravel())
        count += int(part.max(initial=0))
    return np.concatenate(out).reshape(shape)


def write_labels(
    run: RunFolder,
    frame: BlockFrame,
    index: Index,
    labels: np.ndarray[Any, Any],
    core: tuple[slice, ...],
) -> Record:
    """Stores labels of a block with its halo, of what reaches into the block, and their traits.

    Args:
        run: where to.
        frame: which blocks there are.
        index: of the block.
        labels: numbered from 1; 0 is background.
        core: where the block lies in them.
    """
    if labels[core].shape != labels.shape:
        labels = numbered_inside(labels, core)
    traits = measure(labels[core], frame.grid.box(index).start)
    whole = frame.whole_slot(index)
    out = np.zeros(whole.shape, np.uint32)
    out[frame.slot(index, frame.read_box(index)).slices_in(whole)] = labels
    written = frame.labels(run).write_shards(whole, out)
    written += write_traits(table_uri(run, "traits", 0, index), traits)
    return {"bytes_written": written, "labels": len(traits.voxels)}


def _labelled(mask: np.ndarray[Any, Any], settings: LabelSettings) -> np.ndarray[Any, Any]:
    if settings.basins is None:
        return label_block(mask, settings.connectivity)
    return basins(mask, settings.basins)


def write_traits(uri: str, traits: Traits, **columns: Any) -> int:
    """Stores traits, and columns beside them; returns the bytes."""
    parts: dict[str, Any] = {**columns, "voxels": traits.voxels}
    for name in ("low", "high", "total"):
        values = getattr(traits, name)
        parts |= {f"{name}_{axis}": values[:, k] for k, axis in enumerate("zyx")}
    return tables.write_columns(uri, parts)


def traits_of(columns: dict[str, Any]) -> Traits:
    """What `write_traits` stored, out of its columns."""
    zyx = ({axis: columns[f"{name}_{axis}"] for axis in "zyx"} for name in ("low", "high", "total"))
    low, high, total = (np.stack([part[a] for a in "zyx"], axis=1) for part in zyx)
    return Traits(columns["voxels"], low, high, total)
