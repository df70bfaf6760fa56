"""`/train`: a run's preview, losses and speed; buttons and keys that control it.

The page reads files and writes commands (`training/control.py`): no run needs it, or knows of it.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse
from nicegui import run, ui

from odfs_jax.errors import BadFileError, UserError
from odfs_jax.studio.layout import page
from odfs_jax.studio.workspace import StudioWorkspace
from odfs_jax.training import control, metrics
from odfs_jax.training.backups import Snapshot, backups_in

REFRESH = 1.0  # seconds between two reads of the run's files
COLORS = ["#3d8bff", "#f0a030", "#3fbf7f", "#d070dd", "#e05a5a", "#35b5c5"]  # dark and light
POINTS = 800  # of a loss curve that are drawn
LONGEST = 1e9  # seconds that are shown
STALE = 10.0  # seconds without a status, after which a live run counts as busy
BUTTONS = (
    ("save", "Save", "s", "save"),
    ("refresh", "Refresh preview", "p", "refresh"),
    ("next", "Next sample", "Space", "skip_next"),
    ("stop", "Save and stop", "Enter", "stop"),
)
# A clicked button keeps the focus in a part of itself, where Space would press it again.
BLUR = "() => setTimeout(() => document.activeElement?.blur())"
KEYS = {"s": "save", "p": "refresh", " ": "next", "Enter": "stop"}


def register(app: FastAPI, workspace: StudioWorkspace) -> None:
    """Adds the page and the route of its pictures to `app`."""

    @app.get("/api/models/{name}/previews/{step}")
    def preview(name: str, step: int) -> FileResponse:
        path = metrics.preview_files(workspace.model(name)).get(step)
        if path is None:
            raise BadFileError(f"{name}: preview {step}", "no such file")
        return FileResponse(path, headers={"cache-control": "no-cache"})

    @ui.page("/train")
    def train(model: str = "") -> None:
        with page(workspace, "/train"):
            models = workspace.models()
            if not models:
                _empty(workspace)
                ui.timer(2.0, lambda: workspace.models() and ui.navigate.reload())
                return
            TrainPage(workspace, model if model in models else _latest(workspace, models)).build(
                models
            )


def _empty(workspace: StudioWorkspace) -> None:
    with ui.column().classes("panel"):
        ui.label("No run here yet").classes("title")
        ui.label(f"Start one: python train.py workspace={workspace.root} model=h64").classes("mute")


def _latest(workspace: StudioWorkspace, models: list[str]) -> str:
    """The run that is under way, else the most recent one."""

    def heard(name: str) -> tuple[bool, float]:
        folder = workspace.model(name)
        status = control.read_status(folder) or {}
        return control.is_running(folder), status.get("written", 0.0)

    return max(models, key=heard)


@dataclass
class TrainPage:
    """The page of one browser."""

    workspace: StudioWorkspace
    model: str
    steps: list[int] = field(default_factory=list)  # of the previews
    follow: bool = True  # the last preview is shown as it comes
    shown: tuple = ()
    drawn: tuple = ()
    listed: tuple = ()  # the model and its backups
    buttons: list[ui.button] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.workspace.model(self.model)

    def build(self, models: list[str]) -> None:
        """Adds the elements of the page."""
        with ui.row().classes("train"):
            with ui.column().classes("panel train-preview"):
                self.picture = (
                    ui.image().props("no-spinner no-transition fit=contain").classes("preview")
                )
                with ui.row().classes("history"):
                    self.label = ui.label().classes("mute")
                    self.slider = ui.slider(min=0, max=1, value=1, on_change=self._slide)
                    self.slider.props('aria-label="preview history" label').classes("grow")
            with ui.column().classes("train-side"):
                with ui.row().classes("panel run"):
                    ui.select(models, value=self.model, label="run", on_change=self._choose).props(
                        "dense options-dense"
                    ).classes("grow")
                    self.state = ui.label().classes("state")
                with ui.grid(columns=3).classes("panel facts"):
                    names = ("iteration", "samples/s", "time left", "device", "memory", "batch")
                    self.facts = {name: _fact(name) for name in names}
                with ui.row().classes("panel buttons"):
                    for command, name, key, icon in BUTTONS:
                        button = ui.button(
                            f"{name} [{key}]", icon=icon, on_click=lambda c=command: self._send(c)
                        )
                        button.props(f"no-caps outline dense data-command={command}")
                        button.on("click", js_handler=BLUR)
                        self.buttons.append(button)
                self.chart = ui.echart(_chart([])).classes("panel chart")
                self.backups = ui.column().classes("panel backups")
        ui.keyboard(on_key=self._key)
        ui.timer(REFRESH, self._refresh)

    async def _refresh(self) -> None:
        try:
            folder = self.folder
        except UserError:  # the user removed it
            self.state.set_text("gone")
            return
        running = control.is_running(folder)
        self._show_status(control.read_status(folder) or {}, running)
        self._show_previews(list(metrics.preview_files(folder)))
        await self._show_losses(folder / metrics.LOSSES)
        await self._show_backups(folder)

    def _show_status(self, status: dict[str, Any], running: bool) -> None:
        quiet = time.time() - _number(status, "written") > STALE
        state = "not running" if not running else "busy" if quiet else "training"
        self.state.set_text(state)
        self.state.classes(replace=f"state {state.replace(' ', '-')}")
        for button in self.buttons:
            button.set_enabled(running)
        step, target = int(_number(status, "step")), int(_number(status, "target"))
        batch, rate = int(_number(status, "batch_size")), _number(status, "steps_per_second")
        rate = rate if running else 0.0
        left = (target - step) / rate if target and rate else None
        facts = {
            "iteration": f"{step:,}" + (f" of {target:,}" if target else ""),
            "samples/s": f"{rate * batch:.1f}" if rate else "-",
            "time left": _duration(left) if left is not None else "no target" if running else "-",
            "device": str(status.get("device", "-"))[:60],
            "memory": f"{_number(status, 'memory') / 1e9:.2f} of "
            f"{_number(status, 'memory_limit') / 1e9:.1f} GB",
            "batch": str(batch),
        }
        for name, text in facts.items():
            self.facts[name].set_text(text)

    def _show_previews(self, steps: list[int]) -> None:
        if steps != self.steps:
            self.steps = steps
            self.slider.props(f"max={max(len(steps) - 1, 1)}")
            if self.follow and steps:
                self.slider.set_value(len(steps) - 1)
        self._show_picture()

    def _show_picture(self) -> None:
        if not self.steps:
            self.label.set_text("no preview yet")
            return
        step = self.steps[min(int(self.slider.value), len(self.steps) - 1)]
        path = metrics.preview_files(self.folder).get(step)
        version = path.stat().st_mtime_ns if path else 0
        if self.shown != (self.model, step, version):
            self.shown = (self.model, step, version)
            self.picture.set_source(f"/api/models/{self.model}/previews/{step}?v={version}")
            self.label.set_text(f"iteration {step:,}")

    async def _show_losses(self, path: Path) -> None:
        size = path.stat().st_size if path.exists() else 0
        if self.drawn == (self.model, size):
            return
        self.drawn = (self.model, size)
        rows = await run.io_bound(metrics.read_losses, path.parent)
        self.chart.options.clear()
        self.chart.options.update(_chart(rows))
        self.chart.update()

    async def _show_backups(self, folder: Path) -> None:
        kept = await run.io_bound(backups_in, folder)
        if self.listed == (listed := (self.model, *(one.name for one in kept))):
            return
        self.listed = listed
        lines = await run.io_bound(lambda: [_backup_line(one) for one in kept])
        self.backups.clear()
        self.backups.set_visibility(bool(kept))
        with self.backups:
            for line in lines:
                ui.label(line).classes("mute")
            command = f"python train.py workspace={self.workspace.root} name={self.model}"
            ui.label(f"Go back to one: {command} rollback=NAME").classes("mute")

    def _slide(self) -> None:
        self.follow = not self.steps or self.slider.value >= len(self.steps) - 1
        self._show_picture()

    async def _choose(self, event: Any) -> None:
        self.model, self.steps, self.follow = event.value, [], True
        await self._refresh()

    def _key(self, event: Any) -> None:
        command = KEYS.get(event.key.name if event.key.name != "Space" else " ")
        if command and event.action.keydown and not event.action.repeat:
            held = event.modifiers
            if not (held.ctrl or held.alt or held.meta):
                self._send(command)

    def _send(self, command: str) -> None:
        try:
            control.send(self.folder, command)
            ui.notify(f"{command} asked for", position="bottom")
        except UserError as error:
            ui.notify(str(error), type="negative")


def _fact(name: str) -> ui.label:
    with ui.column().classes("fact"):
        ui.label(name).classes("mute")
        return ui.label("-").classes("value").props(f'data-fact="{name}"')


def _backup_line(backup: Snapshot) -> str:
    """Its name, when it was saved, its losses."""
    saved = time.strftime("%Y-%m-%d %H:%M", time.localtime(backup.saved))
    try:
        losses = "  ".join(f"{name} {value:.4f}" for name, value in backup.losses().items())
    except UserError:
        losses = "cannot be read"
    return f"backup {backup.name}  {saved}  {losses}"


def _chart(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """ECharts options: every loss over the iterations, logarithmic."""
    rows = rows[:: max(1, len(rows) // POINTS)]
    names = sorted({name for row in rows for name in row["losses"]})
    grid = {"lineStyle": {"color": "#8894a555"}}
    return {
        "animation": False,
        "color": COLORS,
        "legend": {"data": names, "textStyle": {"color": "#8894a5"}, "top": 0},
        "tooltip": {"trigger": "axis"},
        "grid": {"left": 56, "right": 16, "top": 56, "bottom": 28},
        "xAxis": {"type": "value", "min": "dataMin", "max": "dataMax", "splitLine": grid},
        "yAxis": {"type": "log", "splitLine": grid, "minorSplitLine": {"show": False}},
        "series": [
            {
                "name": name,
                "type": "line",
                "showSymbol": False,
                "data": [
                    [row["step"], value]
                    for row in rows
                    if (value := row["losses"].get(name)) is not None and value > 0
                ],
            }
            for name in names
        ],
    }


def _number(status: dict[str, Any], key: str) -> float:
    """A number in a status, a file that may hold anything; 0 when the value is not a number."""
    value = status.get(key)
    return float(value) if isinstance(value, int | float) else 0.0


def _duration(seconds: float) -> str:
    if seconds > LONGEST:
        return "years"
    minutes, days = int(seconds // 60), int(seconds // 86400)
    if days:
        return f"{days} d {minutes // 60 % 24} h"
    return (
        f"{minutes // 60} h {minutes % 60:02d} min"
        if minutes >= 60
        else (f"{minutes} min {int(seconds % 60):02d} s")
    )
