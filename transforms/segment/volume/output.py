"""The labels of the whole volume as an OME-NGFF label image, beside a copy of the image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.segment.blocks import relabel
from warpbeam.transforms.canvas import OutputSettings, canvas_on, lay_out, load_canvas, volume_spec
from warpbeam.transforms.keys import RegionKey, ShardKey
from warpbeam.transforms.segment.volume.frame import BlockFrame, table_uri
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import ngff, store, tables, volume
from warpbeam.transforms.storage.ledger import Key, Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.storage.volume_spec import VolumeSpec
from warpbeam.transforms.tiles import TileReader, load_sources


@dataclass(frozen=True)
class LabelImage:
    """What is written.

    Attributes:
        image: the image as it is copied, or would be.
        name: of the label image.
        dtype: of its voxels.
        source: address of the image that the labels belong to; None for the copy beside them.
    """

    image: VolumeSpec
    name: str
    dtype: str
    source: str | None

    @property
    def labels(self) -> VolumeSpec:
        """The same levels as the image's."""
        image = self.image
        return replace(
            image, uri=labels_uri(image.uri, self.name), shape=(1, 1, *image.shape[2:]),
            chunk=(1, 1, *image.chunk[2:]), shard=(1, 1, *image.shard[2:]), dtype=self.dtype,
            method="mode", channels=(), labels_of=self.source or "../../",
        )  # fmt: skip


def labels_uri(image: str, name: str) -> str:
    return store.join(image, "labels", name)


def image_spec(
    shape: tuple[int, ...],
    settings: OutputSettings,
    run: RunFolder,
    factors: tuple[tuple[int, ...], ...] | None,
) -> VolumeSpec:
    """The copy of an image of a zyx shape; `factors` are those of its own levels, if it has any."""
    canvas = canvas_on(Box.of_shape(shape), settings, run.format)
    spec = volume_spec(canvas, settings, run)
    return spec if factors is None else replace(spec, factors=factors)


def one_layout(settled: Ledger) -> Iterator[Unit]:
    """The single unit, once there are objects."""
    if settled.done():
        yield ("layout",), None


class LayOutLabels:
    """Work of the stage `layout`: empty arrays, and the groups around them."""

    def __init__(self, run: RunFolder, settings: OutputSettings, wanted: LabelImage) -> None:
        self._run, self._settings, self._wanted = run, settings, wanted

    def __call__(self, key: Key, payload: Any) -> Record:
        wanted = self._wanted
        image, labels = wanted.image, wanted.labels
        canvas = canvas_on(Box.of_shape(image.shape[2:]), self._settings, self._run.format)
        specs = [labels] if wanted.source else [image, labels]
        record = lay_out(self._run, canvas, specs, ("relabel/", "image/", "pyramid_", "image_"))
        version = image.ngff or ""
        if wanted.source:
            _write_group(image.uri, version, {})
        names = ngff.labels_group(version, [wanted.name])
        _write_group(store.join(image.uri, "labels"), version, names)
        return record


def _write_group(uri: str, version: str, attributes: dict[str, Any]) -> None:
    for name, value in ngff.group_files(version, attributes).items():
        store.write_json(store.join(uri, name), value)


def list_relabels(frame: BlockFrame, joined: Ledger, settled: Ledger) -> Iterator[Unit]:
    """A unit per block that has labels. Payload: its mark, and that of its final ids."""
    finals = settled.marks()
    for key, mark in joined.marks().items():
        final = finals.get((1, frame.parent(key[1])))
        if final is not None:
            yield RegionKey(*key), [mark, final]


class RelabelBlock:
    """Work of the stage `relabel`: one block, a whole shard of the labels, and its levels."""

    def __init__(self, run: RunFolder, frame: BlockFrame, labels: VolumeSpec) -> None:
        self._run, self._frame, self._labels = run, frame, labels

    def __call__(self, key: RegionKey, payload: Any) -> Record:
        frame, core = self._frame, self._frame.grid.box(key.region)
        local = frame.labels(self._run).read_once(frame.slot(key.region, core))[0, 0]
        final = tables.read_columns(table_uri(self._run, "final", 0, key.region))
        ids = relabel(local, frame.number(key.region), final["part"], final["id"])
        box = Box((0, 0, *core.start), (1, 1, *core.stop))
        pixels = ids.astype(self._labels.dtype)[None, None]
        written = volume.Volume(self._labels).write_with_levels(box, pixels)
        return {
            "bytes_read": local.nbytes,
            "bytes_written": written,
            "labelled": int(np.count_nonzero(ids)),
            "voxels": ids.size,
        }


def list_copies(run: RunFolder, laid_out: Ledger) -> Iterator[Unit]:
    """A unit per shard of the image. Payload: a mark of it."""
    if not laid_out.done():
        return
    source = next(load_sources(run))
    for block in load_canvas(run).grid.indices():
        yield ShardKey(0, block), source.version


class CopyShard:
    """Work of the stage `image`: one whole shard of the image, and its levels."""

    def __init__(self, run: RunFolder, image: VolumeSpec) -> None:
        self._run, self._image = run, image

    def setup(self) -> None:
        self._tiles, self._source = TileReader(self._run), next(load_sources(self._run))

    def __call__(self, key: ShardKey, payload: Any) -> Record:
        box = load_canvas(self._run).grid.box(key.block)
        part = Box(box.start[2:], box.stop[2:])
        channels = range(box.start[1], box.stop[1])
        pixels = np.stack([self._tiles.pixels(self._source, c, part) for c in channels])[None]
        written = volume.Volume(self._image).write_with_levels(box, pixels)
        return {"bytes_read": pixels.nbytes, "bytes_written": written}
