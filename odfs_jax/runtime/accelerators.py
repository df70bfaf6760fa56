"""Which NVIDIA cards there are and which of them to use, asked before JAX starts."""

import logging
from dataclasses import dataclass

import pynvml

from odfs_jax.errors import UserError

log = logging.getLogger(__name__)

# Bytes of a card that are not JAX's: CUDA's own 0.4 GB of code and queues, and the screen's growth.
RESERVED = 600_000_000


@dataclass(frozen=True)
class Card:
    """A card as the driver sees it. `index` is nvidia-smi's; memory is in bytes."""

    index: int
    uuid: str
    name: str
    free: int
    total: int


def read_cards() -> list[Card]:
    """The cards of this machine, by index; none where there is no NVIDIA driver."""
    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        return []
    try:
        return [_read(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        log.warning("the NVIDIA driver does not tell its cards' memory (%s); JAX chooses", error)
        return []
    finally:
        pynvml.nvmlShutdown()


def _read(index: int) -> Card:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    name, uuid = pynvml.nvmlDeviceGetName(handle), pynvml.nvmlDeviceGetUUID(handle)
    return Card(index, uuid, name, memory.free, memory.total)


def choose_cards(cards: list[Card], requested: str | list[int], every: bool) -> list[Card]:
    """The card with the most ("best") or least ("worst") free memory, or those of some indices.

    `every` adds all cards of the same kind as the best or worst. Raises UserError when a requested
    index is not there, or when the requested cards are of several kinds.
    """
    if isinstance(requested, list):
        return _by_index(cards, requested)
    pick = max if requested == "best" else min
    chosen = pick(cards, key=lambda card: card.free)  # the first of several equals
    return [card for card in cards if card == chosen or (every and card.name == chosen.name)]


def _by_index(cards: list[Card], requested: list[int]) -> list[Card]:
    known = {card.index: card for card in cards}
    there = ", ".join(f"{card.index} ({card.name})" for card in cards) or "no NVIDIA card"
    if not requested or len(set(requested)) < len(requested) or not set(requested) <= set(known):
        raise UserError(f"hardware.devices={requested}: expected some of {there}, each once")
    chosen = [known[index] for index in requested]
    if len({card.name for card in chosen}) > 1:
        raise UserError(
            f"hardware.devices={requested}: one step runs on cards of one kind, found {there}"
        )
    return chosen


def memory_share(cards: list[Card]) -> float:
    """The share of its memory that JAX may take of each card: nine tenths of what is free."""
    shares = [min(0.9 * card.free, card.free - RESERVED) / card.total for card in cards]
    return max(0.05, min(shares))
