"""Which devices the program runs on, and JAX's process-wide settings. First thing in a command."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import psutil
from omegaconf import ListConfig

from odfs_jax.errors import UserError
from odfs_jax.runtime.accelerators import choose_cards, memory_share, read_cards

log = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"
SHARES = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")  # the name, the old name


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
    if hardware["compilation_cache"] is not None:
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
    os.environ[VISIBLE] = ",".join(card.uuid for card in cards)
    if not any(name in os.environ for name in SHARES):
        os.environ[SHARES[0]] = f"{memory_share(cards):.3f}"
