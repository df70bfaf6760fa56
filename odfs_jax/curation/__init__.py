"""Sorting, pruning, checking and packing a folder of aligned faces."""
