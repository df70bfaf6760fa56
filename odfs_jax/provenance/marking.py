"""What writers put on a result so that it can be known for what it is: `odfs_jax.provenance`."""

from abc import ABC, abstractmethod
from pathlib import Path


class Marking(ABC):
    """The marks of one result. An empty `comment` or `xmp` is not written."""

    comment: str  # for the container's or picture's comment
    xmp: bytes  # a packet for formats that have a place for one

    @abstractmethod
    def seal(self, path: Path, name: str) -> bytes | None:
        """Signs the finished file at `path`, in place; it will be called `name`.

        Nothing may be written to it afterwards. Gives the content of the file that belongs beside
        it, `name` + SIDECAR, where its format has no room for a signature. Raises UserError.
        """

    @abstractmethod
    def seal_folder(self, folder: Path) -> None:
        """Signs the pictures in `folder` together, in files of FOLDER_SEALS."""


SIDECAR = ".c2pa"  # appended to the whole name
FOLDER_LIST = "provenance.json"
FOLDER_SEALS = (FOLDER_LIST, FOLDER_LIST + SIDECAR)


class Unmarked(Marking):
    """No marks."""

    comment, xmp = "", b""

    def seal(self, path: Path, name: str) -> bytes | None:
        return None

    def seal_folder(self, folder: Path) -> None:
        pass
