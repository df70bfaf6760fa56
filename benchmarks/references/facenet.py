"""facenet-pytorch's MTCNN, the reference of the parity test and of the bench. Needs PyTorch.

python benchmarks/references/facenet.py FRAME... > tests/extraction/data/reference.json

It writes the boxes, points and probabilities that the reference finds in each picture.
"""

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def load(min_face: float, factor: float, thresholds: tuple[float, float, float]) -> Any:
    """`facenet_pytorch.MTCNN` of these settings, on the CPU.

    The package imports torchvision (several GB with its CUDA packages) for one function and
    requests for downloads that MTCNN does not make, so both have stand-ins here.
    """
    _stand_in("torchvision.ops.boxes", batched_nms=batched_nms)
    _stand_in("torchvision.transforms.functional", to_tensor=None)
    if "requests" not in sys.modules and importlib.util.find_spec("requests") is None:
        _stand_in("requests.adapters", HTTPAdapter=None)
    from facenet_pytorch import MTCNN

    return MTCNN(keep_all=True, min_face_size=min_face, factor=factor, thresholds=list(thresholds))


def batched_nms(boxes: Any, scores: Any, groups: Any, limit: float) -> Any:
    """torchvision's function: greedy suppression within each group, indices by falling score."""
    import torch

    corners = boxes.numpy()
    area = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    group, alive, kept = groups.numpy(), np.ones(len(corners), bool), []
    for i in torch.argsort(scores, descending=True, stable=True).tolist():
        if alive[i]:
            kept.append(i)
            low = np.maximum(corners[i, :2], corners[:, :2])
            high = np.minimum(corners[i, 2:], corners[:, 2:])
            shared = np.clip(high - low, 0, None).prod(axis=1)
            alive &= (shared / (area[i] + area - shared) <= limit) | (group != group[i])
    return torch.tensor(kept, dtype=torch.int64)


def describe(found: tuple[Any, Any, Any]) -> list[dict[str, Any]]:
    """One frame's (boxes, probabilities, points) of `MTCNN.detect` as plain lists."""
    boxes, scores, points = found
    if boxes is None:
        return []
    return [
        {
            "box": np.round(np.asarray(box, float), 3).tolist(),
            "score": round(float(score), 5),
            "points": np.round(np.asarray(five, float), 3).tolist(),
        }
        for box, score, five in zip(boxes, scores, points, strict=True)
    ]


def _stand_in(name: str, **content: Any) -> None:
    """Puts an empty module `name`, and its parents, in place; the last one has `content`."""
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        path = ".".join(parts[:depth])
        module = sys.modules.setdefault(path, types.ModuleType(path))
        if depth > 1:
            setattr(sys.modules[".".join(parts[: depth - 1])], parts[depth - 1], module)
    for key, value in content.items():
        setattr(module, key, value)


def main(paths: list[Path]) -> None:
    reference = load(20, 0.709, (0.6, 0.7, 0.7))
    result = {}
    for path in paths:
        image = np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
        result[path.name] = describe(reference.detect(image, landmarks=True))
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
