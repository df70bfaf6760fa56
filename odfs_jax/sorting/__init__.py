"""Sorting a faceset: what is measured of a face, the orders, and renaming that can be undone."""
