"""Displacement fields between two images: patch correlation, refinement, cleaning."""
