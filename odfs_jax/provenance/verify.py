"""Reading the marks of a file: what it says of its origin, and whether it is still unaltered."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from odfs_jax.data import foreign
from odfs_jax.data.media import picture, png, xmp
from odfs_jax.data.media.marking import AI_EDITED, FOLDER_LIST, SOURCE_TYPE
from odfs_jax.data.media.video_reader import clip_comment
from odfs_jax.data.workspace import image_files
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.provenance.keys import own_certificates
from odfs_jax.provenance.signing import read_manifests, sha256

WHOLE, ALTERED, UNSIGNED = 0, 1, 3  # exit codes; 2 is a user's mistake, as everywhere
MAX_LIST_BYTES = 1 << 28  # of a folder's list


@dataclass
class Verdict:
    """The marks of a file. `signature` is Trusted, Valid or Invalid; None: it is not signed."""

    path: Path
    comment: bool = False
    xmp: bool = False
    signature: str | None = None
    signer: str | None = None
    says_edited: bool = False  # the signed manifest says that AI edited this
    inputs: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def code(self) -> int:
        """WHOLE, ALTERED or UNSIGNED."""
        if self.problems or self.signature == "Invalid":
            return ALTERED
        return UNSIGNED if self.signature is None else WHOLE

    def lines(self) -> list[str]:
        """The report, for people."""
        who = {
            None: "none",
            "Trusted": f"whole; signed by this installation ({self.signer})",
            "Valid": f"whole; signed by an unknown issuer ({self.signer})",
            "Invalid": "BROKEN: altered after it was signed",
        }[self.signature]
        said = "; says: edited by AI" if self.says_edited else ""
        lines = [
            f"{self.path}",
            f"  comment    {'says: edited by AI' if self.comment else 'none'}",
            f"  XMP        {'says: edited by AI' if self.xmp else 'none'}",
            f"  signature  {who}{said}",
        ]
        lines += [f"  made from  {name}" for name in self.inputs]
        return lines + [f"  {what}" for what in self.problems]


def verify(path: Path) -> Verdict:
    """Reads the marks of the clip, the picture or the folder of pictures at `path`.

    A picture of a signed folder is looked up in the folder's list. Raises UserError when there is
    no such file, or no picture in the folder.
    """
    if path.is_dir():
        return _verify_folder(path, image_files(path))
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder")
    verdict = Verdict(path, _comment(path), SOURCE_TYPE.encode() in (xmp.read(path) or b""))
    _read_signature(verdict, path)
    if verdict.signature is None and (path.parent / FOLDER_LIST).is_file():
        listed = _verify_folder(path.parent, [path], is_whole=False)
        verdict.signature, verdict.signer = listed.signature, listed.signer
        verdict.says_edited, verdict.inputs = listed.says_edited, listed.inputs
        verdict.problems = listed.problems
    return verdict


def _read_signature(verdict: Verdict, signed: Path) -> None:
    store = read_manifests(signed, own_certificates())
    if store is None:
        return
    verdict.signature = store["validation_state"]
    if "manifests" not in store:
        verdict.problems.append(store["error"])
        return
    manifest = store["manifests"].get(store.get("active_manifest"), {})
    verdict.signer = manifest.get("signature_info", {}).get("issuer", "unnamed")
    verdict.says_edited = SOURCE_TYPE in json.dumps(manifest.get("assertions", []))
    for ingredient in manifest.get("ingredients", []):
        own = " (with a manifest of its own)" if "active_manifest" in ingredient else ""
        verdict.inputs.append(f"{ingredient.get('title', 'unnamed')}{own}")


def _verify_folder(folder: Path, files: list[Path], is_whole: bool = True) -> Verdict:
    listed = folder / FOLDER_LIST
    if not files:
        raise UserError(f"{folder}: no pictures in this folder")
    marks = [(_comment(file), SOURCE_TYPE.encode() in (xmp.read(file) or b"")) for file in files]
    verdict = Verdict(folder, *(all(mark) for mark in zip(*marks, strict=True)))
    if not listed.is_file():
        return verdict
    _read_signature(verdict, listed)
    if verdict.signature is None:
        return verdict
    sums = _sums(listed)
    if sums is None:
        verdict.problems.append(f"{listed}: not a list of checksums")
        return verdict
    for file in files:
        if file.name not in sums:
            verdict.problems.append(f"{file.name}: not in the signed list")
        elif sums[file.name] != sha256(file):
            verdict.problems.append(f"{file.name}: altered after it was signed")
    missing = sorted(set(sums) - {file.name for file in files}) if is_whole else []
    verdict.problems += [f"{name}: missing" for name in missing]
    return verdict


def _sums(listed: Path) -> dict[str, Any] | None:
    try:
        content = foreign.mapping(foreign.read_json(listed, MAX_LIST_BYTES), "the list", ["sha256"])
        return foreign.mapping(content["sha256"], "sha256")
    except (BadFileError, ValueError):
        return None


def _comment(path: Path) -> bool:
    """True when the comment of a clip or picture says that it was edited by AI."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".png":
            text = png.read_text(foreign.read_bytes(path, picture.MAX_BYTES), "Comment")
        elif suffix in (".tif", ".tiff"):
            text = xmp.tiff_tag(path, xmp.DESCRIPTION_TAG)
        else:
            text = clip_comment(path)
    except (ValueError, BadFileError):
        return False
    return isinstance(text, str) and text.startswith(AI_EDITED)
