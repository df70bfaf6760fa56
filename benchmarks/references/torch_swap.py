"""Swap networks in plain PyTorch, the yardstick of `bench_train.py`. Never used by odfs_jax."""

import itertools
from collections.abc import Callable
from multiprocessing.connection import Connection

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


class Inter(nn.Module):
    """Features to a code, through a dense bottleneck."""

    def __init__(self, features: int, side: int, args: dict) -> None:
        super().__init__()
        self.side, self.code = side, args["code"]
        self.bottleneck = nn.Linear(features, args["bottleneck"])
        self.dense = nn.Linear(args["bottleneck"], self.code * side**2)
        self.up = up(self.code, args["code_up"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.dense(self.bottleneck(x))
        return self.up(x.reshape(-1, self.code, self.side, self.side))


def encoder(args: dict) -> nn.Module:
    channels, layers = 3, []
    for features in args["encoder"]:
        layers.append(down(channels, features))
        channels = features
    return nn.Sequential(*layers, nn.Flatten())


def decoder(channels: int, args: dict) -> nn.Module:
    return nn.ModuleList(
        [branch(channels, args["decoder"], 3), branch(channels, args["mask_decoder"], 1)]
    )


class SharedEncoderTorch(nn.Module):
    """Same layers and sizes as `odfs_jax.nets.SharedEncoder` at width 1."""

    def __init__(self, resolution: int, args: dict) -> None:
        super().__init__()
        side = resolution // 16
        self.encoder = encoder(args)
        self.inter = Inter(args["encoder"][-1] * side**2, side, args)
        self.src, self.dst = decoder(args["code_up"], args), decoder(args["code_up"], args)

    def forward(self, src: torch.Tensor, dst: torch.Tensor) -> dict:
        codes = self.inter(self.encoder(torch.cat([src, dst])))
        src_code, dst_code = codes.split(len(src))
        return {
            "src": [part(src_code) for part in self.src],
            "dst": [part(dst_code) for part in self.dst],
        }


class LiaeTorch(nn.Module):
    """Same layers and sizes as `odfs_jax.nets.Liae` at width 1."""

    def __init__(self, resolution: int, args: dict) -> None:
        super().__init__()
        side = resolution // 16
        self.encoder = encoder(args)
        features = args["encoder"][-1] * side**2
        self.inter_ab, self.inter_b = Inter(features, side, args), Inter(features, side, args)
        self.decoder = decoder(2 * args["code_up"], args)

    def forward(self, src: torch.Tensor, dst: torch.Tensor) -> dict:
        features = self.encoder(torch.cat([src, dst]))
        ab, n = self.inter_ab(features), len(src)
        own = torch.cat([ab[:n], self.inter_b(features[n:])])
        face, mask = (part(torch.cat([own, ab], dim=1)) for part in self.decoder)
        return {"src": [face[:n], mask[:n]], "dst": [face[n:], mask[n:]]}


class Residual(nn.Module):
    """Two convolutions and what went in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, 1, 1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(x + self.second(F.leaky_relu(self.first(x), 0.2)), 0.2)


class SaehdTorch(nn.Module):
    """Same layers and sizes as `odfs_jax.nets.Saehd` at width 1, as liae-ud and liae-udt only."""

    def __init__(self, resolution: int, args: dict) -> None:
        super().__init__()
        if args["archi"] not in ("liae-ud", "liae-udt"):
            raise ValueError(f"archi={args['archi']}: PyTorch's has liae-ud and liae-udt only")
        deep = args["archi"] == "liae-udt"
        side, code = resolution // 32, 2 * args["ae_dims"]
        e, d, m = args["e_dims"], args["d_dims"], args["d_mask_dims"]
        if deep:
            downs = [down(a, b) for a, b in itertools.pairwise([e, 2 * e, 4 * e, 8 * e, 8 * e])]
            layers = [down(3, e), Residual(e), *downs, Residual(8 * e), nn.Flatten()]
            self.encoder = nn.Sequential(*layers)
        else:
            self.encoder = encoder({"encoder": [e, 2 * e, 4 * e, 8 * e]})
        features = (resolution // (32 if deep else 16)) ** 2 * 8 * e
        self.inter_ab, self.inter_b = (
            nn.Sequential(
                nn.Linear(features, args["ae_dims"]),
                nn.Linear(args["ae_dims"], side**2 * code),
                nn.Unflatten(1, (code, side, side)),
                nn.Identity() if deep else up(code, code),
            )
            for _ in range(2)
        )
        twice = [8] * deep
        widths = [2 * code, *(k * d for k in (*twice, 8, 4, 2))]
        pairs = itertools.pairwise(widths)
        self.face = nn.Sequential(*(nn.Sequential(up(a, b), Residual(b)) for a, b in pairs))
        self.outs = nn.ModuleList([nn.Conv2d(2 * d, 3, k, 1, k // 2) for k in (1, 3, 3, 3)])
        widths = [2 * code, *(k * m for k in (*twice, 8, 4, 2, 1))]
        masks = [up(a, b) for a, b in itertools.pairwise(widths)]
        self.mask = nn.Sequential(*masks, nn.Conv2d(m, 1, 1), nn.Sigmoid())

    def forward(self, src: torch.Tensor, dst: torch.Tensor) -> dict:
        features, n = self.encoder(torch.cat([src, dst])), len(src)
        features = features * torch.rsqrt((features**2).mean(1, keepdim=True) + 1e-6)
        ab = self.inter_ab(features)
        own = torch.cat([ab[:n], self.inter_b(features[n:])])
        code = torch.cat([own, ab], dim=1)
        x = self.face(code)
        # The order of the four does not change what it costs.
        face = torch.sigmoid(F.pixel_shuffle(torch.cat([out(x) for out in self.outs], 1), 2))
        mask = self.mask(code)
        return {"src": [face[:n], mask[:n]], "dst": [face[n:], mask[n:]]}


NETS = {"shared_encoder": SharedEncoderTorch, "liae": LiaeTorch, "saehd": SaehdTorch}
MASK_LOSSES = {"mae": F.l1_loss, "mse": F.mse_loss}


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


def serve(pipe: Connection, config: dict) -> None:
    """Makes as many steps as each message in `pipe` says, and answers when they are done."""
    step = make_torch_step(config)
    while True:
        try:
            count = pipe.recv()
        except EOFError:
            return
        for _ in range(count):
            step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        pipe.send("done")


def make_torch_step(config: dict) -> Callable[[], None]:
    """step() of a `TrainConfig` on random faces that lie on the device already.

    On a GPU networks and losses compiled, convolutions chosen by measurement, Adam fused, and in
    bfloat16 by autocast where `precision` says so.
    """
    model, mask_loss = config["model"], MASK_LOSSES[config["loss"]["mask"]]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as JAX has it by default
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    on_gpu, resolution = device == "cuda", model["resolution"]
    net = NETS[model["net"]](resolution, model["args"])
    net = net.to(device).to(memory_format=torch.channels_last)
    rate = config["optimizer"]["learning_rate"]
    adam = torch.optim.Adam(net.parameters(), rate, betas=(0.5, 0.999), fused=on_gpu)
    cast = torch.autocast(device, torch.bfloat16, enabled=config["precision"] == "bfloat16")
    shape = (config["batch_size"], 3, resolution, resolution)

    def picture() -> torch.Tensor:
        return torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)

    data = {side: (picture(), picture(), picture()[:, :1]) for side in ("src", "dst")}

    def loss() -> torch.Tensor:
        with cast:
            outputs = net(data["src"][0], data["dst"][0])
        total = 0.0
        for side, (face, mask) in outputs.items():
            _, true_face, true_mask = data[side]
            total = total + dssim(true_face * true_mask, face.float() * true_mask)
            total = total + mask_loss(mask.float(), true_mask)
        return total

    loss = torch.compile(loss) if on_gpu else loss

    def step() -> None:
        adam.zero_grad(set_to_none=True)
        loss().backward()
        adam.step()

    return step
