"""Grey values made comparable: what was estimated, as the later stages read it."""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np

from warpbeam.kernels.fuse.view import Shading
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


def save_gains(run: RunFolder, gains: dict[TileKey, list[tuple[float, float]]]) -> None:
    """Stores gain and offset of each tile, one pair per channel."""
    store.write_json(run.gains, {key_name(key): pairs for key, pairs in gains.items()})


def shading_fingerprint(run: RunFolder) -> str:
    """Changes whenever any estimated shading does."""
    raw = {k: store.read_bytes(store.join(run.uri, "shading", k)) for k in _shading_files(run)}
    return digest({k: digest(v.hex()) for k, v in raw.items() if v is not None})


def _shading_files(run: RunFolder) -> list[str]:
    return store.list_keys(store.join(run.uri, "shading") + "/")


class ShadingReader:
    """The shading of each tile; one per worker, because it keeps what it has read."""

    def __init__(self, run: RunFolder, *, with_gains: bool = True) -> None:
        self._run, self._with_gains = run, with_gains
        self._image = functools.cache(load_image)

    @functools.cached_property
    def _gains(self) -> dict[str, list[tuple[float, float]]]:
        return (store.read_json(self._run.gains) or {}) if self._with_gains else {}

    def of(self, key: TileKey, channel: int) -> Shading:
        """The correction of one channel of one tile; the identity where none was estimated."""
        pairs = self._gains.get(key_name(key))
        gain, offset = pairs[channel] if pairs else (1.0, 0.0)
        return Shading(
            self._image(self._run.shading(channel, "flat")),
            self._image(self._run.shading(channel, "dark")),
            gain,
            offset,
        )
