"""The pages of the studio: one module each, with the routes that its script calls."""
