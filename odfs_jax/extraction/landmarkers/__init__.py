"""Landmarkers, one a file: what finds the 68 points of a detected face."""
