"""The marks of a result, and what the writers of clips and pictures ask of who puts them on.

Sources: IPTC NewsCodes "digitalsourcetype"; IPTC Photo Metadata Standard, `DigitalSourceType`.
"""

from abc import ABC, abstractmethod
from pathlib import Path

import odfs_jax

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
AI_EDITED = "AI-edited face swap"
COMMENT = f"{AI_EDITED} (odfs-jax {odfs_jax.__version__}); DigitalSourceType={SOURCE_TYPE}"
XMP = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"
    xmp:CreatorTool="odfs-jax {odfs_jax.__version__}"/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>""".encode()

SIDECAR = ".c2pa"  # appended to the whole name of a file
FOLDER_LIST = "provenance.json"
FOLDER_SEALS = (FOLDER_LIST, FOLDER_LIST + SIDECAR)


class Marking(ABC):
    """Puts the marks on one result. An empty `comment` or `xmp` is not written."""

    comment: str  # for the container's or picture's comment
    xmp: bytes  # a packet for formats that have a place for one

    @abstractmethod
    def seal(self, path: Path, name: str) -> bytes | None:
        """Signs the finished file at `path`, in place; it will be called `name`.

        Nothing may be written to it afterwards. Where its format has no room for a signature,
        returns the content of the file `name` + SIDECAR that belongs beside it. Raises UserError.
        """

    @abstractmethod
    def seal_folder(self, folder: Path) -> None:
        """Signs the pictures in `folder` together, in the files FOLDER_SEALS."""


class Unmarked(Marking):
    """Puts no marks on a result."""

    comment, xmp = "", b""

    def seal(self, path: Path, name: str) -> bytes | None:
        return None

    def seal_folder(self, folder: Path) -> None:
        pass
