"""Where everything of one run lies, below one folder or bucket prefix."""

from __future__ import annotations

from dataclasses import dataclass

from warpbeam.transforms.storage import store
from warpbeam.transforms.storage.ledger import FOLDER

_VOLUME_NAMES = {
    "zarr3": "volume.ome.zarr",
    "zarr2": "volume.ome.zarr",
    "n5": "volume.n5",
    "precomputed": "volume.precomputed",
}


@dataclass(frozen=True)
class RunFolder:
    """Addresses of a run's files; nothing is opened.

    Attributes:
        uri: the folder.
        format: of the volume, which decides its name.
    """

    uri: str
    format: str = "zarr3"

    @property
    def volume(self) -> str:
        """The result."""
        return store.join(self.uri, _VOLUME_NAMES[self.format])

    @property
    def tiff(self) -> str:
        """The result once more, as OME-TIFF."""
        return store.join(self.uri, "volume.ome.tif")

    @property
    def coverage(self) -> str:
        """How many tiles lie on each voxel."""
        return store.join(
            self.uri, "masks", _VOLUME_NAMES[self.format].replace("volume", "coverage")
        )

    @property
    def transforms(self) -> str:
        """One matrix per tile, source voxel to world voxel."""
        return store.join(self.uri, "transforms.json")

    @property
    def summary(self) -> str:
        """Resolved config, versions, input fingerprints, summary numbers, failed keys."""
        return store.join(self.uri, "run.json")

    @property
    def report(self) -> str:
        return store.join(self.uri, "report.html")

    def table(self, name: str) -> str:
        """What was measured, a row per key."""
        return store.join(self.uri, f"{name}.parquet")

    def flat(self, channel: int) -> str:
        """The flat field of a channel, as an .npy file."""
        return store.join(self.uri, "shading", f"flat_c{channel}.npy")

    def dark(self, channel: int) -> str:
        """The dark level of a channel."""
        return store.join(self.uri, "shading", f"dark_c{channel}.json")

    def grey_range(self, channel: int) -> str:
        """The range in which the contrast of a channel is evened out."""
        return store.join(self.uri, "shading", f"range_c{channel}.json")

    @property
    def gains(self) -> str:
        """Gain and offset per tile and channel."""
        return store.join(self.uri, "shading", "gains.json")

    def map(self, name: str) -> str:
        """The coordinate map of a tile."""
        return store.join(self.uri, "maps", f"{name}.ome.zarr")

    def points(self, name: str) -> str:
        """Points of two tiles that show the same, as an .npy file."""
        return store.join(self.uri, FOLDER, "points", f"{name}.npy")

    @property
    def bends(self) -> str:
        """Which tiles have a coordinate map."""
        return store.join(self.uri, FOLDER, "bends.json")

    @property
    def sources(self) -> str:
        """The tile list as the workers read it."""
        return store.join(self.uri, FOLDER, "tiles.json")

    @property
    def canvas(self) -> str:
        """Where the tiles lie on the output."""
        return store.join(self.uri, FOLDER, "canvas.json")

    @property
    def owner(self) -> str:
        """Whose run this folder holds: the job's settings and inputs."""
        return store.join(self.uri, FOLDER, "run.json")

    @property
    def converted(self) -> str:
        """Tiles in chunked storage, for sources that cannot be read in parts."""
        return store.join(self.uri, FOLDER, "tiles.zarr")
