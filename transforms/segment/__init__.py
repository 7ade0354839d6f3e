"""Segmentation of plates as stages: layout, background, objects, database, tables."""
