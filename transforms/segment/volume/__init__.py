"""Stages that label a volume block by block, and make the blocks' labels those of the whole."""
