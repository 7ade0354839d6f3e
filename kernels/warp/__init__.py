"""Images and labels drawn through a coordinate map."""
