"""A segmented volume: slices with the outlines of its objects, and how large these are."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.pipelines.report import charts, pictures
from warpbeam.pipelines.report.page import Group, Part, Picture, Table
from warpbeam.pipelines.report.reading import Run
from warpbeam.pipelines.report.verdict import Verdict, count, failures
from warpbeam.transforms.segment.volume.output import labels_uri
from warpbeam.transforms.storage import store, volume
from warpbeam.transforms.tiles import TileReader, load_sources

Array = np.ndarray[Any, Any]
_SIDE_PX = 640
_MOST_VOXELS = 16 << 20
_TINT = 0.35
_LARGEST_ROWS = 20
# Most objects of a volume are one, or hardly anything is one: worth a look.
_MUCH, _LITTLE = 0.9, 0.001


def judge_objects(run: Run) -> Verdict:
    """The verdict on a run of `segment` on a volume."""
    trouble, numbers = failures(run), run.numbers
    if "objects" not in numbers:
        return Verdict("incomplete", tuple(trouble))
    share = numbers["labelled_share"]
    words = (
        f"{count(numbers['objects'], 'object')} in {count(numbers['blocks'], 'block')}, "
        f"{100 * share:.3g} % of the volume."
    )
    look = []
    if not numbers["objects"]:
        look.append("No object was found: look at the threshold.")
    elif share > _MUCH or share < _LITTLE:
        look.append("That is hardly what objects take up: look at the threshold and the slices.")
    level = "incomplete" if trouble else "look" if look else "good"
    return Verdict(level, (*trouble, words, *look))


def slices_part(run: Run) -> Part | None:
    """The middle slices across each axis, objects tinted and outlined."""
    config = run.summary["config"]
    uri = labels_uri(run.folder.volume, config["labels"]["name"])
    if volume.stored_spec(uri) is None:
        return None
    shape = volume.open_volume(uri).level(0).shape[2:]
    shown = [_slice(run, uri, shape, axis) for axis in range(3)]
    words = (
        "The slices through the middle of the volume (of large ones their middle part). Colours "
        "tell objects apart and mean nothing else."
    )
    return Part("slices", "Slices", words, [Group(shown)])


def _slice(run: Run, uri: str, shape: tuple[int, ...], axis: int) -> Picture:
    box = _middle(shape, axis)
    labels = volume.open_volume(uri).level(0).read(Box((0, 0, *box.start), (1, 1, *box.stop)))
    source, channel = next(load_sources(run.folder)), run.summary["config"]["input"]["channel"]
    grey = TileReader(run.folder).pixels(source, channel, box)
    picture = tinted(grey.squeeze(axis), labels[0, 0].squeeze(axis))
    across = "zyx"[axis]
    return Picture(picture, f"{across} = {shape[axis] // 2}", raw=True)


def _middle(shape: tuple[int, ...], axis: int) -> Box:
    """The voxels of the middle slice across an axis, no more than a picture needs."""
    side = int(_MOST_VOXELS**0.5)
    size = [1 if k == axis else min(n, side) for k, n in enumerate(shape)]
    return Box.of_shape(size, [(n - s) // 2 for n, s in zip(shape, size, strict=True)])


def tinted(grey: Array, labels: Array) -> bytes:
    """A slice with its objects in colours, outlined, as PNG; ids of any size."""
    # Small numbers for the ids at hand: OpenCV has no 64-bit integers.
    ids, numbers = np.unique(labels, return_inverse=True)
    small = numbers.reshape(labels.shape).astype(np.int32) + (ids[0] != 0)
    factor = min(1.0, _SIDE_PX / max(grey.shape))
    size = tuple(max(1, round(n * factor)) for n in grey.shape[::-1])
    shrunk = pictures.shrink(grey, _SIDE_PX)
    small = cv2.resize(small.astype(np.float64), size, interpolation=cv2.INTER_NEAREST).astype(int)
    shrunk = cv2.resize(shrunk.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    base = np.repeat(pictures.grey(shrunk, pictures.stretch(shrunk))[..., None], 3, axis=2)
    colours = np.random.default_rng(0).integers(60, 256, (small.max() + 2, 3))
    inside = small > 0
    weight = np.where(inside, np.where(_edge(small), 1.0, _TINT), 0.0)[..., None]
    mixed = (1 - weight) * base + weight * colours[small]
    return pictures.png(np.clip(np.rint(mixed), 0, 255).astype(np.uint8))


def _edge(labels: Array) -> Array:
    """Pixels that have a neighbour with another label."""
    wide = labels.astype(np.float64)
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
    return np.asarray(cv2.erode(wide, cross) != cv2.dilate(wide, cross))


def objects_part(run: Run) -> Part | None:
    """How large the objects are, and the largest ones."""
    columns = _columns(run, "objects", ("id", "voxels", "z", "y", "x"))
    if columns is None:
        return None
    voxels = columns["voxels"]
    made, (axes,) = charts.figure(7.0, 2.6)
    edges = np.geomspace(voxels.min(), voxels.max() + 1, 40)
    axes.hist(voxels, bins=edges.tolist(), color=charts.BLUE)
    axes.set_xscale("log")
    charts.label(axes, x="voxels of an object", y="objects")
    largest = np.argsort(-voxels, kind="stable")[:_LARGEST_ROWS]
    rows = [
        (int(columns["id"][k]), int(voxels[k]), *(f"{columns[a][k]:.1f}" for a in "zyx"))
        for k in largest
    ]
    head = ("id", "voxels", "z", "y", "x")
    return Part("objects", "Objects", "The largest ones, with their centroids in voxels.",
                [Group([Picture(charts.png(made))])], [Table(head, rows)])  # fmt: skip


def links_part(run: Run) -> Part | None:
    """How much linked objects of neighbouring sections overlap, and how many links each pair of
    sections has."""
    columns = _columns(run, "links", ("z", "gap", "iou"))
    if columns is None:
        return None
    first, gap, iou = columns.values()
    made, (overlap, along) = charts.figure(10.5, 2.6, 2)
    overlap.hist(iou, bins=np.linspace(0, 1, 41).tolist(), color=charts.BLUE)
    charts.label(overlap, x="overlap (IoU) of what is linked", y="links")
    sections, count_of = np.unique(first[gap == 1], return_counts=True)
    along.plot(sections, count_of, color=charts.GREEN)
    along.set_ylim(bottom=0)
    charts.label(along, x="section", y="links to the next")
    bridges = int((gap > 1).sum())
    words = (
        f"{count(len(iou), 'link')} between sections, {bridges} of them over a section that hides "
        "an object. A section with few links is badly placed, or shows little."
    )
    return Part("links", "Links", words, [Group([Picture(charts.png(made))])])


def _columns(run: Run, name: str, wanted: tuple[str, ...]) -> dict[str, Array] | None:
    """Columns of a table of the run; None where there is none, or nothing in it."""
    from pyarrow import parquet

    raw = store.read_bytes(run.folder.table(name))
    if raw is None:
        return None
    table = parquet.read_table(io.BytesIO(raw), columns=list(wanted))
    return {c: table.column(c).to_numpy() for c in wanted} if table.num_rows else None
