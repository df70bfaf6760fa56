"""Which devices the program runs on, and JAX's process-wide settings. First thing in a command.

NVIDIA cards are read and chosen through their driver, before JAX starts and takes memory of each.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import psutil
import pynvml
from omegaconf import ListConfig

from odfs_jax.errors import UserError

log = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"
SHARES = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")  # the name, the old name

# Bytes of a card that are not JAX's: CUDA's own 0.4 GB of code and queues, and the screen's growth.
RESERVED = 600_000_000
_shown: dict[str, str] = {}  # hardware.devices -> the cards that this process lets JAX see for it


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


def prepare(hardware: Mapping[str, Any]) -> None:
    """Applies a `HardwareConfig` to JAX: the devices it sees and the cache of compiled programs.

    Must run before the first JAX computation. A CUDA_VISIBLE_DEVICES of the user's stands. Raises
    UserError for devices that are not there.
    """
    chosen = _checked(hardware["devices"])
    if chosen == "cpu":
        jax.config.update("jax_platforms", "cpu")
    elif jax.config.jax_platforms != "cpu":
        if hardware["coordinator"] != "auto" or isinstance(chosen, list):  # the scheduler deals
            _show_cards(chosen, hardware["multi_gpu"])
    elif isinstance(chosen, list):
        raise UserError(f"hardware.devices={chosen}: JAX_PLATFORMS=cpu hides all cards; unset it")
    if hardware["compilation_cache"]:  # "" is an empty variable
        folder = Path(hardware["compilation_cache"]).expanduser()
        jax.config.update("jax_compilation_cache_dir", str(folder))


def choose(hardware: Mapping[str, Any]) -> list[jax.Device]:
    """The devices to train on, said in one log line. Raises UserError when there is none."""
    chosen = hardware["devices"]
    try:
        devices = jax.local_devices()
    except RuntimeError as error:
        raise UserError(f"hardware.devices={chosen}: {str(error).splitlines()[0]}") from error
    if isinstance(chosen, list) and devices[0].platform == "cpu":
        raise UserError(f'hardware.devices={chosen}: JAX runs on the CPU; pip install ".[cuda]"')
    if not hardware["multi_gpu"] and not isinstance(chosen, list):
        devices = devices[:1]
    kind = f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"
    each = " each" if len(devices) > 1 else ""
    log.info("device: %s, %.1f GB free%s", kind, free_memory(devices) / 1e9, each)
    return devices


def facts(devices: list[jax.Device]) -> dict[str, str | int]:
    """`device` in words, and `memory_limit`, the bytes that each may take."""
    first = devices[0]
    if first.platform == "cpu":
        limit = psutil.virtual_memory().total
    else:
        limit = first.memory_stats()["bytes_limit"]
    return {"device": f"{len(devices)} x {first.device_kind}", "memory_limit": limit}


def free_memory(devices: list[jax.Device]) -> int:
    """Bytes that each of `devices` still has for JAX: the least of them. CPUs share the RAM."""
    if devices[0].platform == "cpu":
        return psutil.virtual_memory().available // len(devices)
    stats = [device.memory_stats() for device in devices]
    return min(s["bytes_limit"] - s["bytes_in_use"] for s in stats)


def check_batch(batch_size: int | str, devices: list[jax.Device], accumulate: int = 1) -> None:
    """Raises UserError unless `batch_size` divides over `devices` and the `accumulate` parts.

    It may also be "auto".
    """
    if accumulate < 1:
        raise UserError(f"accumulate={accumulate}: expected 1 or more")
    if batch_size == "auto":
        return
    if type(batch_size) is not int:
        raise UserError(f"batch_size={batch_size}: expected a number or auto")
    if batch_size < 1 or batch_size % (len(devices) * accumulate):
        parts = "" if accumulate == 1 else f", {accumulate} parts each (accumulate)"
        raise UserError(
            f"batch_size={batch_size}: expected a positive multiple of the {len(devices)} devices"
            f"{parts}"
        )


def _checked(chosen: Any) -> str | list[int]:
    numbers = isinstance(chosen, list | ListConfig) and all(type(i) is int for i in chosen)
    if not numbers and chosen not in ("best", "worst", "cpu"):
        raise UserError(
            f"hardware.devices={chosen}: expected best, worst, cpu, or numbers of cards as [0, 1]"
        )
    return list(chosen) if numbers else chosen


def _show_cards(chosen: str | list[int], every: bool) -> None:
    """Lets JAX see the chosen cards only, and take as much of their memory as is free."""
    visible = os.environ.get(VISIBLE)
    if visible is not None and visible == _shown.get(str(chosen)):
        return  # a command of several stages prepares each
    if visible is not None:
        if isinstance(chosen, list):
            raise UserError(
                f"hardware.devices={chosen} and {VISIBLE}={visible} both choose; drop one"
            )
        return
    cards = read_cards()
    if not cards and not isinstance(chosen, list):
        return
    cards = choose_cards(cards, chosen, every)
    os.environ[VISIBLE] = _shown[str(chosen)] = ",".join(card.uuid for card in cards)
    if not any(name in os.environ for name in SHARES):
        os.environ[SHARES[0]] = f"{memory_share(cards):.3f}"
