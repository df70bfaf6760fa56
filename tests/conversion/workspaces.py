"""A workspace with a clip, faces and a small random network, and the command run in it."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from omegaconf import OmegaConf

from odfs_jax.config import compose
from odfs_jax.conversion.convert import convert
from odfs_jax.data.aligned_png import FaceData, Pose, Source, write_face
from odfs_jax.faces.affine import transform
from odfs_jax.faces.align import alignment_matrix
from odfs_jax.faces.types import FaceType

HEIGHT, WIDTH, COUNT = 96, 128, 6
WITHOUT_FACE = 2
MODEL = {"width": 1 / 32, "face_type": "full", "resolution": 32, "border": 0.046875}


def write_clip(path: Path, images: list[np.ndarray]) -> list[int]:
    """H.264 and a second of AAC; returns the times of the frames as a reader sees them."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"crf": "10"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = out.add_stream("aac", rate=44100, layout="mono")
        tone = np.sin(np.arange(10240) / 20).astype(np.float32)[None]
        samples = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        samples.sample_rate, samples.time_base = 44100, Fraction(1, 44100)
        samples.pts = 0
        for packet in (*sound.encode(samples), *sound.encode(None)):
            out.mux(packet)
        for image in images:
            out.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(video.encode(None))
    return [frame.pts for frame in read_clip(path)[0]]


def read_clip(path: Path) -> tuple[list[av.VideoFrame], list[bytes], str]:
    """(frames, sound packets, comment)."""
    with av.open(str(path)) as container:
        comment = container.metadata.get("comment", "")
        packets = [bytes(p) for p in container.demux(audio=0) if p.size]
        container.seek(0)
        return list(container.decode(video=0)), packets, comment


def write_aligned(path: Path, points: np.ndarray, frame: int, pts: int | None, **changes) -> None:
    known = {"file": "dst.mp4", "frame": frame, "pts": pts, "width": WIDTH, "height": HEIGHT}
    source = Source(**(known | changes), rect=(0.0, 0.0, 9.0, 9.0), landmarks=points)
    aligned = transform(alignment_matrix(points, FaceType.FULL, 16), points)
    face = FaceData(FaceType.FULL, 16, aligned, source, Pose(0.0, 0.0, 0.0), "mtcnn", "dlib68", 1.0)
    write_face(path, np.zeros((16, 16, 3), np.uint8), face)


def convert_workspace(workspace: Path, *overrides: str) -> None:
    settings = [f"workspace={workspace}", "hardware.compilation_cache=null", *overrides]
    config = compose("convert", ["data=dst", "merge=overlay", "batch_size=4", *settings])
    OmegaConf.resolve(config)
    convert(config)
