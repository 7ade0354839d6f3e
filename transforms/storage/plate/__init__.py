"""Plates: which image shows which well, time, channel and tile; selections; OME-Zarr plates."""

from warpbeam.transforms.storage.plate.model import Plate, Site, SiteKey
from warpbeam.transforms.storage.plate.reading import read_plate
from warpbeam.transforms.storage.plate.selection import Selection

__all__ = ["Plate", "Selection", "Site", "SiteKey", "read_plate"]
