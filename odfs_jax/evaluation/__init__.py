"""Figures of a swapped clip: against rendered truth, and against dst and src alone."""
