"""What a run does when its numbers overflow: it stops, and says what to try."""

from collections.abc import Mapping
from typing import Any

from odfs_jax.errors import UserError

ON_NAN = ("stop", "rollback")  # the choices of the setting `on_nan`
SLOWER = 0.5  # by which the learning rate is multiplied


class NotFiniteError(UserError):
    """A loss or the state of a run is an infinity or NaN. Nothing of it was saved.

    `saved` is the last checkpoint, None where there is none.
    """

    def __init__(self, step: int, what: str, saved: int | None, config: Mapping[str, Any]) -> None:
        """At iteration `step` or shortly before, `what` was found; `config` is a `TrainConfig`."""
        whole = "nothing was saved before" if saved is None else f"iteration {saved} stays saved"
        super().__init__(
            f"iteration {step}: {what} is no finite number any more; {whole}; "
            f"try {' or '.join(remedies(config))}"
        )
        self.step, self.what, self.saved = step, what, saved


def slower(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with SLOWER times the learning rate."""
    optimizer = config["optimizer"]
    rate = optimizer["learning_rate"] * SLOWER
    return dict(config) | {"optimizer": optimizer | {"learning_rate": rate}}


def remedies(config: Mapping[str, Any]) -> list[str]:
    """Settings that steady a run with the settings `config`, as the command line takes them."""
    found = [f"optimizer.learning_rate={config['optimizer']['learning_rate'] * SLOWER:g}"]
    if config["optimizer"]["clip_norm"] is None:
        found.append("optimizer.clip_norm=1.0")
    if config["precision"] != "float32":
        found.append("precision=float32")
    if config["optimizer"]["moments"] != "float32":
        found.append("optimizer.moments=float32")
    return found
