"""Face geometry: the 68 points, alignment, hull masks, head pose. No networks, no files."""
