"""The browser studio: a local web app over one workspace. Needs the `[studio]` extra."""
