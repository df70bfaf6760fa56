"""Both people's faces, warped and then rebuilt: the training of every swap network."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.data.augment import check_colors, unchanged
from odfs_jax.data.batches import Batch
from odfs_jax.data.faceset import read_eyes
from odfs_jax.errors import UserError
from odfs_jax.faces.spec import to_gray
from odfs_jax.losses import make_loss
from odfs_jax.losses.swap import Target
from odfs_jax.losses.terms import WINDOW, blur_outside, extend_inside, ssim_parts
from odfs_jax.nets import build_net, with_precision
from odfs_jax.nets.base import SwapNet
from odfs_jax.training.objectives.base import Objective
from odfs_jax.training.step import Metrics

# Parts of a network that make a code of a face; the others make a face of a code.
CODERS = ("encoder", "shared", "large_shared", "inter")
EYES_MOUTH = "eyes_mouth"
AT_ONCE = 8  # measured faces, through the network
SCHARR = np.outer([3, 10, 3], [-1, 0, 1]).astype(np.float32) / 16
NET_DRAWS = 1  # folded into a sample's key, which its augmentation splits, for the network's draws


class Autoencoder(Objective):
    """One swap network that learns to rebuild src's and dst's faces, and with that to swap them."""

    exported = "autoencoder"

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Raises UserError naming the key that does not fit."""
        self.config = dict(config)
        self.check_run()
        check_colors(config["augment"])
        net = with_precision(build_net(config["model"]), config["precision"])
        net = net.clone(remat=config["remat"] == "decoders")
        self.nets = {self.exported: net}
        self.optimizers = {self.exported: self.optimizer(self.exported, config["optimizer"])}
        self.loss = make_loss(config["loss"])
        self.outside = _outside(config["loss"])
        self.input_specs = {side: net.input_specs[side] for side in ("src", "dst")}
        self.target_specs = net.target_specs
        self.masks = self.loss.masks
        # `likeness` looks at eyes and mouth, whatever the loss does; skin ends at them.
        if self.held_out_share or self.outside is extend_skin:
            self.masks = tuple(dict.fromkeys((*self.masks, EYES_MOUTH)))
        own = (net.target_specs["dst"].get("dst"), True)
        judged = config["discriminator"]["name"] != "none" and config["discriminator"]["of_swap"]
        self.of_swap = self.loss.of_swap or judged
        if self.of_swap and own != (net.output_spec, net.has_dst_mask):
            raise UserError(
                "loss.face_style, loss.background_style, loss.light, discriminator.of_swap: not "
                "with this network's faces"
            )

    @property
    def net(self) -> SwapNet:
        """The swap network."""
        return self.nets[self.exported]

    def init_params(self, key: jax.Array) -> dict[str, dict]:
        return {self.exported: self.net.init(key, *self.net.blank())["params"]}

    def rebuild(
        self, params: dict[str, dict], batch: Batch, keys: dict[str, jax.Array], step: jax.Array
    ) -> tuple[dict[str, Target], dict[str, Any]]:
        """The targets of a batch's samples by picture, and what the network returns for them."""
        samples = self.sample(batch, keys, step)
        targets = {name: t for _, side in samples.values() for name, t in side.items()}
        if outside := self.outside:
            for target in targets.values():
                target["face"] = outside(target)
        inputs = [samples[side][0] for side in self.sides]
        if self.net.draws:
            inputs.append(jax.vmap(jax.random.fold_in, (0, None))(keys["src"], NET_DRAWS))
        weights = params[self.exported]
        outputs = self.net.apply({"params": weights}, *inputs)
        if self.of_swap:
            for name, own in (("swap", weights), ("decoded_swap", decoders_only(weights))):
                outputs[name] = self.net.apply({"params": own}, inputs[1], method="swap")
        return targets, outputs

    def losses(
        self, params: dict[str, dict], batch: Batch, keys: dict[str, jax.Array], step: jax.Array
    ) -> tuple[dict[str, jax.Array], Metrics]:
        targets, outputs = self.rebuild(params, batch, keys, step)
        loss, metrics = self.loss(outputs, targets, step)
        return {self.exported: loss}, metrics

    def make_measure(self) -> Callable[[dict[str, dict]], Metrics] | None:
        """How like themselves held-out faces are rebuilt; "src_held_out" is SSIM, 1: equal.

        See `likeness`. They are not warped. None where no face is held out.
        """
        batch = self.measured_batch()
        if batch is None:
            return None
        device = jax.local_devices()[0]
        key = jax.random.key(self.config["seed"])
        keys = {side: jax.random.split(key, len(images)) for side, (images, _) in batch.items()}
        draw = jax.jit(partial(self.draw, augment_cfg=unchanged(self.config["augment"])))
        samples = draw(*jax.device_put((batch, keys), device))
        # A network takes src and dst at once, whose numbers of faces may differ.
        count = max(len(faces) for faces, _ in samples.values())
        inputs = [jnp.resize(faces, (count, *faces.shape[1:])) for faces, _ in samples.values()]
        targets = {name: t for _, side in samples.values() for name, t in side.items()}

        @jax.jit
        def measure(params: dict, inputs: list[jax.Array], targets: dict[str, Target]) -> Metrics:
            def rebuild(faces: list[jax.Array]) -> dict[str, jax.Array]:
                outputs = self.net.apply({"params": params}, *(face[None] for face in faces))
                return {name: outputs[name][0][0] for name in targets}

            rebuilt = jax.lax.map(rebuild, inputs, batch_size=min(AT_ONCE, count))
            metrics = {}
            for name, target in targets.items():
                face = rebuilt[name][: len(target["face"])]
                found = likeness(face, target["face"], target["mask"], target[EYES_MOUTH])
                metrics |= {k.replace("ssim", f"{name}_held_out"): v for k, v in found.items()}
            return metrics

        def of(params: dict[str, dict]) -> Metrics:
            return measure(jax.device_put(params[self.exported], device), inputs, targets)

        return of

    def preview(self, params: dict[str, dict], inputs: dict[str, jax.Array]) -> list[jax.Array]:
        """For each person the input and what is rebuilt of it; last, src's face swapped onto dst.

        Five columns for most networks.
        """
        weights = {"params": params[self.exported]}
        rebuilt = self.net.apply(weights, inputs["src"], inputs["dst"])
        swap, *_ = self.net.apply(weights, inputs["dst"], method="swap")
        columns = []
        for side in self.sides:
            columns += [inputs[side], *(rebuilt[name][0] for name in self.target_specs[side])]
        return [*columns, swap]

    def captions(self) -> list[str]:
        captions = []
        for side in self.sides:
            captions += [side, *(f"{name} rebuilt" for name in self.target_specs[side])]
        return [*captions, "swap"]

    def metadata(self) -> dict[str, Any]:
        folder = Path(self.config["data"]["src"]["aligned"])
        eyes = read_eyes(folder, "src", self.net.output_spec.face_type)
        return {"src_eyes": eyes.tolist(), "landmarkers": sorted(self.landmarkers)}


