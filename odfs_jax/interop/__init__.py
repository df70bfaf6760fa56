"""What DeepFaceLab users already have: read safely, and written back as that program reads it."""
