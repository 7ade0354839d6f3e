"""Beam: keys move, pixels stay. Public PTransforms around pure functions."""
