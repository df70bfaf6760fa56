"""`python extract.py`: automatically, by hand in the browser, or first one and then the other."""

import logging
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from odfs_jax.data.workspace import find_input
from odfs_jax.extraction.extract import extract as extract_automatically
from odfs_jax.extraction.journal import ExtractionJournal
from odfs_jax.extraction.writing import MANUAL
from odfs_jax.studio.server import serve

log = logging.getLogger(__name__)


def extract(config: DictConfig) -> None:
    """Extracts as an `ExtractConfig` says. Raises UserError.

    `detector=manual` opens the studio on all frames; `manual_fix=true` on those that need somebody
    after the automatic pass, if there are any. Ctrl-C ends it.
    """
    by_hand = config.detector.name == MANUAL
    if by_hand:
        for side in config.data.sides:
            find_input(config.workspace, side, config.data[side])  # says what is missing
    else:
        extract_automatically(config)
    if not (by_hand or config.manual_fix):
        return
    side = config.data.sides[-1] if by_hand else _side_to_fix(config)
    if side is not None:
        settings = OmegaConf.to_container(config)
        serve(settings, f"/extract?side={side}&show={'all' if by_hand else 'doubtful'}")


def _side_to_fix(config: DictConfig) -> str | None:
    """The side with most frames that somebody should look at; None when there is none."""
    needed = {
        side: len(ExtractionJournal.read(Path(config.data[side].aligned)).doubtful())
        for side in config.data.sides
    }
    for side, count in needed.items():
        log.info("%s: %d frames to place faces in by hand", side, count)
    worst = max(needed, key=needed.get)
    return worst if needed[worst] else None
