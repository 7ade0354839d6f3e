"""How tiles of a mosaic lie to each other: links measured pair by pair, judged, and solved."""
