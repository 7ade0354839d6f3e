"""CPU time of the readers that a plate's images may go through, by format.

    python tests/benchmarks/reader_speed.py --json

`own` is what `segment` takes; tifffile, OpenCV and imageio, in this order, are tried where it
does not know a format. Readers that cannot read a format, or read other values, have no figure. The
least of the repeats counts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import conftest  # noqa: F401  (makes `warpbeam` importable from the checkout)
import cv2
import imageio.v3
import numpy as np
import tifffile

TIFF = {
    "uncompressed": {},
    "deflate": {"compression": "zlib", "predictor": True},
    "LZW": {"compression": "lzw"},
    "zstd": {"compression": "zstd"},
    "tiles, zstd": {"compression": "zstd", "tile": (256, 256)},
}


def own(path: str) -> Any:
    from warpbeam.transforms.storage import images

    return images.read(images.ImageRef(path))


READERS: dict[str, Callable[[str], Any]] = {
    "own": own,
    "tifffile": tifffile.imread,
    "OpenCV": lambda path: cv2.imread(path, cv2.IMREAD_UNCHANGED),
    "imageio": imageio.v3.imread,
}


def write_files(folder: Path, size: int) -> dict[str, Path]:
    """One noisy image of cells in every format."""
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.normal(size=(size, size)), (0, 0), 8)
    wide = (2000 + 20000 * np.clip(smooth / smooth.max(), 0, 1)).astype(np.float64)
    wide = (wide + rng.normal(0, 50, wide.shape)).clip(0, 65535).astype(np.uint16)
    narrow = (wide >> 8).astype(np.uint8)
    found = {}
    for name, layout in TIFF.items():
        found[f"TIFF, {name}"] = path = folder / f"{len(found)}.tif"
        tifffile.imwrite(path, wide, **layout)
    for name, pixels in (("PNG, 16 bit", wide), ("PNG, 8 bit", narrow), ("JPEG", narrow)):
        suffix = "jpg" if name == "JPEG" else "png"
        found[name] = path = folder / f"{len(found)}.{suffix}"
        cv2.imwrite(str(path), pixels)
    return found


def milliseconds(reader: Callable[[str], Any], path: Path, repeats: int) -> tuple[Any, float]:
    least = np.inf
    for _ in range(repeats):
        begin = time.process_time()
        pixels = reader(str(path))
        least = min(least, time.process_time() - begin)
    return pixels, 1000 * least


def run(arguments: argparse.Namespace) -> dict[str, dict[str, float | None]]:
    cv2.utils.logging.setLogLevel(
        cv2.utils.logging.LOG_LEVEL_SILENT
    )  # what it cannot read has no figure
    result: dict[str, dict[str, float | None]] = {}
    with tempfile.TemporaryDirectory() as name:
        for kind, path in write_files(Path(name), arguments.size).items():
            wanted, result[kind] = own(str(path)), {}
            for reader, call in READERS.items():
                try:
                    pixels, spent = milliseconds(call, path, arguments.repeats)
                except Exception:
                    result[kind][reader] = None
                    continue
                right = pixels is not None and np.array_equal(pixels, wanted)
                result[kind][reader] = round(spent, 1) if right else None
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--size", type=int, default=2048, help="px on each side")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    result = run(arguments)
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
