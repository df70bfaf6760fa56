"""The networks of DeepFaceLab 2.0's SAEHD and Quick96: `df` and `liae` with the options u, d, t, c.

The parameters lie as in DeepFaceLab's files: the tensor "down1/downs_0/conv1/weight:0" of the file
"encoder" is `params["encoder"]["down1"]["downs_0"]["conv1"]["kernel"]`. That holds for every tensor
of SAEHD, Quick96 and AMP: the file's part of its name, the path, and kernel for "weight:0", bias
for "bias:0". Shapes are the same and the values too, but for one thing: DeepFaceLab's pictures are
BGR and ours RGB. So the input channels of the first convolution (encoder: axis 2 of the kernel of
"down1/downs_0/conv1", with t "down1/conv1") and the output channels of a decoder's out_conv,
out_conv1, out_conv2 and out_conv3 (last axis of kernel and bias) are in the opposite order.

What this computes was compared with the original's numbers (tests/nets/test_saehd.py). Kernels
start as everywhere here (`layers.INIT`), not with the original's Glorot.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from odfs_jax.errors import UserError
from odfs_jax.nets.base import SwapNet
from odfs_jax.nets.kernels.dispatch import add_bias, conv
from odfs_jax.nets.kernels.pixels import depth_to_space
from odfs_jax.nets.layers import INIT, Codes, Conv, Dense, Output, Swap, convolve_batches

SLOPE, RESIDUAL_SLOPE = 0.1, 0.2  # of the leaky ReLUs below zero
NORM_EPSILON = 1e-6
TYPES, LETTERS = ("df", "liae"), "udtc"


@dataclass(frozen=True)
class Archi:
    """What the letters of `archi` choose; see `Saehd`."""

    norm: bool = False  # u
    double: bool = False  # d
    deep: bool = False  # t
    cosine: bool = False  # c

    @property
    def shrinks(self) -> int:
        """The resolution divided by the side of the map that an `Inter` makes of its dense one."""
        return 32 if self.double else 16

    def activate(self, x: jax.Array, slope: float) -> jax.Array:
        return x * jnp.cos(x) if self.cosine else nn.leaky_relu(x, slope)


def read_archi(archi: str) -> tuple[str, Archi]:
    """(type, options) of "liae-ud" say. Raises UserError."""
    kind, dash, letters = archi.partition("-")
    if kind not in TYPES or bool(dash) != bool(letters) or len(set(letters)) != len(letters):
        letters = "?"
    if not set(letters) <= set(LETTERS):
        raise UserError(
            f"model.args.archi={archi}: expected df or liae, or one of them, a dash and some of "
            "the letters u d t c: liae-udt"
        )
    return kind, Archi(*(letter in letters for letter in LETTERS))


def check_resolution(resolution: int, archi: Archi) -> None:
    """Raises UserError where the sides of the maps would not be whole."""
    step = 32 if archi.double or archi.deep else 16
    if resolution % step:
        raise UserError(
            f"model.resolution={resolution}: expected a multiple of {step} with this architecture"
        )


def even(width: int, multiplier: float) -> int:
    """A width times the multiplier, rounded up to an even number of at least 4."""
    return max(4, 2 * math.ceil(width * multiplier / 2))


class Down(nn.Module):
    """5x5 convolution of stride 2 and activation, [N,H,W,C] -> [N,H/2,W/2,features]; mirrored.

    The original pads two zeros on each side. "SAME" has the fast programs and pads one before and
    two behind. The same convolution of the mirrored map, with the kernel mirrored, is then right:
    the one zero is where it is never read.
    """

    features: int
    archi: Archi
    conv_impl: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        impl = self.conv_impl
        x = Conv(self.features, 5, stride=2, mirrored=True, conv_impl=impl, name="conv1")(x)
        return self.archi.activate(x, SLOPE)


class Downs(nn.Module):
    """Several `Down`s one after the other."""

    features: Sequence[int]
    archi: Archi
    conv_impl: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, features in enumerate(self.features):
            x = Down(features, self.archi, self.conv_impl, name=f"downs_{i}")(x)
        return x


class Residual(nn.Module):
    """Two 3x3 convolutions with activations, the second one added to what went in."""

    archi: Archi
    mirrored: bool = False
    conv_impl: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def convolve(x: jax.Array, name: str) -> jax.Array:
            settings = {"mirrored": self.mirrored, "conv_impl": self.conv_impl, "name": name}
            return Conv(x.shape[-1], 3, **settings)(x)

        y = self.archi.activate(convolve(x, "conv1"), RESIDUAL_SLOPE)
        return self.archi.activate(x + convolve(y, "conv2"), RESIDUAL_SLOPE)


class Up(nn.Module):
    """3x3 convolution, activation, pixel shuffle: [N,H,W,C] -> [N,2H,2W,features].

    Given several batches it returns them one after the other in one: see `convolve_batches`.
    """

    features: int
    archi: Archi
    conv_impl: str = "auto"

    @nn.compact
    def __call__(self, *batches: jax.Array) -> jax.Array:
        convolve = Conv(4 * self.features, 3, conv_impl=self.conv_impl, name="conv1")
        return depth_to_space(self.archi.activate(convolve_batches(convolve, batches), SLOPE))


class Encoder(nn.Module):
    """A face [N,R,R,3] to its features [N, h*h*8*width], channel by channel; h = R/16, t: R/32.

    With `bottleneck` a dense layer to so many features follows (AMP).
    """

    width: int
    archi: Archi
    bottleneck: int | None = None
    conv_impl: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x, e, own = x[:, ::-1, ::-1], self.width, (self.archi, self.conv_impl)
        if self.archi.deep:
            x = Down(e, *own, name="down1")(x)
            x = Residual(self.archi, mirrored=True, conv_impl=self.conv_impl, name="res1")(x)
            for i, features in enumerate((2 * e, 4 * e, 8 * e, 8 * e)):
                x = Down(features, *own, name=f"down{i + 2}")(x)
            x = Residual(self.archi, mirrored=True, conv_impl=self.conv_impl, name="res5")(x)
        else:
            x = Downs((e, 2 * e, 4 * e, 8 * e), *own, name="down1")(x)
        x = x[:, ::-1, ::-1].transpose(0, 3, 1, 2).reshape(len(x), -1)
        if self.archi.norm:
            full = x.astype(jnp.float32)
            full *= jax.lax.rsqrt((full**2).mean(axis=-1, keepdims=True) + NORM_EPSILON)
            x = full.astype(x.dtype)
        if self.bottleneck is None:
            return x
        return Dense(self.bottleneck, self.conv_impl, name="dense1")(x)


class Inter(nn.Module):
    """Features [N, C] to a code [N,side,side,features], without t [N,2*side,2*side,features].

    Two dense layers with nothing between them; of AMP's, whose encoder has the first one,
    `bottleneck` is None.
    """

    side: int
    bottleneck: int | None
    features: int
    archi: Archi
    conv_impl: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.bottleneck is not None:
            x = Dense(self.bottleneck, self.conv_impl, name="dense1")(x)
        x = Dense(self.side * self.side * self.features, self.conv_impl, name="dense2")(x)
        x = x.reshape(len(x), self.features, self.side, self.side).transpose(0, 2, 3, 1)
        if self.archi.deep:
            return x
        return Up(self.features, self.archi, self.conv_impl, name="upscale1")(x)


class Kernel(nn.Module):
    """The parameters of a convolution: (kernel [size,size,channels,features], bias)."""

    size: int
    features: int

    @nn.compact
    def __call__(self, channels: int) -> tuple[jax.Array, jax.Array]:
        shape = (self.size, self.size, channels, self.features)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return self.param("kernel", INIT, shape, jnp.float32), bias


class Decoder(nn.Module):
    """A code [N,h,w,C] to (face [N,R,R,3], mask [N,R,R,1]), by two separate branches.

    Several codes give one batch, as in `layers.Decoder`; `remat` is that of `SwapNet`.
    """

    width: int
    mask_width: int
    archi: Archi
    remat: bool = False
    conv_impl: str = "auto"

    @nn.compact
    def __call__(self, *codes: jax.Array) -> Output:
        branches = (Decoder.face, Decoder.mask)
        face, mask = (nn.remat(branch) if self.remat else branch for branch in branches)
        return face(self, *codes), mask(self, *codes)

    def face(self, *codes: jax.Array) -> jax.Array:
        """Upscales with residual blocks between them; with d, the last doubling is of pixels."""
        for i, features in enumerate(self._widths(self.width)):
            x = Up(features, self.archi, self.conv_impl, name=f"upscale{i}")(*codes)
            codes = (Residual(self.archi, conv_impl=self.conv_impl, name=f"res{i}")(x),)
        (x,) = codes
        kernel, bias = Kernel(1, 3, name="out_conv")(x.shape[-1])
        if self.archi.double:  # four convolutions of one map are one; of the 1x1, a 3x3's middle
            around = ((1, 1), (1, 1), (0, 0), (0, 0))
            parts = [(jnp.pad(kernel, around), bias)]
            parts += [Kernel(3, 3, name=f"out_conv{i}")(x.shape[-1]) for i in (1, 2, 3)]
            kernel, bias = (jnp.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
        x = conv(x, kernel.astype(x.dtype), 1, self.conv_impl)
        x = add_bias(x, bias, self.conv_impl)
        x = depth_to_space(x) if self.archi.double else x
        return nn.sigmoid(x.astype(jnp.float32))  # losses and masks want full precision

    def mask(self, *codes: jax.Array) -> jax.Array:
        """Upscales alone."""
        widths = self._widths(self.mask_width) + (self.mask_width,) * self.archi.double
        for i, features in enumerate(widths):
            codes = (Up(features, self.archi, self.conv_impl, name=f"upscalem{i}")(*codes),)
        x = Conv(1, 1, conv_impl=self.conv_impl, name="out_convm")(*codes)
        return nn.sigmoid(x.astype(jnp.float32))

    def _widths(self, d: int) -> tuple[int, ...]:
        return (8 * d,) * (1 + self.archi.deep) + (4 * d, 2 * d)


class Saehd(SwapNet):
    """SAEHD. `archi` is `df` or `liae`, and after a dash any of the letters u, d, t and c.

    df has one inter and a decoder for each person; the swap is dst's code through src's decoder.
    liae has one decoder for both and two inters: src = decoder(AB, AB), dst = decoder(B, AB), and
    the swap is the src path on dst.

    - u: the features are divided by the root of their mean square.
    - d: the decoder works at half the resolution, and four pixels come out of each of its own.
    - t: a deeper encoder with two residual blocks, and one more upscale in the decoder.
    - c: x * cos(x) in place of every leaky ReLU.

    The resolution is a multiple of 16, with d or t of 32. The other fields are widths before
    `width` multiplies them: `ae_dims` of the dense bottleneck and the code, `e_dims`, `d_dims` and
    `d_mask_dims` of encoder, decoder and its mask branch; odd ones of these three count as the next
    even number.
    """

    archi: str
    ae_dims: int
    e_dims: int
    d_dims: int
    d_mask_dims: int

    def check_settings(self) -> None:
        check_resolution(self.resolution, read_archi(self.archi)[1])

    def setup(self) -> None:
        kind, archi = read_archi(self.archi)
        self.is_df = kind == "df"
        ae = max(4, round(self.ae_dims * self.width))
        widths = [even(d, self.width) for d in (self.e_dims, self.d_dims, self.d_mask_dims)]
        impl, side = self.conv_impl, self.resolution // archi.shrinks

        def inter(features: int) -> Inter:
            return Inter(side, ae, features, archi, impl)

        def decoder() -> Decoder:
            return Decoder(*widths[1:], archi, remat=self.remat, conv_impl=impl)

        self.encoder = Encoder(widths[0], archi, conv_impl=impl)
        if self.is_df:
            self.inter = inter(ae)
            self.decoder_src, self.decoder_dst = decoder(), decoder()
        else:
            self.inter_AB, self.inter_B = inter(2 * ae), inter(2 * ae)
            self.decoder = decoder()

    def __call__(self, src: jax.Array, dst: jax.Array) -> dict[str, Output | Codes]:
        features, n = self.encoder(jnp.concatenate([src, dst]).astype(self.dtype)), len(src)
        if self.is_df:
            code_src, code_dst = jnp.split(self.inter(features), [n])
            of_src, of_dst = self.decoder_src(code_src), self.decoder_dst(code_dst)
        else:
            code_src, code_dst = jnp.split(self.inter_AB(features), [n])
            both = jnp.concatenate([self.inter_B(features[n:]), code_dst], axis=-1)
            face, mask = self.decoder(code_src, both)  # src's stands for (AB, AB)
            of_src, of_dst = (face[:n], mask[:n]), (face[n:], mask[n:])
        return {"src": of_src, "dst": of_dst, "codes": {"src": code_src, "dst": code_dst}}

    def swap(self, dst: jax.Array) -> Swap:
        features = self.encoder(dst.astype(self.dtype))
        if self.is_df:
            code = self.inter(features)
            return *self.decoder_src(code), self.decoder_dst(code)[1]
        ab, b = self.inter_AB(features), self.inter_B(features)
        _, dst_mask = self.decoder(jnp.concatenate([b, ab], axis=-1))
        return *self.decoder(jnp.concatenate([ab, ab], axis=-1)), dst_mask
