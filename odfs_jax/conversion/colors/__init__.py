"""Colour transfers by name: what `merge.color` does to the predicted face before the mode does."""

from odfs_jax.conversion.colors.base import Transfer
from odfs_jax.conversion.colors.histogram import hist
from odfs_jax.conversion.colors.light import light
from odfs_jax.conversion.colors.linear import lct, mkl, rct
from odfs_jax.conversion.colors.sliced import idt, sot

TRANSFERS: dict[str, Transfer | None] = {
    "none": None,
    "rct": rct,
    "lct": lct,
    "mkl": mkl,
    "idt": idt,
    "sot": sot,
    "hist": hist,
    "light": light,
}
