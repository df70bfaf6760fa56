"""An imported AMP model gives the numbers of the same weights in PyTorch."""

import jax
import numpy as np
import pytest
from dfl_files import OPTIONS, tensor, write_model
from test_dfl_models import amp_tensors, bgr_picture, like_of

from odfs_jax.config import compose
from odfs_jax.inference import make_swapper
from odfs_jax.interop.models import find_model, read_params, settings_of

torch = pytest.importorskip("torch")
F = torch.nn.functional


class AmpTorch:
    """AMP in PyTorch, from the tensors of its files, BGR: written from docs/from_deepfacelab.md."""

    def __init__(self, files):
        self.files = {
            file: {key: torch.from_numpy(value) for key, value in keys.items()}
            for file, keys in files.items()
        }

    def conv(self, file, name, x, stride=1):
        kernel = self.files[file][f"{name}/weight:0"].permute(3, 2, 0, 1)
        bias = self.files[file][f"{name}/bias:0"]
        return F.conv2d(x, kernel, bias, stride, kernel.shape[-1] // 2)

    def dense(self, file, name, x):
        return x @ self.files[file][f"{name}/weight:0"] + self.files[file][f"{name}/bias:0"]

    def residual(self, file, name, x):
        y = F.leaky_relu(self.conv(file, f"{name}/conv1", x), 0.2)
        return F.leaky_relu(x + self.conv(file, f"{name}/conv2", y), 0.2)

    def shuffled(self, x):
        n, c, h, w = x.shape
        x = x.reshape(n, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(n, c // 4, 2 * h, 2 * w)

    def up(self, name, x):
        return self.shuffled(F.leaky_relu(self.conv("decoder", f"{name}/conv1", x), 0.1))

    def encode(self, x):
        for i in range(1, 6):
            x = F.leaky_relu(self.conv("encoder", f"down{i}/conv1", x, 2), 0.1)
            x = self.residual("encoder", f"res{i}", x) if i in (1, 5) else x
        x = x.flatten(1)
        x = x * torch.rsqrt((x**2).mean(1, keepdim=True) + 1e-6)
        return self.dense("encoder", "dense1", x)

    def decode(self, code):
        x = m = code
        for i in range(4):
            x = self.residual("decoder", f"res{i}", self.up(f"upscale{i}", x))
        names = ("out_conv", "out_conv1", "out_conv2", "out_conv3")
        face = torch.cat([self.conv("decoder", name, x) for name in names], 1)
        for i in range(5):
            m = self.up(f"upscalem{i}", m)
        mask = torch.sigmoid(self.conv("decoder", "out_convm", m))
        return torch.sigmoid(self.shuffled(face)), mask

    def swap(self, dst, morph):
        features = self.encode(dst)
        codes = {s: self.dense(f"inter_{s}", "dense2", features) for s in ("src", "dst")}
        src, dst = (codes[side].reshape(1, -1, 2, 2) for side in ("src", "dst"))
        first = int(src.shape[1] * morph)
        return *self.decode(torch.cat([src[:, :first], dst[:, first:]], 1)), self.decode(dst)[1]


@pytest.mark.parametrize("morph", [1.0, 0.3])
def test_amp_gives_the_numbers_of_the_same_weights_in_pytorch(tmp_path, morph):
    files = {
        file: {key: tensor(file, key, value.shape) for key, value in keys.items()}
        for file, keys in amp_tensors().items()
    }
    options = OPTIONS | {"inter_dims": 48, "morph_factor": 0.5}
    dfl = find_model(write_model(tmp_path, "a", "AMP", files, options), None)
    model = compose("train", settings_of(dfl)).model
    swapper = make_swapper(model, read_params(dfl, like_of(model)), morph=morph)
    ours = jax.jit(swapper.predict)(swapper.params, bgr_picture()[..., ::-1])
    picture = torch.from_numpy(bgr_picture()).permute(0, 3, 1, 2)
    theirs = [part.permute(0, 2, 3, 1).numpy() for part in AmpTorch(files).swap(picture, morph)]
    np.testing.assert_allclose(np.asarray(ours[0])[..., ::-1], theirs[0], atol=1e-5)
    for mine, other in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)
