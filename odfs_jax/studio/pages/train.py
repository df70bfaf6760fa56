"""`/train`: starts and resumes runs; their preview, losses and speed; buttons and keys that steer.

The page reads files and writes commands (`training/control.py`): no run needs it, or knows of it.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from fastapi import FastAPI
from fastapi.responses import FileResponse
from nicegui import run, ui

from odfs_jax import saved_model
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.studio import runs
from odfs_jax.studio.jobs import Jobs
from odfs_jax.studio.layout import page
from odfs_jax.studio.queue import Queue
from odfs_jax.studio.runs import Choices
from odfs_jax.studio.workspace import StudioWorkspace
from odfs_jax.training import control, metrics
from odfs_jax.training.backups import Snapshot, backups_in

REFRESH = 1.0  # seconds between two reads of the run's files
JOB, ROLLBACK = "train", "rollback"  # kinds of jobs
COLORS = ["#3d8bff", "#f0a030", "#3fbf7f", "#d070dd", "#e05a5a", "#35b5c5"]  # dark and light
POINTS = 800  # of a loss curve that are drawn
SMOOTHED = 0.05  # of a curve's points that weigh in the mean at each of them
FEW = 3  # points of a curve up to which each is shown
LONGEST = 1e9  # seconds that are shown
STALE = 10.0  # seconds without a status, after which a live run counts as busy
LINES = 8  # of a command's log
TERMS = {  # of the loss, by the end of a curve's name
    "face": "rebuilt faces beside their pictures",
    "mask": "rebuilt masks beside the faces' own",
    "eyes_mouth": "eyes and mouth once more",
    "swap_style": "the swap's colors and contrasts beside dst's",
    "swap_background": "the swap beside dst outside the face",
    "swap_light": "shadows and highlights on the swap that dst's skin has not",
    "deceived": "how well the discriminator sees through what is made",
    "discriminator": "how badly it tells it from the true",
    "held_out": "how like its truth a held-out face is, here higher is better",
}
BUTTONS = (
    ("save", "Save", "s", "save"),
    ("refresh", "Refresh preview", "p", "refresh"),
    ("next", "Next sample", "Space", "skip_next"),
    ("stop", "Save and stop", "Enter", "stop"),
)
# A clicked button keeps the focus in a part of itself, where Space would press it again.
BLUR = "() => setTimeout(() => document.activeElement?.blur())"
KEYS = {"s": "save", "p": "refresh", " ": "next", "Enter": "stop"}


def register(app: FastAPI, workspace: StudioWorkspace, jobs: Jobs, queue: Queue) -> None:
    """Adds the page and the route of its pictures to `app`."""

    @app.get("/api/models/{name}/previews/{step}")
    def preview(name: str, step: int) -> FileResponse:
        path = metrics.preview_files(workspace.model(name)).get(step)
        if path is None:
            raise BadFileError(f"{name}: preview {step}", "no such file")
        return FileResponse(path, headers={"cache-control": "no-cache"})

    @ui.page("/train", api_router=app.router)
    def train(model: str = "") -> None:
        with page(workspace, "/train"):
            models = workspace.models()
            shown = model if model in models else _latest(workspace, models)
            TrainPage(workspace, jobs, queue, shown).build(models)


def _latest(workspace: StudioWorkspace, models: list[str]) -> str | None:
    """The run that is under way, else the most recent one; None: there is none."""

    def heard(name: str) -> tuple[bool, float]:
        folder = workspace.model(name)
        status = control.read_status(folder) or {}
        return control.is_running(folder), status.get("written", 0.0)

    return max(models, key=heard, default=None)


@dataclass
class TrainPage:
    """The page of one browser."""

    workspace: StudioWorkspace
    jobs: Jobs
    queue: Queue
    model: str | None  # None: there is none yet
    steps: list[int] = field(default_factory=list)  # of the previews
    follow: bool = True  # the last preview is shown as it comes
    shown: tuple = ()
    drawn: tuple = ()
    listed: tuple = ()  # the model, whether it runs, and its backups
    running: set[str] | None = None  # the runs under way at the last look
    started: str | None = None  # the run that this page started, until it is there to be shown
    rolling_back: bool = False
    asking: bool = False  # a dialog is open, which has the keys
    buttons: list[ui.button] = field(default_factory=list)

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
                    self.select = ui.select(
                        models, value=self.model, label="run", on_change=self._choose
                    )
                    self.select.props("dense options-dense").classes("grow")
                    self.state = ui.label().classes("state")
                    self.resume = _button("Resume", lambda: self._open_form(self.model))
                    self.new = _button("New run", lambda: self._open_form(None), "data-new")
                self.log = ui.label().classes("panel log")
                with ui.grid(columns=3).classes("panel facts"):
                    names = ("iteration", "pairs/s", "time left", "device", "memory", "batch size")
                    self.facts = {name: _fact(name) for name in names}
                with ui.row().classes("panel buttons"):
                    for command, name, key, icon in BUTTONS:
                        button = ui.button(
                            f"{name} [{key}]", icon=icon, on_click=lambda c=command: self._send(c)
                        )
                        button.props(f"no-caps outline dense data-command={command}")
                        button.on("click", js_handler=BLUR)
                        self.buttons.append(button)
                with ui.column().classes("panel curves"):
                    with ui.row().classes("beside"):
                        self.beside = ui.select(
                            [], multiple=True, label="other runs beside it", on_change=self._redraw
                        )
                        self.term = ui.select([], label="their loss", on_change=self._redraw)
                        self.beside.props("dense options-dense use-chips").classes("grow")
                        self.term.props("dense options-dense")
                        for select in (self.select, self.beside, self.term):
                            # Quasar keeps a focus back until its list has faded: after BLUR.
                            select.props("transition-duration=0")
                            select.on("popup-hide", js_handler=BLUR)  # keys are commands again
                    self.chart = ui.echart(_chart({"": []})).classes("chart")
                    self.terms = ui.label().classes("mute")
                self.backups = ui.column().classes("panel backups")
        ui.keyboard(on_key=self._key)
        ui.timer(REFRESH, self._refresh)

    # ---- what is shown ----

    async def _refresh(self) -> None:
        await self._look_for_runs()
        self._show_job()
        if self.model is None:
            self.state.set_text("no run here yet")
            self._enable(False)
            return
        try:
            folder = self.workspace.model(self.model)
        except UserError:  # the user removed it
            self.state.set_text("gone")
            self._enable(False)
            return
        running = control.is_running(folder)
        self._show_status(control.read_status(folder) or {}, running)
        self._show_previews(list(metrics.preview_files(folder)))
        await self._show_losses()
        await self._show_backups(folder, running)

    async def _look_for_runs(self) -> None:
        """Adds runs that are new; one that begins is shown unless another one is watched.

        One that this page started is shown in any case: it may be over before a look sees it run.
        """

        def look() -> tuple[list[str], set[str]]:
            models = self.workspace.models()
            return models, {m for m in models if control.is_running(self.workspace.model(m))}

        try:
            models, running = await run.io_bound(look)
        except UserError:  # one was removed meanwhile
            return
        known, self.running = self.running, running
        begun = running - known if known is not None else set()
        if models != self.select.options:
            self.select.set_options(models)
        if self.started in models:
            self.select.set_value(self.started)
            begun, self.started = begun - {self.started}, None
        name = next(iter(sorted(begun)), None)
        if name is None and self.model is None and models:
            name = models[0]
        if name is not None and name != self.model:
            if self.model not in running:
                self.select.set_value(name)
            ui.notify(f"{name} is training", position="bottom")

    def _show_job(self) -> None:
        """What `train.py` printed, where the run itself says nothing: at its ends, or failed."""
        job = self.jobs.find(JOB)
        begins = job.running and not self.running
        self.log.set_visibility(begins or bool(job.code))
        if self.log.visible:
            head = f"at work, {_duration(job.seconds)}" if begins else f"failed ({job.code})"
            lines = job.log.strip().splitlines()[-LINES:]
            self.log.set_text("\n".join([head, *lines]))
        # A run that was stopped is saved before its process ends.
        others = self.model is not None and self.model not in (self.running or ())
        self.resume.set_enabled(others and not job.running)
        self.new.set_enabled(not job.running)
        back = self.jobs.find(ROLLBACK)
        if self.rolling_back and not back.running:
            self.rolling_back = False
            last = (back.log.strip().splitlines() or ["it ended"])[-1]
            ui.notify(last, type="negative" if back.code else "positive", position="bottom")

    def _enable(self, running: bool) -> None:
        for button in self.buttons:
            button.set_enabled(running)

    def _show_status(self, status: dict[str, Any], running: bool) -> None:
        quiet = time.time() - _number(status, "written") > STALE
        state = "not running" if not running else "busy" if quiet else "training"
        self.state.set_text(state)
        self.state.classes(replace=f"state {state.replace(' ', '-')}")
        self._enable(running)
        step, target = int(_number(status, "step")), int(_number(status, "target"))
        if "step" not in status:  # it was trained elsewhere, or is about to begin
            step = max(saved_model.steps_in(self.workspace.model(self.model)), default=0)
        batch, rate = int(_number(status, "batch_size")), _number(status, "steps_per_second")
        rate = rate if running else 0.0
        left = (target - step) / rate if target and rate else None
        facts = {
            "iteration": f"{step:,}" + (f" of {target:,}" if target else ""),
            "pairs/s": f"{rate * batch:.1f}" if rate else "-",
            "time left": _duration(left) if left is not None else "no target" if running else "-",
            "device": str(status.get("device", "-"))[:60],
            "memory": f"{_number(status, 'memory') / 1e9:.2f} of "
            f"{_number(status, 'memory_limit') / 1e9:.1f} GB",
            "batch size": str(batch),
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
            self.picture.set_source("")
            self.shown = ()
            return
        step = self.steps[min(int(self.slider.value), len(self.steps) - 1)]
        path = metrics.preview_files(self.workspace.model(self.model)).get(step)
        version = path.stat().st_mtime_ns if path else 0
        if self.shown != (self.model, step, version):
            self.shown = (self.model, step, version)
            source = f"api/models/{quote(self.model, safe='')}/previews/{step}?v={version}"
            self.picture.set_source(source)
            self.label.set_text(f"iteration {step:,}")

    async def _show_losses(self) -> None:
        """The curves of the run, or one loss of it and of the other runs that are chosen."""
        others = [name for name in self.select.options if name != self.model]
        if others != self.beside.options:
            kept = [name for name in self.beside.value or [] if name in others]
            self.beside.set_options(others, value=kept)
        shown = [self.model, *(self.beside.value or [])]
        self.beside.set_visibility(bool(others))
        self.term.set_visibility(len(shown) > 1)

        def read() -> tuple[tuple, dict[str, list[dict[str, Any]]]]:
            folders = {name: self.workspace.model(name) for name in shown}
            paths = [folder / metrics.LOSSES for folder in folders.values()]
            sizes = tuple(path.stat().st_size if path.exists() else 0 for path in paths)
            drawn = (*shown, self.term.value, *sizes)
            if drawn == self.drawn:
                return drawn, {}
            return drawn, {name: metrics.read_losses(folder) for name, folder in folders.items()}

        try:
            drawn, rows = await run.io_bound(read)
        except UserError:  # one was removed meanwhile
            return
        if not rows:
            return
        self.drawn = drawn
        names = {name for row in rows[self.model] for name in row["losses"]}
        terms = sorted(set(map(_term, names)))
        if terms != self.term.options:
            usual = next((term for term in ("face", *terms) if term in terms), None)
            self.term.set_options(
                terms, value=self.term.value if self.term.value in terms else usual
            )
        self.chart.options.clear()
        self.chart.options.update(_chart(rows, self.term.value if len(shown) > 1 else None))
        self.chart.update()
        found = [f"{t}: {what}" for t, what in TERMS.items() if any(n.endswith(t) for n in names)]
        self.terms.set_text("; ".join(["src solid, dst dashed; lower is better", *found]))

    async def _redraw(self) -> None:
        if self.model is not None:
            await self._show_losses()

    async def _show_backups(self, folder: Path, running: bool) -> None:
        kept = await run.io_bound(backups_in, folder)
        if self.listed == (listed := (self.model, running, *(one.name for one in kept))):
            return
        self.listed = listed
        lines = await run.io_bound(lambda: [_backup_line(one) for one in kept])
        self.backups.clear()
        self.backups.set_visibility(bool(kept))
        with self.backups:
            for backup, line in zip(kept, lines, strict=True):
                with ui.row().classes("backup"):
                    ui.label(line).classes("mute grow")
                    back = _button("Go back", lambda name=backup.name: self._roll_back(name))
                    back.set_enabled(not running)

    def _slide(self) -> None:
        self.follow = not self.steps or self.slider.value >= len(self.steps) - 1
        if self.model is not None:
            self._show_picture()

    async def _choose(self, event: Any) -> None:
        self.model, self.steps, self.follow = event.value, [], True
        await self._refresh()

    # ---- what is asked of a run ----

    async def _key(self, event: Any) -> None:
        command = KEYS.get(event.key.name if event.key.name != "Space" else " ")
        if command and event.action.keydown and not event.action.repeat and not self.asking:
            held = event.modifiers
            if not (held.ctrl or held.alt or held.meta):
                await self._send(command)

    async def _send(self, command: str) -> None:
        try:
            if self.model is None:
                raise UserError("there is no run yet")
            folder = self.workspace.model(self.model)
            if command == "stop":
                if not control.is_running(folder):
                    raise UserError(f"{self.model}: nothing trains this model now")
                if not await self._ask(f"Save {self.model} and stop?", "Save and stop"):
                    return
            control.send(folder, command)
            ui.notify(f"{command} asked for", position="bottom")
        except UserError as error:
            ui.notify(str(error), type="negative")

    async def _roll_back(self, name: str) -> None:
        question = (
            f"Make backup {name} the present state of {self.model}? "
            "What is there now becomes a backup."
        )
        if not await self._ask(question, "Go back"):
            return
        try:
            self.jobs.start(ROLLBACK, "train", {"name": self.model, "rollback": name})
            self.rolling_back = True
        except UserError as error:
            ui.notify(str(error), type="negative")

    async def _ask(self, question: str, yes: str) -> bool:
        """True when the button `yes` was pressed."""
        with ui.dialog() as dialog, ui.card():
            ui.label(question)
            with ui.row():
                agree = ui.button(yes, on_click=lambda: dialog.submit(True))
                agree.props("no-caps autofocus data-yes")
                ui.button("Cancel", on_click=lambda: dialog.submit(False)).props("no-caps flat")
        self.asking = True
        answer = await dialog
        self.asking = False
        dialog.delete()
        return bool(answer)

    # ---- a run is started ----

    def _open_form(self, resumed: str | None) -> None:
        """The form for a new run, or for going on with the run `resumed`."""
        known = runs.recall(self.workspace, resumed) if resumed else None
        with ui.dialog() as dialog, ui.card().classes("start-form"):
            ui.label(f"Go on with {resumed}" if resumed else "A new run").classes("title")
            if resumed:
                ui.label("The same settings resume it; a higher target lets it go on.").classes(
                    "mute"
                )
            model = ui.select(runs.model_names(), label="model", value=known and known.model)
            about = ui.label().classes("mute about")
            presets = ["", *runs.preset_names()]
            preset = ui.select(presets, label="preset", value=(known and known.preset) or "")
            about_preset = ui.label().classes("mute about")
            name = ui.input("name", value=resumed or "")
            name.set_enabled(resumed is None)
            batch = ui.number("batch size (empty: the preset's, or 16)", min=1, precision=0)
            iterations = ui.number("iterations (0: until stopped)", min=0, precision=0)
            more = ui.input("other settings, such as model.resolution=128")

            def describe() -> None:
                about.set_text(runs.describe("model", model.value) if model.value else "")
                group, _, choice = (preset.value or "").partition("=")
                about_preset.set_text(runs.describe(group, choice) if choice else "")

            def propose() -> None:
                describe()
                if resumed is None:
                    name.set_value(self._free_name(model.value))

            model.on_value_change(propose)
            preset.on_value_change(describe)
            if known is None:
                model.set_value("h64")
            else:
                batch.set_value(known.batch_size)
                iterations.set_value(known.iterations)
                more.set_value(known.more)
            describe()

            def choices() -> Choices:
                numbers = [None if n.value is None else int(n.value) for n in (batch, iterations)]
                chosen = (name.value, model.value, preset.value or None, *numbers, more.value)
                return Choices(*chosen)

            def start() -> None:
                if self._start(choices()):
                    dialog.close()

            def enqueue() -> None:
                if self._enqueue(choices()):
                    dialog.close()

            with ui.row():
                ui.button("Resume" if resumed else "Start", on_click=start).props(
                    "no-caps data-start"
                )
                later = ui.button("Queue", on_click=enqueue).props("no-caps outline data-queue")
                later.tooltip("when the jobs before it in the queue are done: see Home")
                ui.button("Cancel", on_click=dialog.close).props("no-caps flat")
        self.asking = True

        def closed() -> None:
            self.asking = False
            dialog.delete()

        dialog.on("hide", closed)
        dialog.open()

    def _start(self, choices: Choices) -> bool:
        """True when `train.py` was started."""
        try:
            self.jobs.start(JOB, "train", choices.settings())
        except UserError as error:
            ui.notify(str(error), type="negative")
            return False
        runs.remember(self.workspace, choices)
        self.started = choices.name
        return True

    def _enqueue(self, choices: Choices) -> bool:
        """True when the run was put into the queue."""
        try:
            self.queue.add("train", asdict(choices))
        except UserError as error:
            ui.notify(str(error), type="negative")
            return False
        runs.remember(self.workspace, choices)
        ui.notify(f"{choices.name} is in the queue, on the page Home", position="bottom")
        return True

    def _free_name(self, model: str) -> str:
        taken = self.workspace.models()
        names = (model if number == 1 else f"{model}_{number}" for number in count(1))
        return next(name for name in names if name not in taken)


def _button(text: str, action: Callable[[], Any], props: str = "") -> ui.button:
    button = ui.button(text, on_click=action).props(f"no-caps outline dense {props}")
    button.on("click", js_handler=BLUR)
    return button


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


def _chart(runs: dict[str, list[dict[str, Any]]], term: str | None = None) -> dict[str, Any]:
    """ECharts options: losses over the iterations, logarithmic, and their running means.

    Of one run these are all losses; with `term` those of that name of all `runs`. A color stands
    for a loss, or for a run: src's line is solid, dst's dashed.
    """
    curves = []  # (name, what its color stands for, whether it is dst's, points)
    for run_name, all_rows in runs.items():
        rows = all_rows[:: max(1, len(all_rows) // POINTS)]
        names = sorted({name for row in rows for name in row["losses"]}, reverse=True)
        for name in sorted(names, key=_term):  # src before dst
            if term is None or _term(name) == term:
                found = [(row["step"], row["losses"].get(name)) for row in rows]
                points = [(step, value) for step, value in found if value is not None and value > 0]
                told = name if term is None else f"{run_name} {name}"
                kind = _term(name) if term is None else run_name
                curves.append((told, kind, name.startswith("dst"), points))
    kinds = list(dict.fromkeys(kind for _, kind, _, _ in curves))
    several = sum(len({step for step, _ in points}) > 1 for *_, points in curves)
    names = [name for name, *_ in curves]
    grid = {"splitLine": {"lineStyle": {"color": "#8894a555"}}, "axisLabel": {"color": "#8894a5"}}
    series = []
    for name, kind, is_dst, points in curves:
        line = {
            "color": COLORS[kinds.index(kind) % len(COLORS)],
            "type": "dashed" if is_dst else "solid",
        }
        look = {"name": name, "type": "line", "color": line["color"], "symbolSize": 5}
        faint = {"lineStyle": line | {"opacity": 0.25, "width": 1}, "silent": True}
        bold = {"lineStyle": line | {"width": 2}, "showSymbol": len(points) < FEW}
        series += [
            look | faint | {"data": points, "showSymbol": False, "tooltip": {"show": False}},
            look | bold | {"data": _smoothed(points)},
        ]
    return {
        "animation": False,
        "legend": {"data": names, "textStyle": {"color": "#8894a5"}, "type": "scroll"}
        | {"top": 0, "pageTextStyle": {"color": "#8894a5"}},
        "tooltip": {"trigger": "axis", ":valueFormatter": "(value) => value.toPrecision(4)"},
        "grid": {"left": 48, "right": 16, "top": 32, "bottom": 56},
        "xAxis": {"type": "value"}
        | grid
        | ({"min": "dataMin", "max": "dataMax"} if several else {"scale": True}),
        "yAxis": {"type": "log", "minorSplitLine": {"show": False}} | grid,
        "dataZoom": [{"type": "inside"}, {"type": "slider", "height": 18, "bottom": 6}],
        "series": series,
    }


def _term(name: str) -> str:
    """The part of a curve's name that src and dst share."""
    return name.removeprefix("src_").removeprefix("dst_")


def _smoothed(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """`points` with the mean around each of them, of the logarithms as the curve shows them."""
    reach = int(len(points) * SMOOTHED / 2)
    if not reach:
        return points
    logs = np.log([value for _, value in points])
    sums = np.concatenate([[0.0], np.cumsum(logs)])
    at = np.arange(len(points))
    low, high = np.maximum(at - reach, 0), np.minimum(at + reach + 1, len(points))
    means = np.exp((sums[high] - sums[low]) / (high - low))
    return [(step, float(mean)) for (step, _), mean in zip(points, means, strict=True)]


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
