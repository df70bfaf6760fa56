"""A faceset as one file: a zip whose members are the aligned PNGs, stored as they are.

PNGs do not compress, and stored members cannot be zip bombs. What comes out of a zip is data from
outside: names and contents are checked, nothing is overwritten.
"""

import errno
import zipfile
from pathlib import Path

from odfs_jax.data import atomic
from odfs_jax.data.aligned_png import MAX_SIZE, read_image_and_face
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.runtime.progress import progress

MAX_BYTES = 4 * MAX_SIZE**2  # of a member: more than a PNG of the largest face can need


def pack(files: list[Path], path: Path) -> tuple[int, list[BadFileError]]:
    """Writes the faces among `files` to the zip `path`; returns (how many, errors of the others).

    Raises UserError when `path` exists, or when there is no face.
    """
    if path.exists():
        raise UserError(f"{path}: exists already; move it, or give another file=")
    packed, bad = 0, []
    with atomic.replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as members:
        for file in progress(files, len(files), "packing", "face"):
            try:
                read_image_and_face(file)
            except BadFileError as error:
                bad.append(error)
                continue
            members.writestr(zipfile.ZipInfo(file.name), file.read_bytes())
            packed += 1
        if not packed:
            raise UserError(f"{files[0].parent}: none of its {len(bad)} PNG files is a face")
    return packed, bad


def unpack(path: Path, folder: Path) -> tuple[int, list[BadFileError]]:
    """Writes the faces in the zip `path` to `folder`; returns (how many, errors of other members).

    All or nothing: `folder` appears once everything is unpacked. Raises UserError when it is not
    empty, or when `path` is no zip or has no face.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: not empty; move its files, or give another data.*.aligned=")
    bad: list[BadFileError] = []
    try:
        with atomic.replacing_folder(folder) as temporary, zipfile.ZipFile(path) as members:
            for info in progress(members.infolist(), len(members.infolist()), "unpacking", "face"):
                try:
                    _unpack_member(members, info, path, temporary)
                except BadFileError as error:
                    bad.append(error)
            unpacked = len(list(temporary.iterdir()))
            if not unpacked:
                raise UserError(f"{path}: none of its {len(bad)} members is an aligned face")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UserError(f"{path}: not a zip that can be read ({error})") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # a damaged zip makes zipfile seek before its beginning
            raise
        raise UserError(f"{path}: not a zip that can be read (wrong offsets)") from error
    return unpacked, bad


def _unpack_member(
    members: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, folder: Path
) -> None:
    """Writes one face to `folder`. Raises BadFileError, and then leaves no file."""
    where, name = f"{path}: {info.filename!r:.80}", info.filename
    if Path(name).name != name or "\\" in name or name.startswith(".") or name[-4:] != ".png":
        raise BadFileError(where, "not the plain name of a PNG")
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > MAX_BYTES:
        raise BadFileError(where, f"not a stored file of at most {MAX_BYTES} bytes")
    target = folder / name
    if target.exists():
        raise BadFileError(where, "a second file of this name")
    try:
        target.write_bytes(members.read(info))
        read_image_and_face(target)
    except (zipfile.BadZipFile, RuntimeError, EOFError) as error:
        raise BadFileError(where, f"cannot be read ({error})") from error
    except BadFileError as error:
        target.unlink()
        raise BadFileError(where, error.reason) from error
