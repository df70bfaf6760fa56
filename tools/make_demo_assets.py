"""Makes assets/demo/ from the folder of synthetic actors: python tools/make_demo_assets.py ACTORS

The clips' video packets are copied as they are and get a synthesized sound track; the truth
frames are stored again without loss, smaller.
"""

import argparse
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

CLIPS = {"src": "ada", "dst": "ben"}
TRUTH = "gt_ada_as_ben"
SAMPLE_RATE = 48000
NOTES = {"src": (220.0, 277.2, 329.6), "dst": (196.0, 246.9, 293.7)}  # hertz
NOTE_SECONDS = 0.5
PNG_SMALL = (
    cv2.IMWRITE_PNG_COMPRESSION,
    9,
    cv2.IMWRITE_PNG_FILTER,
    cv2.IMWRITE_PNG_ALL_FILTERS,
    cv2.IMWRITE_PNG_STRATEGY,
    cv2.IMWRITE_PNG_STRATEGY_FILTERED,
)


def make_clip(actor: Path, path: Path, notes: tuple[float, ...]) -> None:
    """`actor` with its video packets unchanged and a soft tone sequence of its length."""
    with av.open(str(actor)) as clip, av.open(str(path), "w") as out:
        picture = clip.streams.video[0]
        copy = out.add_stream_from_template(picture, opaque=True)
        tone = out.add_stream("aac", rate=SAMPLE_RATE, layout="mono", bit_rate=64000)
        seconds = float(picture.duration * picture.time_base)
        for packet in clip.demux(picture):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
        for frame in audio_frames(tones(notes, seconds)):
            out.mux(tone.encode(frame))
        out.mux(tone.encode(None))


def tones(notes: tuple[float, ...], seconds: float) -> np.ndarray:
    """float32 [samples] in [-0.1, 0.1]: the notes in turn, each fading in and out."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = np.array(notes)[(time / NOTE_SECONDS).astype(int) % len(notes)]
    fade = np.sin(np.pi * (time % NOTE_SECONDS) / NOTE_SECONDS) ** 2
    return (0.1 * fade * np.sin(2 * np.pi * pitch * (time % NOTE_SECONDS))).astype(np.float32)


def audio_frames(samples: np.ndarray, size: int = 1024) -> Iterator[av.AudioFrame]:
    for start in range(0, len(samples), size):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + size], "fltp", "mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, start
        frame.time_base = Fraction(1, SAMPLE_RATE)
        yield frame


def make_truth(actors: Path, folder: Path) -> None:
    """truth/NNNN.png and truth.npz, both of the frames of dst that have a truth."""
    (folder / "truth").mkdir(exist_ok=True)
    with np.load(actors / f"{TRUTH}.npz", allow_pickle=False) as known:
        np.savez_compressed(
            folder / "truth.npz", frame=known["frame"], landmarks=known["landmarks"]
        )
    for picture in sorted((actors / TRUTH).glob("*.png")):
        cv2.imwrite(str(folder / "truth" / picture.name), cv2.imread(str(picture)), PNG_SMALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("actors", type=Path, help="folder with ada.mp4, ben.mp4 and the truth")
    actors = parser.parse_args().actors
    folder = Path(__file__).resolve().parent.parent / "assets" / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    for side, actor in CLIPS.items():
        make_clip(actors / f"{actor}.mp4", folder / f"{side}.mp4", NOTES[side])
    make_truth(actors, folder)


if __name__ == "__main__":
    main()
