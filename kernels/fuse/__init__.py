"""From placed tiles to one image: warp, weigh, blend, cell by cell."""
