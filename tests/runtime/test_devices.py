"""Cards are chosen from what NVML says, before JAX starts. NVML itself is played by tables."""

import os

import jax
import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odfs_jax.errors import UserError
from odfs_jax.runtime import devices as hardware
from odfs_jax.runtime.devices import Card, choose_cards, memory_share, read_cards

GB = 10**9
BIG, SMALL = ("RTX 3090", 24 * GB), ("GTX 1080", 8 * GB)


def card(index, kind, free):
    return Card(index, f"GPU-{index}", kind[0], free, kind[1])


DESK = [card(0, SMALL, 7 * GB), card(1, BIG, 20 * GB), card(2, BIG, 9 * GB), card(3, SMALL, 5 * GB)]


@pytest.mark.parametrize(
    ("wanted", "every", "chosen"),
    [
        ("best", False, [1]),
        ("best", True, [1, 2]),
        ("worst", False, [3]),
        ("worst", True, [0, 3]),
        ([2], False, [2]),
        ([2, 1], False, [2, 1]),
        ([0, 3], True, [0, 3]),
    ],
)
def test_choice(wanted, every, chosen):
    assert [c.index for c in choose_cards(DESK, wanted, every)] == chosen


@given(st.lists(st.tuples(st.sampled_from([BIG, SMALL]), st.integers(0, 8 * GB)), min_size=1))
def test_the_best_has_the_most_and_company_of_its_kind_only(kinds):
    cards = [card(i, kind, free) for i, (kind, free) in enumerate(kinds)]
    (best,) = choose_cards(cards, "best", False)
    assert all(best.free >= c.free for c in cards)
    assert choose_cards(cards, "best", True) == [c for c in cards if c.name == best.name]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([4], r"devices=\[4\]: expected some of 0 \(GTX 1080\), 1 \(RTX 3090\), 2"),
        ([1, 1], "each once"),
        ([], "each once"),
        ([0, 1], "cards of one kind"),
    ],
)
def test_a_choice_that_cannot_be(wanted, message):
    with pytest.raises(UserError, match=message):
        choose_cards(DESK, wanted, False)


def test_the_share_leaves_room_on_the_fullest_card():
    assert memory_share([card(0, BIG, 20 * GB)]) == pytest.approx(0.9 * 20 / 24)
    assert memory_share([card(0, BIG, 20 * GB), card(1, BIG, 4 * GB)]) == pytest.approx(3.4 / 24)
    assert memory_share([card(0, BIG, 0)]) > 0


@pytest.fixture
def play(monkeypatch):
    """play(cards, **replaced): NVML tells of these cards and of nothing else."""

    def install(cards, **replaced):
        by_index = {c.index: c for c in cards}
        functions = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetCount": lambda: len(cards),
            "nvmlDeviceGetHandleByIndex": lambda index: by_index[index],
            "nvmlDeviceGetName": lambda c: c.name,
            "nvmlDeviceGetUUID": lambda c: c.uuid,
            "nvmlDeviceGetMemoryInfo": lambda c: c,  # it has `free` and `total` too
        }
        for name, function in (functions | replaced).items():
            monkeypatch.setattr(pynvml, name, function)

    return install


@pytest.fixture
def jax_on_cards(monkeypatch):
    """JAX as it is where it may use cards; what is said to it is in the returned environment."""
    for name in (hardware.VISIBLE, *hardware.SHARES):
        monkeypatch.setenv(name, "")  # put back afterwards
        monkeypatch.delenv(name)
    platforms = jax.config.jax_platforms
    jax.config.update("jax_platforms", None)
    yield os.environ
    jax.config.update("jax_platforms", platforms)


def settings(devices="best", multi_gpu=False, coordinator=None):
    return {
        "devices": devices,
        "multi_gpu": multi_gpu,
        "compilation_cache": None,
        "coordinator": coordinator,
    }


def fail(error):
    def function(*_):
        raise pynvml.NVMLError(error)

    return function


