"""Face detectors, one a file, and wrappers that make any of them see more or work less."""
