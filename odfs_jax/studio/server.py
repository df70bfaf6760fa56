"""`odfs studio workspace=PATH`, or `workspaces=PATH`: serves the studio until Ctrl-C."""

import logging
import os
import secrets
import socket
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from odfs_jax.data import foreign
from odfs_jax.errors import UserError
from odfs_jax.runtime.extras import extra
from odfs_jax.studio.workspace import StudioWorkspace, Workspaces

log = logging.getLogger(__name__)

MAX_MESSAGE = 1 << 20  # bytes of a message of a web socket
MAX_CONNECTIONS = 500  # at once, of all browsers; further ones are told to come again
TOKEN_VARIABLE = "ODFS_STUDIO_TOKEN"
MAX_TOKEN = 4096  # bytes of a file with a token


def studio(config: DictConfig) -> None:
    """Serves the workspaces of a `StudioConfig` until Ctrl-C. Raises UserError."""
    if config.workspaces is None:
        served = StudioWorkspace(Path(config.workspace))
    else:
        served = Workspaces(Path(config.workspaces))
    serve(served, OmegaConf.to_container(config, resolve=True), "/")


def serve(served: StudioWorkspace | Workspaces, config: dict[str, Any], page: str) -> None:
    """Serves until Ctrl-C; the log shows the address of `page`, a path.

    `config` has the fields of a `StudioConfig`. Raises UserError.
    """
    if not served.root.is_dir():
        key = "workspaces" if isinstance(served, Workspaces) else "workspace"
        raise UserError(f"{key}={served.root}: no such folder")
    # NiceGUI would read .nicegui/ in the current folder, which may be a stranger's. It is not used.
    os.environ.setdefault("NICEGUI_STORAGE_PATH", os.devnull)
    with extra("studio"):
        import uvicorn

        from odfs_jax.studio.app import build
        from odfs_jax.studio.guard import Guard, is_local
        from odfs_jax.studio.layout import count_pages, is_page
    host, token = config["server"]["host"], find_token(config["server"])
    if token is None and not is_local(host):
        token = secrets.token_urlsafe(24)
    listening = _listen(host, config["server"]["port"])
    app = Guard(build(served, config), host, token, is_page, count_pages)
    shown, port = f"[{host}]" if ":" in host else host, listening.getsockname()[1]
    query = f"{'&' if '?' in page else '?'}token={token}" if token else ""
    log.info("studio: http://%s:%d%s%s", shown, port, page, query)
    settings = uvicorn.Config(
        app, log_level="warning", ws_max_size=MAX_MESSAGE, limit_concurrency=MAX_CONNECTIONS
    )
    uvicorn.Server(settings).run(sockets=[listening])


def find_token(server: dict[str, Any]) -> str | None:
    """The token of the settings `server`, or of the environment; None: there is none.

    Every user of a machine sees the command lines of all, but not files and environments.
    """
    if server["token"] is not None:
        return server["token"]
    if server["token_file"] is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    token = (
        foreign.read_secret(Path(server["token_file"]), MAX_TOKEN).decode(errors="replace").strip()
    )
    if not token:
        raise UserError(f"server.token_file={server['token_file']}: empty")
    return token


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"server.host={host} server.port={port}: {reason}") from error
