"""The layout that all pages share: the header with its links, and the style."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

from nicegui import Client, ui
from nicegui.elements.mixins.text_element import TextElement

from odfs_jax.studio.workspace import StudioWorkspace, Workspaces

STATIC = Path(__file__).parent / "static"
PAGES = {
    "/faces": ("Faces", "look through the aligned faces, sort them, throw wrong ones out"),
    "/extract": ("Extract by hand", "place faces in the frames where none was found"),
    "/masks": ("Masks", "draw what of a face is seen, and what hides it"),
    "/train": ("Train", "preview, losses and speed of a run; save, refresh, stop"),
    "/convert": ("Convert", "try merge settings on a frame, write them down, convert"),
    "/debug": ("Debug", "the pictures that commands with debug=true left"),
}


WORKSPACES = "/w"  # of several workspaces, each has its pages at /w/NAME/


@contextmanager
def page(shown: StudioWorkspace | Workspaces, path: str) -> Iterator[None]:
    """The frame of the page at `path`; its elements are added inside the context.

    Addresses of a workspace's pages and routes are relative: they lead to the same workspace.
    """
    folder = shown.root.resolve().name
    ui.add_head_html('<link rel="stylesheet" href="/studio/studio.css">')
    ui.add_head_html('<script src="/studio/studio.js"></script>')
    ui.page_title(f"{PAGES[path][0] if path in PAGES else 'odfs-jax'} · {folder}")
    with ui.header().classes("studio-header"):
        ui.link("odfs-jax", "./").classes("brand")
        if isinstance(shown, StudioWorkspace):
            for target, (name, _) in PAGES.items():
                ui.link(name, target[1:]).classes("tab current" if target == path else "tab")
        ui.space()
        if isinstance(shown, StudioWorkspace) and shown.among is not None:
            _switch(shown.root.name, shown.among.names())
        else:
            ui.label(folder).classes("workspace")
        button = ui.button(icon="contrast").props('flat round dense aria-label="dark or light"')
        button.on("click", js_handler="() => studio.toggleDark()")
    yield


def _switch(name: str, names: list[str]) -> None:
    """A list that leads to the same page of another workspace, or to all of them."""
    with ui.element("select").classes("workspace").props('aria-label="workspace"') as select:
        select.on("change", js_handler="(event) => studio.enter(event.target.value)")
        for value, text in (*((each, each) for each in names), ("", "all workspaces")):
            option = TextElement(tag="option", text=text)
            option.props["value"] = value
            option.props["selected"] = value == name


def is_page(path: str) -> bool:
    """True for the path of a page."""
    return re.sub(rf"^{WORKSPACES}/[^/]+(?=/)", "", path) in PAGES.keys() | {"/"}


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
