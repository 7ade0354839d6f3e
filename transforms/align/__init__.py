"""Serial sections -> one aligned volume.

sections -> reduced copies -> rough matrices -> frame -> flow of neighbours -> cleaned flow
    -> meshes, in blocks along z -> starts of the blocks -> one map per section -> drawn shards

Two frames: the *world*, where each section lies by its rough matrix, and the *aligned* frame.
Flow and meshes live on one lattice of world nodes; a section's map goes from the world to the
aligned frame, and its inverse draws the section.
"""
