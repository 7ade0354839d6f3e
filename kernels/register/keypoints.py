"""SIFT keypoints and RANSAC: how one whole image lies on another.

Lowe 2004 (doi 10.1023/B:VISI.0000029664.99615.94). Fast and free in rotation and scale where the
two images show the same thing; on sections that differ it finds too few matches, and says so.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from warpbeam.kernels.montage.solve import Model
from warpbeam.kernels.register.match import RoughMatch, nothing

Image = Float32[np.ndarray, "_ _"]

_FEATURES = 2000
_RATIO = 0.8  # of the best to the second best distance
_REPROJECTION_PX = 4.0
_LEAST_INLIERS = 10
_PERCENTILES = (0.5, 99.5)


def match_keypoints(fixed: Image, moving: Image, model: Model) -> RoughMatch:
    """The transform that most keypoints agree on.

    Args:
        fixed, moving: NaN = no data; shapes may differ.
        model: what it may be.
    """
    detector = cv2.SIFT.create(nfeatures=_FEATURES)
    found = [detector.detectAndCompute(*_as_bytes(image)) for image in (fixed, moving)]
    if any(descriptors is None or len(descriptors) < 2 for _, descriptors in found):
        return nothing("sift")
    (keys_a, a), (keys_b, b) = found
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(a, b, k=2)
    good = [p[0] for p in pairs if len(p) == 2 and p[0].distance < _RATIO * p[1].distance]
    if len(good) < _LEAST_INLIERS:
        return nothing("sift")
    from_xy = np.array([keys_a[m.queryIdx].pt for m in good], np.float32)
    to_xy = np.array([keys_b[m.trainIdx].pt for m in good], np.float32)
    matrix, inliers = _estimated(from_xy, to_xy, model)
    if matrix is None or inliers < _LEAST_INLIERS:
        return nothing("sift")
    # inliers of unrelated images are a Poisson few
    expected = max(len(good) * 0.02, 1.0)
    return RoughMatch(matrix, float((inliers - expected) / np.sqrt(expected)), "sift")


def _as_bytes(image: Image) -> tuple[UInt8[np.ndarray, "_ _"], UInt8[np.ndarray, "_ _"]]:
    known = np.isfinite(image)
    if not known.any():
        return np.zeros(image.shape, np.uint8), known.astype(np.uint8)
    low, high = np.percentile(image[known], _PERCENTILES)
    scaled = (np.where(known, image, low) - low) * (255 / max(high - low, 1e-6))
    return np.clip(scaled, 0, 255).astype(np.uint8), known.astype(np.uint8) * 255


def _estimated(
    from_xy: Float32[np.ndarray, "n 2"], to_xy: Float32[np.ndarray, "n 2"], model: Model
) -> tuple[np.ndarray | None, int]:
    cv2.setRNGSeed(0)
    if model == "affine":
        rows, kept = cv2.estimateAffine2D(
            from_xy, to_xy, method=cv2.RANSAC, ransacReprojThreshold=_REPROJECTION_PX
        )
    else:
        rows, kept = cv2.estimateAffinePartial2D(
            from_xy, to_xy, method=cv2.RANSAC, ransacReprojThreshold=_REPROJECTION_PX
        )
    if rows is None:
        return None, 0
    inside = kept.ravel() > 0
    linear, middle = rows[:, :2], from_xy[inside].mean(axis=0)
    shift = to_xy[inside].mean(axis=0)
    if model == "rigid":
        linear = linear / np.sqrt(max(np.linalg.det(linear), 1e-12))
    elif model == "translation":
        linear = np.eye(2)
    if model != "affine":
        rows = np.column_stack([linear, shift - linear @ middle])
    matrix = np.eye(3)
    matrix[:2] = rows[[1, 0]][:, [1, 0, 2]]  # xy to yx
    return matrix, int(inside.sum())
