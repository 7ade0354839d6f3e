"""Microscope images in files and stores: what they are, and boxes of their voxels.

`probe` reads the header only, `read` a box. An image is one channel at one time of
one file, in array order zyx or yx; a z axis of one plane is dropped. The dtypes that
come out are those that Neuroglancer reads; float16 and float64 become float32.
"""

from warpbeam.transforms.storage.images.reading import probe, read
from warpbeam.transforms.storage.images.ref import CorruptImageError, ImageInfo, ImageRef, together
from warpbeam.transforms.storage.images.source import open_binary

__all__ = ["CorruptImageError", "ImageInfo", "ImageRef", "open_binary", "probe", "read", "together"]
