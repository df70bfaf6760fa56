"""Merge modes, masks, colour and the pipeline that writes the swapped video."""
