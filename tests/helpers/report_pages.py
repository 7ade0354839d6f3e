"""Runs of `stitch` whose reports are looked at, and what stands in a page."""

import base64
import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import tifffile
from scipy import ndimage

from warpbeam.pipelines import report, stitch
from warpbeam.pipelines.config import StitchConfig

TILE, STEP = 192, 150
# True position less nominal position, of the tiles row by row.
# They add up to whole numbers per tile, so that the solved positions are whole too.
ERRORS = [(0, 0), (3, -4), (-2, 5), (4, 1), (-3, -2), (4, 0)]
SMALL = {"chunk_2d": (64, 64), "shard_2d": (128, 128), "chunk_3d": (8, 64, 64)}
SMALL["shard_3d"] = (32, 128, 256)


class Page(HTMLParser):
    """The parts of a report that tests ask for."""

    def __init__(self, text):
        super().__init__()
        self.text, self.sections, self.images, self.links, self.words = text, [], [], [], {}
        self._inside = ["page"]
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag in ("section", "div", "dl") and "id" in given:
            self.sections.append(given["id"])
            self._inside.append(given["id"])
        self.images += [(self._inside[-1], given["src"])] if tag == "img" else []
        self.links += [v for k, v in attributes if k in ("src", "href")]

    def handle_endtag(self, tag):
        if tag in ("section", "dl"):
            self._inside.pop()

    def handle_data(self, data):
        self.words[self._inside[-1]] = self.words.get(self._inside[-1], "") + data

    def pictures(self, section):
        found = [uri for inside, uri in self.images if inside == section]
        return [decode(base64.b64decode(uri.split(",", 1)[1])) for uri in found]

    def verdict(self):
        body = re.search(r'<div id="verdict" class="(\w+)">(.*?)</div>', self.text, re.S)
        return body[1], " ".join(re.sub("<[^>]+>", " ", body[2]).split())


def decode(png):
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)


def texture(shape, seed=0):
    noise = np.random.default_rng(seed).normal(size=shape)
    fine, coarse = (ndimage.gaussian_filter(noise, s) for s in (1.5, 8))
    values = fine / fine.std() + coarse / coarse.std()
    return np.clip(120 + 30 * values, 1, 255).astype(np.uint8)


def write_tiles(folder, rows=2, columns=3, replaced=None, compression=None):
    """Cut-outs of one texture at whole-pixel true positions; the list has the nominal ones."""
    folder.mkdir(parents=True, exist_ok=True)
    world = texture((20 + rows * STEP + TILE, 20 + columns * STEP + TILE))
    lines = ["file,y,x"]
    for n in range(rows * columns):
        y, x = (STEP * i for i in divmod(n, columns))
        top, left = 10 + y + ERRORS[n][0], 10 + x + ERRORS[n][1]
        tile = (replaced or {}).get(n, world[top : top + TILE, left : left + TILE])
        tifffile.imwrite(folder / f"t{n}.tif", tile, compression=compression)
        lines.append(f"t{n}.tif,{y},{x}")
    (folder / "tiles.csv").write_text("\n".join(lines))
    return folder / "tiles.csv"


def run_stitch(tiles, output, **settings):
    sizes = SMALL | settings.pop("volume", {})
    config = StitchConfig(
        tiles=str(tiles), output=str(output), volume=sizes, run={"workers": 1}, **settings
    )
    return stitch.run(config)


def stitched(folder):
    """A run of which nothing is wrong."""
    outcome = run_stitch(write_tiles(folder / "in"), folder / "out", volume={"coverage": True})
    assert outcome.report == str(folder / "out" / "report.html")
    return folder / "out"


def page_of(folder):
    return Page((folder / "report.html").read_text())


def rewritten(folder):
    return Page(Path(report.write(folder)).read_text())


def changed(run, link_rows=(), tile_rows=(), failures=(), **numbers):
    """The run with numbers and rows replaced: rows as {index: changes}."""

    def edit(rows, changes):
        return tuple({**row, **dict(changes).get(i, {})} for i, row in enumerate(rows))

    summary = {**run.summary, "numbers": {**run.numbers, **numbers}, "failures": list(failures)}
    return dataclasses.replace(
        run, summary=summary, links=edit(run.links, link_rows), tiles=edit(run.tiles, tile_rows)
    )
