"""A segmented plate: how many objects each well has, what they are like, and a picture of each."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import cv2
import numpy as np

from warpbeam.pipelines.report import charts, pictures
from warpbeam.pipelines.report.page import Group, Part, Picture, Table
from warpbeam.pipelines.report.reading import Run
from warpbeam.pipelines.report.verdict import Verdict, count, failures
from warpbeam.transforms.segment.files import load_sites, mask_uri, tryall_uri
from warpbeam.transforms.storage import store
from warpbeam.transforms.storage.images import ImageRef, read
from warpbeam.transforms.storage.plate import Site
from warpbeam.transforms.storage.plate.images import read_image
from warpbeam.transforms.storage.plate.selection import row_name, well_place

Array = np.ndarray[Any, Any]
_PICTURE_PX = 300
_MOST_PICTURES = 96
_OUTLINE = (255, 170, 0)
_TABLE_ROWS = 400


def judge_plate(run: Run) -> Verdict:
    """The verdict on a run of `segment`."""
    trouble, numbers = failures(run), run.numbers
    if "objects" not in numbers:
        figures = count(numbers.get("figures", 0), "figure")
        return Verdict("incomplete" if trouble else "good", (*trouble, f"{figures} drawn."))
    words = (
        f"{count(numbers['objects'], 'object')} in {count(numbers['sites'], 'image')}, "
        f"{numbers['objects_per_site']:g} in an image (median)."
    )
    empty = numbers["empty_sites"]
    look = [f"{count(empty, 'image')} without any object."] if empty else []
    level = "incomplete" if trouble else "look" if look else "good"
    return Verdict(level, (*trouble, words, *look))


_SHOWN = ("experiment", "well", "label", "area", "solidity", "eccentricity")


def cells(run: Run) -> dict[str, Array]:
    """Some columns of `cells.parquet`; none before there is one."""
    from pyarrow import parquet

    raw = store.read_bytes(run.folder.table("cells"))
    if raw is None:
        return {}
    table = parquet.read_table(io.BytesIO(raw))
    return {name: table.column(name).to_numpy() for name in _SHOWN if name in table.column_names}


def wells_part(run: Run) -> Part | None:
    """The plate as a map of counts."""
    table = cells(run)
    sites = list(load_sites(run.folder.uri))
    if "label" not in table or not sites:
        return None
    images = Counter(site.key[:2] for site in sites)
    found = Counter(zip(table["experiment"].tolist(), table["well"].tolist(), strict=True))
    rows = [(e, w, n, found[e, w], f"{found[e, w] / n:.4g}") for (e, w), n in images.items()]
    made, (axes,) = charts.figure(7.5, 3.2)
    places = {key: well_place(key[1], "well") for key in images}
    grid = np.full([max(p[axis] for p in places.values()) + 1 for axis in (0, 1)], np.nan)
    for key, place in places.items():
        grid[place] = np.nansum([grid[place], found[key] / images[key]])
    shown = axes.imshow(grid, cmap="viridis")
    axes.set_yticks(range(grid.shape[0]), [row_name(r) for r in range(grid.shape[0])])
    axes.set_xticks(range(grid.shape[1]), [str(c + 1) for c in range(grid.shape[1])])
    charts.label(axes, title="Objects in an image")
    made.colorbar(shown, ax=axes, shrink=0.8)
    head = ("experiment", "well", "images", "objects", "in an image")
    return Part("wells", "Wells", "", [Group([Picture(charts.png(made))])],
                [Table(head, rows[:_TABLE_ROWS])])  # fmt: skip


def objects_part(run: Run) -> Part | None:
    """Distributions of what was measured."""
    table = cells(run)
    if not len(table.get("label", ())):
        return None
    names = {"area": "area, px", "solidity": "solidity", "eccentricity": "eccentricity"}
    made, every = charts.figure(10.5, 2.4, len(names))
    for axes, (name, words) in zip(every, names.items(), strict=True):
        values = table[name].astype(float)
        axes.hist(values[np.isfinite(values)], bins=40, color=charts.BLUE)
        charts.label(axes, x=words, y="objects" if name == "area" else "")
    return Part("objects", "Objects", "", [Group([Picture(charts.png(made))])])


def pictures_part(run: Run) -> Part | None:
    """The first image of each well with its objects outlined; with `tryall`, the figures."""
    config, shown = run.summary["config"], []
    first: dict[tuple[str, str], Site] = {}
    sites = list(load_sites(run.folder.uri))
    for site in sites:
        first.setdefault((site.key.experiment, site.key.well), site)
    for site in list(first.values())[:_MOST_PICTURES]:
        if config["threshold"]["method"] == "tryall":
            png = store.read_bytes(tryall_uri(run.folder.uri, site.key))
            shown += [Picture(png, site.key.name)] if png else []
            continue
        channel = config["threshold"]["channel"] or _first_channel(sites)
        uri = mask_uri(run.folder.uri, site.key, channel)
        if store.read_bytes(uri) is not None:
            image = read_image(site.images[site.channels.index(channel)])
            png = outlined(image, read(ImageRef(uri)))
            shown.append(Picture(png, f"{site.key.experiment} {site.key.name}", _PICTURE_PX))
    if not shown:
        return None
    hidden = len(first) - _MOST_PICTURES
    words = f"The first image of each well; {hidden} more wells are not shown." if hidden > 0 else (
        "The first image of each well.")  # fmt: skip
    return Part("pictures", "Pictures", words, [Group(shown)])


def _first_channel(sites: list[Site]) -> str:
    from warpbeam.transforms.storage.tiles.natural import natural

    return min({name for site in sites for name in site.channels}, key=natural)


def outlined(image: Array, labels: Array) -> bytes:
    """A small picture of an image with the outlines of its objects, as PNG."""
    small = pictures.shrink(image, _PICTURE_PX)
    grey = pictures.grey(small, pictures.stretch(small))
    size = (small.shape[1], small.shape[0])
    near = cv2.resize(labels.astype(np.float64), size, interpolation=cv2.INTER_NEAREST)
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
    edge = (near > 0) & (cv2.erode(near, cross) != cv2.dilate(near, cross))
    colour = np.repeat(grey[..., None], 3, axis=2)
    colour[edge] = _OUTLINE
    return pictures.png(colour)
