"""Which devices the program runs on, and JAX's process-wide settings. First thing in a command."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from odfs_jax.errors import UserError

log = logging.getLogger(__name__)

PLATFORMS = ("cpu", "cuda")


def prepare(hardware: Mapping[str, Any]) -> None:
    """Applies a `HardwareConfig` to JAX: the platform and the cache of compiled programs.

    Must run before the first JAX computation. Raises UserError for an unknown platform.
    """
    platform = hardware["platform"]
    if platform is not None:
        if platform not in PLATFORMS:
            expected = ", ".join(PLATFORMS)
            raise UserError(f"hardware.platform={platform}: expected one of {expected}, or null")
        jax.config.update("jax_platforms", platform)
    if hardware["compilation_cache"] is not None:
        folder = Path(hardware["compilation_cache"]).expanduser()
        jax.config.update("jax_compilation_cache_dir", str(folder))


def choose(hardware: Mapping[str, Any]) -> list[jax.Device]:
    """The devices to train on, said in one log line. Raises UserError when there is none."""
    try:
        devices = jax.local_devices()
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"hardware.platform={hardware['platform']}: {reason}") from error
    if not hardware["multi_gpu"]:
        devices = devices[:1]
    log.info("device: %d x %s (%s)", len(devices), devices[0].device_kind, devices[0].platform)
    return devices


def check_batch(batch_size: int, devices: list[jax.Device]) -> None:
    """Raises UserError unless `batch_size` is positive and divides over `devices`."""
    if batch_size < 1 or batch_size % len(devices):
        raise UserError(
            f"batch_size={batch_size}: expected a positive multiple of the {len(devices)} devices"
        )
