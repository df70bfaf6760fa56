"""A DFM, the model file that DeepFaceLab exports, as a swapper: `load_dfm`.

A DFM is an ONNX model under names that DeepFaceLive, facefusion and VisoMaster know: one input
[N, R, R, 3], of an AMP model a second one, and three outputs that are read by their place. Its
pictures are BGR. It does not say how faces are cut for it, nor what it wants of its edges; ours do,
in their metadata.

Such a file is mostly a stranger's. It may have no loops and no data outside of itself, its inputs
and outputs are checked, and it has to swap a gray face before it is used. See docs/export.md.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.data import foreign
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.types import FaceType
from odfs_jax.inference import Params, Swapper
from odfs_jax.nets.layers import Swap
from odfs_jax.runtime.extras import extra
from odfs_jax.saved_model import MODEL_RANGES

log = logging.getLogger(__name__)

SUFFIXES = (".dfm", ".onnx")
FACE, MORPH = "in_face:0", "morph_value:0"  # float32 [N, R, R, 3] in [0, 1]; [1] in [0, 1]
OUTPUTS = ("out_face_mask:0", "out_celeb_face:0", "out_celeb_face_mask:0")  # dst's mask, the swap
FACE_TYPE, SETTINGS = "odfs.face_type", "odfs.settings"  # in our own files' metadata
USUAL = FaceType.DFL_WHOLE  # what nearly all DFMs are trained on
MOST_BYTES = 1 << 31  # protobuf's own limit
SIDES = (16, 2048)  # pixels of a face
MOST_FACES = 64  # of one call, where the file fixes their number


def is_dfm(name: str | None) -> bool:
    """True when `name=` says a file, not a model of the workspace."""
    return name is not None and Path(name).suffix.lower() in SUFFIXES


def load_dfm(path: Path, face_type: str | None, morph: float | None) -> Swapper:
    """The swapper of the DFM at `path`, which onnxruntime runs outside of JAX's programs.

    Its `params` are the digest of the file, which nothing computes with.

    Args:
      path: the file.
      face_type: how faces are cut for it; None: as the file says, or USUAL.
      morph: share of src in the new face, 0 to 1, of an AMP model; None: all of it.

    Raises UserError for a file that is no DFM, for settings that do not fit it, and where onnx or
    onnxruntime is not installed.
    """
    with extra("dfm"):
        import onnx
        import onnxruntime
    content = foreign.read_bytes(path, MOST_BYTES)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong comes as an exception, not as a line
    onnxruntime.set_default_logger_severity(4)
    wanted = ["CPUExecutionProvider"]
    if jax.default_backend() != "cpu":
        wanted = ["CUDAExecutionProvider", *wanted]
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    try:
        model = onnx.load_model_from_string(content)
        refuse_more_than_layers(model)
        session = onnxruntime.InferenceSession(
            content, options, providers=providers, enable_fallback=0
        )
        network = Network(session, *read_inputs(session.get_inputs()))
        check_outputs(network)
        said = {entry.key: entry.value for entry in model.metadata_props}
        settings = foreign.mapping(foreign.parse_json(said.get(SETTINGS, "{}")), SETTINGS)
        edges = {
            name: foreign.number(settings.get(name, 0), name, *reach)
            for name, reach in MODEL_RANGES.items()
        }
    except Exception as error:  # protobuf and onnxruntime raise many kinds
        reason = " ".join(str(error).split())[:200]
        raise BadFileError(path, f"no DFM that can be run ({reason})") from error

    chosen = face_type or said.get(FACE_TYPE, USUAL)
    if chosen not in (kinds := [kind for kind in FaceType if kind.turns]):
        raise UserError(f"dfm_face_type={chosen}: expected one of {', '.join(kinds)}")
    if morph is not None and network.morph_name is None:
        raise UserError(f"morph={morph}: {path} is no AMP model; it has no input for that")
    log.info("%s faces of %d pixels, on %s", chosen, network.side, session.get_providers()[0])

    def predict(params: Params, faces: jax.Array) -> Swap:
        shapes = [(*faces.shape[:3], channels) for channels in (3, 1, 1)]
        like = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        run = partial(network.swap, morph=1.0 if morph is None else morph)
        return tuple(jax.pure_callback(run, like, faces))

    spec = FaceSpec(FaceType(chosen), network.side)
    digest = np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
    return Swapper(predict, digest, spec, spec, has_dst_mask=True, **edges)


@dataclass(frozen=True)
class Network:
    """A DFM that can be run."""

    session: Any  # an onnxruntime.InferenceSession
    face_name: str
    morph_name: str | None  # of the second input; None: it is no AMP model
    side: int  # pixels of a face
    count: int | None  # faces that one call takes; None: any number

    def swap(self, faces: np.ndarray, morph: float) -> list[np.ndarray]:
        """[faces [N, R, R, 3] in RGB, their masks [N, R, R, 1], dst's own], float32 in [0, 1].

        `faces` [N, R, R, 3] are dst's, in RGB.
        """
        pictures = np.ascontiguousarray(np.asarray(faces)[..., ::-1])
        step = len(pictures) if self.count is None else self.count
        parts = [self.run(pictures[i : i + step], morph) for i in range(0, len(pictures), step)]
        own, face, mask = (np.concatenate(part) for part in zip(*parts, strict=True))
        # What is no number is no face: its mask is 0.
        found = (face[..., ::-1], mask, own)
        return [np.clip(np.nan_to_num(part), 0, 1, dtype=np.float32) for part in found]

    def run(self, pictures: np.ndarray, morph: float) -> list[np.ndarray]:
        """The three outputs, as the file has them, for BGR `pictures` [N, R, R, 3]."""
        feed = {self.face_name: pictures}
        if self.morph_name is not None:
            feed[self.morph_name] = np.array([morph], np.float32)
        return self.session.run(None, feed)


def refuse_more_than_layers(model: Any) -> None:
    """Raises ValueError for an onnx.ModelProto with data outside of its file, or with loops.

    Data outside may be any file of this machine; a loop need not end.
    """
    if model.functions:
        raise ValueError("it brings functions of its own")
    tensors = list(model.graph.initializer)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.g.ByteSize() or attribute.graphs:
                raise ValueError(f"{foreign.shown(node.op_type)}: a graph in the graph")
            tensors += [attribute.t, *attribute.tensors]
    if model.graph.sparse_initializer or any(tensor.external_data for tensor in tensors):
        raise ValueError("its weights are not in the file itself")


def read_inputs(inputs: Sequence[Any]) -> tuple[str, str | None, int, int | None]:
    """The last four fields of the `Network` with these inputs of onnxruntime. Raises ValueError."""
    names = [given.name for given in inputs]
    parts = ("in_face", "morph_value")[: len(names)]
    if len(names) not in (1, 2) or any(p not in n for p, n in zip(parts, names, strict=True)):
        wanted = f"{FACE}, and of an AMP model {MORPH}"
        raise ValueError(f"its inputs are {', '.join(map(foreign.shown, names))}, not {wanted}")
    for given in inputs:
        if given.type != "tensor(float)":
            raise ValueError(f"{foreign.shown(given.name)} is a {given.type}, not of float32")
    count, *sizes = inputs[0].shape
    if len(sizes) != 3 or sizes[0] != sizes[1] or sizes[2] != 3:
        raise ValueError(f"{FACE} is {foreign.shown(inputs[0].shape)}, not [N, R, R, 3]")
    side = foreign.integer(sizes[0], "the side of a face", *SIDES)
    if isinstance(count, int):
        foreign.integer(count, "faces at a time", 1, MOST_FACES)
    if len(inputs) == 2 and inputs[1].shape != [1]:
        raise ValueError(f"{MORPH} is {foreign.shown(inputs[1].shape)}, not [1]")
    return names[0], (names[1:] or [None])[0], side, count if isinstance(count, int) else None


def check_outputs(network: Network) -> None:
    """Raises ValueError, or what onnxruntime raises, unless gray faces come out as they should."""
    count, side = network.count or 2, network.side
    found = network.run(np.full((count, side, side, 3), 0.5, np.float32), 1.0)
    shapes = [(count, side, side, channels) for channels in (1, 3, 1)]
    if [(part.dtype, part.shape) for part in found] != [(np.float32, shape) for shape in shapes]:
        said = ", ".join(f"{part.dtype} {part.shape}" for part in found)
        raise ValueError(f"its outputs are {said}, not mask, face and mask of {side} pixels")
    if not all(np.isfinite(part).all() for part in found):
        raise ValueError("it makes of a gray face what are no numbers")
