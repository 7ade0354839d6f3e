"""A moving volume -> the frame of a fixed one.

both volumes -> reduced copies -> coarse linear map -> passes of (matches, chunk by chunk -> one
    joint field) -> maps -> drawn shards -> quality, chunk by chunk

A point p of the fixed volume shows what the moving one shows at `L (p + d(p))`: `L` is the coarse
linear map, `d` a displacement in fixed voxels on one lattice of nodes over the whole volume. Chunks
emit matches at nodes, never warps, so that they cannot disagree.
"""
