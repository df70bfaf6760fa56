"""Signed marks: C2PA manifests, made, signed and read back. Only this file knows the c2pa library.

Source: C2PA technical specification 2.2, "Actions" and "Ingredients".
"""

import hashlib
import io
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import c2pa

import odfs_jax
from odfs_jax.config import ProvenanceConfig
from odfs_jax.data import foreign
from odfs_jax.data.media.marking import (
    AI_EDITED,
    COMMENT,
    FOLDER_LIST,
    SIDECAR,
    SOURCE_TYPE,
    XMP,
    Marking,
    Unmarked,
)
from odfs_jax.data.workspace import image_files
from odfs_jax.errors import UserError
from odfs_jax.provenance.keys import SigningKey, signing_key

log = logging.getLogger(__name__)

# Formats that a manifest is embedded in. Of other files the bytes are signed, in a sidecar.
EMBEDDABLE = {
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".m4v": "video/x-m4v",
    ".avi": "video/avi",
}
READABLE = EMBEDDABLE | {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".webp": "image/webp",
}
# The type of the box of a store, after the box's name. Source: C2PA specification, 11.1.4.
STORE = b"jumd" + bytes.fromhex("6332706100110010800000AA00389B71")
MAX_SIDECAR = 1 << 28  # bytes
BYTES = "application/octet-stream"
INPUT = "input"  # label of the ingredient that was opened


def make_marking(config: ProvenanceConfig, source: Path) -> Marking:
    """The marking of results that are made from `source`. Raises UserError."""
    if config.enabled:
        return SignedMarking(config, source)
    log.warning("provenance.enabled=false: the result says nowhere that it was edited by AI")
    return Unmarked()


class SignedMarking(Marking):
    """A comment, an XMP packet and a signed C2PA manifest that names `source` as the input."""

    comment, xmp = COMMENT, XMP

    def __init__(self, config: ProvenanceConfig, source: Path) -> None:
        """Raises UserError when there is no key to sign with, or C2PA does not accept it."""
        self._key = signing_key(config)
        check_key(self._key)
        self._source = source

    def seal(self, path: Path, name: str) -> bytes | None:
        return sign(path, name, self._key, self._inputs())

    def seal_folder(self, folder: Path) -> None:
        """Lists the SHA-256 of every picture in one file and signs that."""
        listing = {
            "statement": AI_EDITED,
            "digitalSourceType": SOURCE_TYPE,
            "sha256": {file.name: sha256(file) for file in image_files(folder)},
        }
        path = folder / FOLDER_LIST
        path.write_text(json.dumps(listing, indent=1) + "\n")
        manifest = self.seal(path, FOLDER_LIST)
        path.with_name(FOLDER_LIST + SIDECAR).write_bytes(manifest)

    def _inputs(self) -> list[Path]:
        """The clip; of a folder its signed list, the signed pictures, or else the first picture."""
        if self._source.is_file():
            return [self._source]
        listed = self._source / FOLDER_LIST
        files = image_files(self._source)
        signed = [file for file in files if "manifests" in (read_manifests(file, None) or {})]
        return ([listed] if listed.is_file() else []) + signed or files[:1]


def sign(path: Path, name: str, key: SigningKey, inputs: Iterable[Path]) -> bytes | None:
    """Signs the file at `path`, which will be called `name`.

    The manifest is embedded where the format allows it; else it is returned. `inputs` are the files
    it was made from, first the one that was opened; their own manifests are kept. Raises UserError.
    """
    embedded = EMBEDDABLE.get(Path(name).suffix.lower())
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
    """Raises UserError when C2PA does not accept `key`, so that no long run ends with that."""
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


def read_manifests(path: Path, anchors: bytes | None) -> dict[str, Any] | None:
    """The C2PA manifest store of the file at `path`, embedded or in its sidecar; None: it has none.

    Its `validation_state` is Trusted when signed under a certificate in `anchors` (PEM), Valid when
    the signature and the content fit, else Invalid.
    """
    context = _context(anchors)
    sidecar = path.with_name(path.name + SIDECAR)
    try:
        if sidecar.is_file():
            with (
                foreign.open_regular(path) as file,
                c2pa.Reader(
                    BYTES, file, foreign.read_bytes(sidecar, MAX_SIDECAR), context=context
                ) as reader,
            ):
                return json.loads(reader.json())
        kind = READABLE.get(path.suffix.lower())
        if kind is None:
            return None
        with (
            foreign.open_regular(path) as file,
            c2pa.Reader(kind, file, context=context) as reader,
        ):
            return json.loads(reader.json())
    except c2pa.C2paError as error:
        # A store that cannot be parsed was damaged after it was written: the file was altered. A
        # file without one was never signed, broken or not.
        if "ManifestNotFound" in str(error) or not (sidecar.is_file() or _has_store(path)):
            return None
        return {"validation_state": "Invalid", "error": str(error)}


def _has_store(path: Path) -> bool:
    """True when the file holds the beginning of a manifest store, whole or not."""
    with foreign.open_regular(path) as file:
        before = b""
        while block := file.read(1 << 20):
            if STORE in before + block:
                return True
            before = block[1 - len(STORE) :]
    return False


def _signer(key: SigningKey) -> c2pa.Signer:
    info = c2pa.C2paSignerInfo(
        alg=key.algorithm.encode(), sign_cert=key.chain, private_key=key.pem, ta_url=None
    )
    return c2pa.Signer.from_info(info)


def _add_input(builder: c2pa.Builder, file: Path, is_first: bool) -> None:
    kind = READABLE.get(file.suffix.lower(), BYTES)
    ingredient = {"title": file.name, "relationship": "parentOf" if is_first else "componentOf"}
    if is_first:
        ingredient["label"] = INPUT
    with file.open("rb") as source:
        try:
            builder.add_ingredient(ingredient, kind, source)
        except c2pa.C2paError:  # a damaged file, of which conversion read what it could
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
    kind = EMBEDDABLE.get(Path(name).suffix.lower(), BYTES)
    return {
        "claim_generator_info": [program],
        "title": name,
        "format": kind,
        "assertions": [actions],
    }


def _context(anchors: bytes | None) -> c2pa.Context:
    """Settings without network access, and without thumbnails, which double small pictures."""
    settings: dict[str, Any] = {
        "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
        "builder": {"thumbnail": {"enabled": False}},
    }
    if anchors is not None:
        settings["trust"] = {"trust_anchors": anchors.decode()}
    return c2pa.Context(settings=c2pa.Settings.from_dict(settings))


def sha256(path: Path) -> str:
    """The checksum of the file at `path`, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
