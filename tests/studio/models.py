"""A model without a training: a small random network whose mask is solid everywhere."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from omegaconf import OmegaConf

from odfs_jax.config import ModelConfig, config_dir
from odfs_jax.nets import build_net
from odfs_jax.training.checkpoint import Checkpoints
from odfs_jax.training.history import History

# Eyes of a mean face, in shares of a full face's square.
EYES = [[x, 0.4] for x in (0.3, 0.34, 0.38, 0.42, 0.38, 0.34, 0.58, 0.62, 0.66, 0.7, 0.66, 0.62)]

TINY = {"width": 1 / 32, "face_type": "full", "resolution": 32, "border": 0.046875}


def write_model(folder: Path) -> None:
    """A model's folder with one checkpoint."""
    h64 = OmegaConf.load(Path(config_dir()) / "model" / "h64.yaml")
    model = OmegaConf.merge(OmegaConf.structured(ModelConfig), h64, TINY)
    net = build_net(OmegaConf.to_container(model))
    face = jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(net.init, jax.random.key(0), face, face)["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: rng.normal(0, 0.05, a.shape).astype(np.float32), shapes)
    for decoder in ("decoder_src", "decoder_dst"):
        params[decoder]["mask"]["out"]["conv"]["bias"] += 6.0
    checkpoints = Checkpoints(folder)
    config, metadata = {"model": OmegaConf.to_container(model)}, {"src_eyes": EYES}
    checkpoints.save(1, {"nets": {"autoencoder": {"params": params}}}, config, metadata, History())
    checkpoints.finish()
    checkpoints.close()
    OmegaConf.save(OmegaConf.create({"model": model}), folder / "config.yaml")