def extend_skin(target: Target) -> jax.Array:
    """The face of `target` whose skin goes on outside of its mask, see `extend_inside`."""
    return extend_inside(target["face"], target["mask"], target[EYES_MOUTH])


def _outside(config: Mapping[str, Any]) -> Callable[[Target], jax.Array] | None:
    """What a `LossConfig` does to the faces to learn outside of their masks; None: nothing."""
    if config["blur_outside"] and config["extend_skin"]:
        raise UserError("loss.blur_outside and loss.extend_skin: only one of them can be true")
    if config["extend_skin"]:
        return extend_skin
    if config["blur_outside"]:
        return lambda target: blur_outside(target["face"], target["mask"])
    return None


def decoders_only(params: dict) -> dict:
    """`params` of a swap network, of which only those that make a face of a code can be moved."""
    return {
        name: jax.lax.stop_gradient(part) if name.startswith(CODERS) else part
        for name, part in params.items()
    }


def likeness(
    face: jax.Array, truth: jax.Array, area: jax.Array, eyes_mouth: jax.Array
) -> dict[str, jax.Array]:
    """Figures of rebuilt faces against `truth`, both [N, R, R, C] in [0, 1], RGB or gray.

    `area` and `eyes_mouth` are [N, R, R, 1] in [0, 1]; a figure is the mean over the faces. They
    are those of `evaluation.truth` that need no registration: a rebuilt face lies where its truth
    does.

    - "ssim": structural similarity of the brightness inside `area`, 1: equal.
    - "ssim/eyes_mouth": the same on eyes and mouth.
    - "ssim/sharpness": gradient energy over the truth's inside `area`; below 1: softer.

    Pictures smaller than SSIM's window raise ValueError.
    """
    face, truth = (p if p.shape[-1] == 1 else to_gray(p) for p in (face, truth))
    luminance, structure = ssim_parts(face, truth)
    edge = WINDOW // 2
    inner = slice(edge, -edge)  # where a window is full
    similar = luminance * structure

    def mean(values: jax.Array, where: jax.Array) -> jax.Array:
        return (values * where).sum((1, 2, 3)) / jnp.maximum(where.sum((1, 2, 3)), 1.0)

    energy, true_energy = (mean(_gradient_energy(p), area[:, 1:-1, 1:-1]) for p in (face, truth))
    return {
        "ssim": mean(similar, area[:, inner, inner]).mean(),
        "ssim/eyes_mouth": mean(similar, eyes_mouth[:, inner, inner]).mean(),
        "ssim/sharpness": (energy / jnp.maximum(true_energy, 1e-12)).mean(),
    }


def _gradient_energy(plane: jax.Array) -> jax.Array:
    """[N, R - 2, R - 2, 1]: the squared gradient of `plane` [N, R, R, 1] by Scharr's operator."""
    kernels = jnp.asarray(np.stack([SCHARR, SCHARR.T], -1)[:, :, None])
    slopes = jax.lax.conv_general_dilated(
        plane, kernels, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return (slopes**2).sum(-1, keepdims=True)
