"""Detect, find landmarks, crop: frames in, aligned face PNGs out."""
