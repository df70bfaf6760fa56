"""Merge modes, masks, colors and the pipeline that writes the swapped video."""
