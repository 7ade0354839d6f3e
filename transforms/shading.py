"""Grey values made comparable: what was estimated, as the later stages read it."""

from __future__ import annotations

import functools
import hashlib
import io
from typing import Any

import numpy as np

from warpbeam.kernels.shading.correction import Shading
from warpbeam.transforms.keys import TileKey
from warpbeam.transforms.storage import store
from warpbeam.transforms.storage.ledger import digest, key_name
from warpbeam.transforms.storage.run_folder import RunFolder

Image = np.ndarray[Any, Any]


def save_image(uri: str, image: Image) -> None:
    """Stores an array as .npy."""
    buffer = io.BytesIO()
    np.save(buffer, image, allow_pickle=False)
    store.write_bytes(uri, buffer.getvalue())


def load_image(uri: str) -> Image | None:
    """The array stored at `uri`; None if there is none."""
    raw = store.read_bytes(uri)
    return None if raw is None else np.load(io.BytesIO(raw), allow_pickle=False)


def save_flat(run: RunFolder, channel: int, shading: Shading) -> None:
    """Stores the flat field, if there is one, and the dark level of a channel."""
    if shading.flat is None:
        store.delete_prefix(store.join(run.uri, "shading") + "/", f"flat_c{channel}.npy")
    else:
        save_image(run.flat(channel), shading.flat)
    store.write_json(run.dark(channel), shading.dark)


def save_gains(run: RunFolder, gains: dict[TileKey, list[tuple[float, float]]]) -> None:
    """Stores gain and offset of each tile, one pair per channel."""
    store.write_json(run.gains, {key_name(key): pairs for key, pairs in gains.items()})


def shading_fingerprint(run: RunFolder, *kinds: str) -> str:
    """Changes whenever any estimated shading does, or that of some kinds: "flat", "dark", "gains",
    "range"."""
    folder = store.join(run.uri, "shading")
    names = [n for n in store.list_keys(folder + "/") if n.startswith(kinds or "")]
    return digest([hashlib.sha256(raw).hexdigest() for raw in store.read_many(folder, names)])


class ShadingReader:
    """The shading of each tile; one per worker, because it keeps what it has read."""

    def __init__(self, run: RunFolder, *, with_gains: bool = True) -> None:
        self._run, self._with_gains = run, with_gains
        self._flat = functools.cache(self._read_flat)

    def of(self, key: TileKey, channel: int) -> Shading:
        """The correction of one channel of one tile; the identity where none was estimated."""
        flat, dark = self._flat(channel)
        pairs = self._gains.get(key_name(key))
        gain, offset = pairs[channel] if pairs else (1.0, 0.0)
        return Shading(flat, dark, gain, offset)

    def _read_flat(self, channel: int) -> tuple[Image | None, float]:
        dark = store.read_json(self._run.dark(channel))
        return load_image(self._run.flat(channel)), 0.0 if dark is None else dark

    @functools.cached_property
    def _gains(self) -> dict[str, list[tuple[float, float]]]:
        return (store.read_json(self._run.gains) or {}) if self._with_gains else {}
