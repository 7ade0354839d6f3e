"""Segmentation of images: thresholds, labels, properties of objects, and measures of agreement."""
