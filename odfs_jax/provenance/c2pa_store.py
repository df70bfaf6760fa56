"""C2PA manifests: made, signed and read back. The only file that knows the c2pa library.

Source: C2PA technical specification 2.2, "Actions" and "Ingredients".
"""

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import c2pa

import odfs_jax
from odfs_jax.errors import UserError
from odfs_jax.provenance.keys import SigningKey
from odfs_jax.provenance.marking import SIDECAR
from odfs_jax.provenance.statement import AI_EDITED, SOURCE_TYPE

# What a manifest can be embedded in. Of everything else the bytes are signed, from beside the file.
EMBEDS = {
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".m4v": "video/x-m4v",
    ".avi": "video/avi",
}
READS = EMBEDS | {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".webp": "image/webp",
}
BYTES = "application/octet-stream"
INPUT = "input"  # label of the ingredient that was opened


def sign(path: Path, name: str, key: SigningKey, inputs: Iterable[Path]) -> bytes | None:
    """Signs the file at `path`, to be called `name`, in place or, where that cannot be, apart.

    `inputs` are the files it was made from, the first one the one that was opened: what manifests
    they carry is kept. Returns the manifest when it is not in the file. Raises UserError.
    """
    embedded = EMBEDS.get(Path(name).suffix.lower())
    try:
        builder = c2pa.Builder(_definition(name), context=_context(None))
        with builder, _signer(key) as signer:
            for number, file in enumerate(inputs):
                _add_input(builder, file, is_first=number == 0)
            if embedded is None:
                builder.set_no_embed()
                with path.open("rb") as source:
                    return bytes(builder.sign(signer, BYTES, source, io.BytesIO()))
            signed = path.with_name(f"{path.stem}-signed{path.suffix}")
            try:
                with path.open("rb") as source, signed.open("w+b") as result:
                    builder.sign(signer, embedded, source, result)
                signed.replace(path)
            finally:
                signed.unlink(missing_ok=True)
    except c2pa.C2paError as error:
        raise UserError(f"{name}: cannot be signed ({error}); see docs/provenance.md") from error
    return None


def check_key(key: SigningKey) -> None:
    """Raises UserError when C2PA does not take `key`: better before a long run than after it."""
    try:
        builder = c2pa.Builder(_definition("test"), context=_context(None))
        with builder, _signer(key) as signer:
            builder.set_no_embed()
            opened = {"title": "test", "relationship": "parentOf", "label": INPUT}
            builder.add_ingredient(opened, BYTES, io.BytesIO(b"test"))
            builder.sign(signer, BYTES, io.BytesIO(b"test"), io.BytesIO())
    except c2pa.C2paError as error:
        raise UserError(
            f"the key and certificate cannot sign for C2PA ({error}); see docs/provenance.md"
        ) from error


def read(path: Path, anchors: bytes | None) -> dict[str, Any] | None:
    """The manifest store of the file at `path` as JSON, from inside it or beside it; None: none.

    `validation_state` is Trusted when signed under a certificate in `anchors` (PEM), Valid when the
    signature and the content fit, else Invalid.
    """
    context = _context(anchors)
    sidecar = path.with_name(path.name + SIDECAR)
    try:
        if sidecar.is_file():
            with (
                path.open("rb") as file,
                c2pa.Reader(BYTES, file, sidecar.read_bytes(), context=context) as reader,
            ):
                return json.loads(reader.json())
        kind = READS.get(path.suffix.lower())
        if kind is None:
            return None
        with path.open("rb") as file, c2pa.Reader(kind, file, context=context) as reader:
            return json.loads(reader.json())
    except c2pa.C2paError as error:
        if "ManifestNotFound" in str(error):
            return None
        # What cannot be parsed was not written so: for who asks, the file was altered.
        return {"validation_state": "Invalid", "error": str(error)}


def _signer(key: SigningKey) -> c2pa.Signer:
    info = c2pa.C2paSignerInfo(
        alg=key.algorithm.encode(), sign_cert=key.chain, private_key=key.pem, ta_url=None
    )
    return c2pa.Signer.from_info(info)


def _add_input(builder: c2pa.Builder, file: Path, is_first: bool) -> None:
    kind = READS.get(file.suffix.lower(), BYTES)
    ingredient = {"title": file.name, "relationship": "parentOf" if is_first else "componentOf"}
    if is_first:
        ingredient["label"] = INPUT
    with file.open("rb") as source:
        try:
            builder.add_ingredient(ingredient, kind, source)
        except c2pa.C2paError:  # a damaged file, of which we used what could be read
            source.seek(0)
            builder.add_ingredient(ingredient, BYTES, source)


def _definition(name: str) -> dict[str, Any]:
    program = {"name": "odfs-jax", "version": odfs_jax.__version__}
    edited = {
        "action": "c2pa.edited",
        "digitalSourceType": SOURCE_TYPE,
        "softwareAgent": program,
        "description": AI_EDITED,
    }
    opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": [INPUT]}}
    actions = {"label": "c2pa.actions.v2", "data": {"actions": [opened, edited]}}
    kind = EMBEDS.get(Path(name).suffix.lower(), BYTES)
    return {
        "claim_generator_info": [program],
        "title": name,
        "format": kind,
        "assertions": [actions],
    }


def _context(anchors: bytes | None) -> c2pa.Context:
    """Nothing is asked over the network, and no thumbnail doubles the size of a small picture."""
    settings: dict[str, Any] = {
        "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
        "builder": {"thumbnail": {"enabled": False}},
    }
    if anchors is not None:
        settings["trust"] = {"trust_anchors": anchors.decode()}
    return c2pa.Context(settings=c2pa.Settings.from_dict(settings))
