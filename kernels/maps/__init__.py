"""Coordinate maps and their algebra."""
