"""odfs-swap on bundled clips, scored: python scripts/demo.py [pair=...] [KEY=VALUE ...]

`workspace=` is the folder it works in; other settings go to train.py. The truth is only scored
against: no other stage sees it.
`pair=chi_dele` takes the harder pair of clips, and works in workspace/chi_dele.
"""

import sys
from pathlib import Path

from odfs_jax.cli import swap

ASSETS = Path(__file__).resolve().parent.parent / "assets"
# Folders of assets/, and the weights that training starts from: never learned on the pair itself.
PAIRS = {"demo": "bundled:chi_dele_80", "chi_dele": "bundled:ada_ben_80"}


def main() -> None:
    pair, workspace, training = next(iter(PAIRS)), None, []
    for setting in sys.argv[1:]:
        key, _, value = setting.partition("=")
        if key == "pair":
            pair = value
        elif key == "workspace":
            workspace = value
        else:
            training.append(setting)
    if pair not in PAIRS:
        sys.exit(f"pair={pair}: expected one of {', '.join(PAIRS)}")
    folder = workspace or f"workspace/{pair}"
    clips = [f"src={ASSETS / pair / 'src.mp4'}", f"dst={ASSETS / pair / 'dst.mp4'}"]
    places = [f"workspace={folder}", f"out={folder}/result.mp4", f"truth={ASSETS / pair}"]
    training = [f"train.{setting}" for setting in (f"init_from={PAIRS[pair]}", *training)]
    sys.argv[1:] = [*clips, *places, "preset=small", *training]
    swap()


if __name__ == "__main__":
    main()
