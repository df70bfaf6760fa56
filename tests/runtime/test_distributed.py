"""Which settings of several processes fit, and what a single process is."""

import jax
import pytest

from odfs_jax.errors import UserError
from odfs_jax.runtime import distributed


@pytest.mark.parametrize(
    ("coordinator", "count", "number", "message"),
    [
        (None, 2, None, "coordinator=null: several processes need host:port or auto"),
        (None, None, 0, "coordinator=null"),
        ("localhost:1", None, 0, "num_processes - 1, found 0 and None"),
        ("localhost:1", 2, None, "found None and 2"),
        ("localhost:1", 2, 2, "process_id from 0 .* found 2 and 2"),
        ("auto", None, None, "hardware.coordinator=auto: "),  # there is no scheduler here
    ],
)
def test_settings_that_do_not_fit(coordinator, count, number, message):
    hardware = {"coordinator": coordinator, "num_processes": count, "process_id": number}
    with pytest.raises(UserError, match=message):
        distributed.join(hardware)


def test_one_process_is_all_there_is():
    distributed.join({"coordinator": None, "num_processes": None, "process_id": None})
    assert distributed.is_main_process()
    assert distributed.all_devices(jax.devices()[:2]) == jax.devices()[:2]
    assert distributed.any_process(3, {}, True, False) == (True, False)
