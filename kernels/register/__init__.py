"""Rough matrices between whole images: correlation over shifts and turns, and keypoints."""
