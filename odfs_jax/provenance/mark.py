"""The marks of a result: a comment, an XMP packet and a signed C2PA manifest, put on last."""

import hashlib
import json
import logging
from pathlib import Path

from odfs_jax.config import ProvenanceConfig
from odfs_jax.data.workspace import image_files
from odfs_jax.provenance import c2pa_store
from odfs_jax.provenance.keys import signing_key
from odfs_jax.provenance.marking import FOLDER_LIST, SIDECAR, Marking, Unmarked
from odfs_jax.provenance.statement import AI_EDITED, COMMENT, SOURCE_TYPE, XMP

log = logging.getLogger(__name__)


class Mark(Marking):
    """All marks, signed with a key; results name `source` as what they were made from."""

    comment, xmp = COMMENT, XMP

    def __init__(self, config: ProvenanceConfig, source: Path) -> None:
        """Raises UserError when there is no key to sign with, or none that C2PA takes."""
        self._key = signing_key(config)
        c2pa_store.check_key(self._key)
        self._source = source

    def seal(self, path: Path, name: str) -> bytes | None:
        return c2pa_store.sign(path, name, self._key, self._inputs())

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
        """The clip; of a folder the signed list of its pictures, or those that are signed."""
        if self._source.is_file():
            return [self._source]
        listed = self._source / FOLDER_LIST
        files = image_files(self._source)
        signed = [file for file in files if "manifests" in (c2pa_store.read(file, None) or {})]
        return ([listed] if listed.is_file() else []) + signed or files[:1]


def marking(config: ProvenanceConfig, source: Path) -> Marking:
    """How results made from `source` are marked. Raises UserError."""
    if config.enabled:
        return Mark(config, source)
    log.warning("provenance.enabled=false: the result says nowhere that it was edited by AI")
    return Unmarked()


def sha256(path: Path) -> str:
    """The checksum of the file at `path`, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
