"""`python scripts/studio.py workspace=PATH`: serves the studio until Ctrl-C."""

import logging
import os
import secrets
import socket
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from odfs_jax.errors import UserError
from odfs_jax.studio.workspace import StudioWorkspace

log = logging.getLogger(__name__)

MAX_MESSAGE = 1 << 20  # bytes of a message of a web socket


def studio(config: DictConfig) -> None:
    """Serves the workspace of a `StudioConfig` until Ctrl-C. Raises UserError."""
    serve(OmegaConf.to_container(config, resolve=True), "/")


def serve(config: dict[str, Any], page: str) -> None:
    """Serves until Ctrl-C; the log shows the address of `page`, a path. Raises UserError."""
    workspace = StudioWorkspace(Path(config["workspace"]))
    if not workspace.root.is_dir():
        raise UserError(f"workspace={workspace.root}: no such folder")
    # NiceGUI would read .nicegui/ in the current folder, which may be a stranger's. It is not used.
    os.environ.setdefault("NICEGUI_STORAGE_PATH", os.devnull)
    try:  # here, because they are an extra of the installation
        import uvicorn

        from odfs_jax.studio.app import build
        from odfs_jax.studio.guard import Guard, is_local
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed; run: pip install '.[studio]'") from error
    host, token = config["server"]["host"], config["server"]["token"]
    if token is None and not is_local(host):
        token = secrets.token_urlsafe(24)
    listening = _listen(host, config["server"]["port"])
    app = Guard(build(workspace, config), host, token)
    shown, port = f"[{host}]" if ":" in host else host, listening.getsockname()[1]
    query = f"{'&' if '?' in page else '?'}token={token}" if token else ""
    log.info("studio: http://%s:%d%s%s", shown, port, page, query)
    settings = uvicorn.Config(app, log_level="warning", ws_max_size=MAX_MESSAGE)
    uvicorn.Server(settings).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"server.host={host} server.port={port}: {reason}") from error
