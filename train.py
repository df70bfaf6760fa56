"""Trains a model on two facesets: `python train.py model=h64 data=src_dst`."""

from odfs_jax.cli import train

if __name__ == "__main__":
    train()