def test_reading_the_cards(play):
    play(DESK)
    assert read_cards() == DESK


def test_without_a_driver_there_are_no_cards(play, caplog):
    for error in (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED):
        play(DESK, nvmlInit=fail(error))
        assert read_cards() == []
    assert not caplog.messages


def test_a_driver_that_does_not_tell_is_reported(play, caplog):
    play(DESK, nvmlDeviceGetMemoryInfo=fail(pynvml.NVML_ERROR_NOT_SUPPORTED))
    assert read_cards() == []
    assert "Not Supported" in caplog.messages[0] and "JAX chooses" in caplog.messages[0]


def test_jax_sees_the_chosen_cards_and_takes_what_is_free(play, jax_on_cards):
    play(DESK)
    hardware.prepare(settings(multi_gpu=True))
    assert jax_on_cards[hardware.VISIBLE] == "GPU-1,GPU-2"
    assert float(jax_on_cards["XLA_CLIENT_MEM_FRACTION"]) == pytest.approx(0.9 * 9 / 24, abs=1e-3)


@pytest.mark.parametrize("name", hardware.SHARES)
def test_the_users_own_settings_stand(play, jax_on_cards, monkeypatch, name):
    play(DESK)
    monkeypatch.setenv(name, "0.4")
    hardware.prepare(settings())
    assert jax_on_cards[hardware.VISIBLE] == "GPU-1"
    assert [jax_on_cards.get(n) for n in hardware.SHARES].count(None) == 1
    monkeypatch.setenv(hardware.VISIBLE, "3")
    hardware.prepare(settings("worst"))
    assert jax_on_cards[hardware.VISIBLE] == "3"
    with pytest.raises(UserError, match=r"devices=\[0\] and CUDA_VISIBLE_DEVICES=3 both"):
        hardware.prepare(settings([0]))


def test_without_cards(play, jax_on_cards):
    play([])
    hardware.prepare(settings())
    assert hardware.VISIBLE not in jax_on_cards
    with pytest.raises(UserError, match=r"devices=\[0\]: expected some of no NVIDIA card"):
        hardware.prepare(settings([0]))


def test_a_scheduler_deals_the_cards(play, jax_on_cards):
    play(DESK)
    hardware.prepare(settings(coordinator="auto"))
    assert hardware.VISIBLE not in jax_on_cards


def test_cpu_asks_no_driver(play, jax_on_cards):
    play(DESK, nvmlInit=fail(pynvml.NVML_ERROR_UNKNOWN))
    hardware.prepare(settings("cpu"))
    assert jax.config.jax_platforms == "cpu" and hardware.VISIBLE not in jax_on_cards


def test_the_devices_are_said_in_one_line(caplog):
    with caplog.at_level("INFO", logger="odfs_jax"):
        assert hardware.choose(settings()) == jax.local_devices()[:1]
        assert hardware.choose(settings(multi_gpu=True)) == jax.local_devices()
    one, all_of_them = caplog.messages
    assert one.startswith("device: 1 x cpu (cpu), ") and one.endswith(" GB free")
    count = len(jax.local_devices())
    assert all_of_them.startswith(f"device: {count} x cpu") and all_of_them.endswith("free each")


def test_cards_that_jax_cannot_use(play):
    with pytest.raises(UserError, match=r"devices=\[0\]: JAX runs on the CPU; pip install"):
        hardware.choose(settings([0]))


def test_free_memory_is_the_least_of_the_devices():
    class Device:
        platform = "gpu"

        def __init__(self, used):
            self.memory_stats = lambda: {"bytes_limit": 8 * GB, "bytes_in_use": used}

    assert hardware.free_memory([Device(GB), Device(3 * GB)]) == 5 * GB
    one, two = (hardware.free_memory(jax.devices()[:n]) for n in (1, 2))
    assert one == pytest.approx(2 * two, rel=0.2)
