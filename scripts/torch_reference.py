"""The H64 family in plain PyTorch, as the yardstick of `bench_train.py`. Never used by odfs_jax."""

import torch
import torch.nn.functional as F
from torch import nn


def down(channels: int, features: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, features, 5, 2, 2), nn.LeakyReLU(0.1))


def up(channels: int, features: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 4 * features, 3, 1, 1), nn.LeakyReLU(0.1), nn.PixelShuffle(2)
    )


def branch(channels: int, widths: list[int], out: int) -> nn.Module:
    layers = []
    for features in widths:
        layers.append(up(channels, features))
        channels = features
    return nn.Sequential(*layers, nn.Conv2d(channels, out, 5, 1, 2), nn.Sigmoid())


class SharedEncoderTorch(nn.Module):
    """Same layers and sizes as `odfs_jax.nets.SharedEncoder` at width 1."""

    def __init__(self, resolution: int, args: dict) -> None:
        super().__init__()
        channels, layers = 3, []
        for features in args["encoder"]:
            layers.append(down(channels, features))
            channels = features
        self.encoder, self.side, self.code = nn.Sequential(*layers), resolution // 16, args["code"]
        self.bottleneck = nn.Linear(channels * self.side**2, args["bottleneck"])
        self.dense = nn.Linear(args["bottleneck"], self.code * self.side**2)
        self.up = up(self.code, args["code_up"])
        self.decoders = nn.ModuleDict(
            {
                side: nn.ModuleList(
                    [
                        branch(args["code_up"], args["decoder"], 3),
                        branch(args["code_up"], args["mask_decoder"], 1),
                    ]
                )
                for side in ("src", "dst")
            }
        )

    def forward(self, src: torch.Tensor, dst: torch.Tensor) -> dict:
        x = self.encoder(torch.cat([src, dst]))
        x = self.dense(self.bottleneck(x.flatten(1)))
        x = self.up(x.reshape(-1, self.code, self.side, self.side))
        codes = dict(zip(("src", "dst"), x.split(len(src)), strict=True))
        return {
            side: [part(codes[side]) for part in parts] for side, parts in self.decoders.items()
        }


def dssim(target: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
    """The mean of (1 - SSIM) / 2, 11x11 gaussian window, full windows only."""
    offsets = torch.arange(11, device=target.device) - 5.0
    window = torch.exp(-0.5 * (offsets / 1.5) ** 2)
    window = torch.outer(window, window) / window.sum() ** 2
    window = window.expand(3, 1, 11, 11).contiguous()

    def blur(x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, window, groups=3)

    a, b = blur(target), blur(prediction)
    var_a, var_b = blur(target**2) - a**2, blur(prediction**2) - b**2
    covariance = blur(target * prediction) - a * b
    c1, c2 = 0.01**2, 0.03**2
    ssim = (2 * a * b + c1) * (2 * covariance + c2)
    ssim = ssim / ((a**2 + b**2 + c1) * (var_a + var_b + c2))
    return (1 - ssim.mean()) / 2


def make_torch_step(resolution: int, args: dict, batch_size: int, learning_rate: float):
    """step() of the whole training step on random faces that lie on the device already."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as JAX has it by default
    net = SharedEncoderTorch(resolution, args).to(device).to(memory_format=torch.channels_last)
    adam = torch.optim.Adam(net.parameters(), learning_rate, betas=(0.5, 0.999))
    shape = (batch_size, 3, resolution, resolution)

    def picture() -> torch.Tensor:
        return torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)

    data = {side: (picture(), picture(), picture()[:, :1]) for side in ("src", "dst")}

    def step() -> None:
        outputs = net(data["src"][0], data["dst"][0])
        total = 0.0
        for side, (face, mask) in outputs.items():
            _, true_face, true_mask = data[side]
            total = total + dssim(true_face * true_mask, face * true_mask)
            total = total + (true_mask - mask).abs().mean()
        adam.zero_grad(set_to_none=True)
        total.backward()
        adam.step()
        if device == "cuda":
            torch.cuda.synchronize()

    step.parameters = sum(p.numel() for p in net.parameters())
    return step
