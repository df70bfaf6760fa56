"""The studio's view of its workspaces: only here do names from a browser become paths."""

import unicodedata
from dataclasses import dataclass
from pathlib import Path

from odfs_jax.config import SideConfig
from odfs_jax.curation.rename import trash_folder
from odfs_jax.data.workspace import find_input, png_files
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.saved_model import models_in

SIDES = ("src", "dst")
PICTURES = (".jpg", ".png")


@dataclass(frozen=True)
class StudioWorkspace:
    """`root` is the workspace. Nothing outside it is read or written.

    A clip, or a folder of frames, faces or models, may itself be a link the user made; a file in
    such a folder may not lead out of it.
    """

    root: Path
    among: "Workspaces | None" = None  # those that the studio serves beside it

    @property
    def own(self) -> Path:
        """The folder of the studio's caches and logs. It may be deleted at any time."""
        return self.root / "studio"

    def clip(self, side: str) -> Path:
        """The clip or folder of frames of `side`. Raises UserError."""
        return find_input(str(self.root), checked_side(side), SideConfig(aligned=""))

    def faces(self, side: str, trashed: bool = False) -> Path:
        """The folder of aligned faces of `side`, or that of its trash."""
        folder = self.root / checked_side(side) / "aligned"
        return trash_folder(folder) if trashed else folder

    def face_files(self, side: str, trashed: bool = False) -> list[Path]:
        """The PNGs that the pages show: whose names a browser can send back; in any order."""
        return [p for p in png_files(self.faces(side, trashed)) if is_plain(p.name)]

    def face(self, side: str, name: str, trashed: bool = False) -> Path:
        """The face file `name`. Raises BadFileError when it is not a plain file there."""
        return _inside(self.faces(side, trashed), name, (".png",))

    def debug_folders(self) -> dict[str, Path]:
        """The folders of pictures from `debug=true`, by their path in the workspace."""
        found = [model_dir / "debug" for model_dir in map(self.model, self.models())]
        found += [path for side in ("", *SIDES) for path in (self.root / side).glob("*_debug")]
        shown = {path.relative_to(self.root).as_posix(): path for path in found if path.is_dir()}
        return dict(sorted(shown.items()))

    def debug_picture(self, folder: str, name: str) -> Path:
        """The picture `name` in one of the debug folders. Raises BadFileError."""
        if folder not in self.debug_folders():
            raise BadFileError(_shown(folder), "no folder of debug pictures")
        return _inside(self.debug_folders()[folder], name, PICTURES)

    def models(self, masks: bool | None = None) -> list[str]:
        """The names of the training runs, by name: all, or mask networks, or those that swap."""
        folder = self.root / "models"
        found = [p.name for p in folder.glob("*") if (p / "config.yaml").is_file()]
        if masks is not None:
            found = set(found).intersection(models_in(folder, masks=masks))
        return sorted(name for name in found if is_plain(name))

    def model(self, name: str) -> Path:
        """The folder of the run `name`. Raises UserError when there is none."""
        if name not in self.models():
            raise UserError(f"{_shown(name)}: no such model in {self.root / 'models'}")
        return self.root / "models" / name


@dataclass(frozen=True)
class Workspaces:
    """The workspaces in the folder `root`: its folders, or links to folders, not hidden."""

    root: Path

    def names(self) -> list[str]:
        """The names of the workspaces, by name."""
        return sorted(p.name for p in self.root.iterdir() if is_plain(p.name) and p.is_dir())

    def workspace(self, name: str) -> StudioWorkspace:
        """The workspace `name`. Raises BadFileError when there is none."""
        if name not in self.names():
            raise BadFileError(_shown(name), f"no such workspace in {self.root}")
        return StudioWorkspace(self.root / name, self)

    def make(self, name: str) -> None:
        """Makes an empty workspace `name`. Raises UserError."""
        if not is_plain(name):
            raise UserError(f"{_shown(name)}: expected the name of a folder that is not hidden")
        try:
            (self.root / name).mkdir()
        except OSError as error:
            raise UserError(f"{_shown(name)}: {error.strerror}") from error


def is_shown(path: Path) -> bool:
    """True for a picture whose name a browser can send back."""
    return path.suffix.lower() in PICTURES and is_plain(path.name)


def checked_side(side: str) -> str:
    """`side`. Raises UserError unless it is src or dst."""
    if side not in SIDES:
        raise UserError(f"side={_shown(side)}: expected src or dst")
    return side


def _inside(folder: Path, name: str, suffixes: tuple[str, ...]) -> Path:
    path = folder / name if is_plain(name) else None
    if path is None or path.suffix.lower() not in suffixes:
        raise BadFileError(_shown(name), f"not the plain name of a {' or '.join(suffixes)} file")
    if not path.is_file():
        raise BadFileError(path, "no such file")
    if path.resolve().parent != folder.resolve():
        raise BadFileError(path, "a link that leads out of its folder")
    return path


def is_plain(name: str) -> bool:
    """True for a plain name of a file that is not hidden, and that a browser can send back."""
    odd = any(ord(letter) < 32 or unicodedata.category(letter) == "Cs" for letter in name)
    odd = odd or "/" in name or "\\" in name
    return bool(name) and not odd and not name.startswith(".") and len(name.encode()) < 256


def _shown(name: str) -> str:
    return repr(name)[:80]
