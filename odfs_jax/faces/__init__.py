"""Face geometry and identity: the 68 points, alignment, crops, masks, head pose, who it is."""
