"""Boxes, chunk grids, affine maps and tile layouts."""
