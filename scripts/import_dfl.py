"""Takes over DeepFaceLab's files: `python scripts/import_dfl.py data=src faces=FOLDER`."""

from odfs_jax.cli import import_dfl

if __name__ == "__main__":
    import_dfl()
