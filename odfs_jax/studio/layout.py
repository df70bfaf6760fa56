"""The layout that all pages share: the header with its links, and the style."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

from nicegui import Client, ui

from odfs_jax.studio.workspace import StudioWorkspace

STATIC = Path(__file__).parent / "static"
PAGES = {
    "/faces": ("Faces", "look through the aligned faces, sort them, throw wrong ones out"),
    "/extract": ("Extract by hand", "place faces in the frames where none was found"),
    "/masks": ("Masks", "draw what of a face is seen, and what hides it"),
    "/train": ("Train", "preview, losses and speed of a run; save, refresh, stop"),
    "/convert": ("Convert", "try merge settings on a frame, write them down, convert"),
    "/debug": ("Debug", "the pictures that commands with debug=true left"),
}


@contextmanager
def page(workspace: StudioWorkspace, path: str) -> Iterator[None]:
    """The frame of the page at `path`; its elements are added inside the context."""
    ui.add_head_html('<link rel="stylesheet" href="/studio/studio.css">')
    ui.add_head_html('<script src="/studio/studio.js"></script>')
    ui.page_title(
        f"{PAGES[path][0] if path in PAGES else 'odfs-jax'} · {workspace.root.resolve().name}"
    )
    with ui.header().classes("studio-header"):
        ui.link("odfs-jax", "/").classes("brand")
        for target, (name, _) in PAGES.items():
            ui.link(name, target).classes("tab current" if target == path else "tab")
        ui.space()
        ui.label(workspace.root.resolve().name).classes("workspace")
        button = ui.button(icon="contrast").props('flat round dense aria-label="dark or light"')
        button.on("click", js_handler="() => studio.toggleDark()")
    yield


def count_pages() -> int:
    """How many pages browsers have open, or had a minute ago."""
    return len(Client.instances)


def script(name: str, **data: Any) -> None:
    """Adds the part of a page that `static/<name>.js` draws, with `data` as its initial JSON.

    It is outside of NiceGUI's own elements, so that it does not wait for them to start.
    """
    shown = escape(json.dumps(data), quote=True)
    ui.add_body_html(
        f'<main id="studio-main" class="{name}" data-start="{shown}"></main>'
        f'<script type="module" src="/studio/{name}.js"></script>'
    )
