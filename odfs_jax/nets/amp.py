"""DeepFaceLab 2.0's AMP: a factor says how much of the new face is src's.

The parameters lie as `saehd.py` says.
"""

import jax
import jax.numpy as jnp

from odfs_jax.errors import UserError
from odfs_jax.nets.base import SwapNet
from odfs_jax.nets.layers import Codes, Output, Swap
from odfs_jax.nets.saehd import Archi, Decoder, Encoder, Inter, check_resolution, even

ARCHI = Archi(norm=True, double=True, deep=True)


class Amp(SwapNet):
    """AMP. One encoder, a dense inter for each person, one decoder for both.

    dst is rebuilt of dst's inter alone, src of a mixture of both: each time `morph_factor` of the
    code's channels, drawn at random, are src's. So the decoder learns to make a face of any
    mixture. The swap takes the first channels of src's inter, `morph` of them: 0 is dst rebuilt, 1
    the likest to src.

    Both inters are trained; DeepFaceLab's stay at their random start.

    `ae_dims` (dense bottleneck), `inter_dims` (channels of the code), `e_dims`, `d_dims` and
    `d_mask_dims` are widths before `width` multiplies them. The resolution is a multiple of 32.
    """

    ae_dims: int
    inter_dims: int
    e_dims: int
    d_dims: int
    d_mask_dims: int
    morph_factor: float
    morph: float = 1.0  # an array [1] where it is known only when the swap runs

    draws = True

    def check_settings(self) -> None:
        check_resolution(self.resolution, ARCHI)
        for name in ("morph_factor", "morph"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise UserError(f"model.args.{name}={value}: expected a share from 0 to 1")

    def setup(self) -> None:
        ae = max(4, round(self.ae_dims * self.width))
        self.channels = even(self.inter_dims, self.width)
        widths = [even(d, self.width) for d in (self.e_dims, self.d_dims, self.d_mask_dims)]
        impl, side = self.conv_impl, self.resolution // ARCHI.shrinks
        self.encoder = Encoder(widths[0], ARCHI, bottleneck=ae, conv_impl=impl)
        self.inter_src = Inter(side, None, self.channels, ARCHI, impl)
        self.inter_dst = Inter(side, None, self.channels, ARCHI, impl)
        self.decoder = Decoder(*widths[1:], ARCHI, remat=self.remat, conv_impl=impl)

    def __call__(
        self, src: jax.Array, dst: jax.Array, keys: jax.Array | None = None
    ) -> dict[str, Output | Codes]:
        """`keys` [N] draw the channels of each of `src`; without them the first ones are src's."""
        n, of_src = len(src), self._first(self.morph_factor)
        if keys is None:
            of_src = jnp.broadcast_to(of_src, (n, self.channels))
        else:
            of_src = jax.vmap(lambda key: jax.random.permutation(key, of_src))(keys)
        features = self.encoder(jnp.concatenate([src, dst]).astype(self.dtype))
        code_src = self._mixed(features[:n], of_src)
        face, mask = self.decoder(jnp.concatenate([code_src, self.inter_dst(features[n:])]))
        return {
            "src": (face[:n], mask[:n]),
            "dst": (face[n:], mask[n:]),
            "codes": {"src": features[:n], "dst": features[n:]},
        }

    def swap(self, dst: jax.Array) -> Swap:
        features = self.encoder(dst.astype(self.dtype))
        code = self._mixed(features, jnp.broadcast_to(self._first(self.morph), (1, self.channels)))
        return *self.decoder(code), self.decoder(self.inter_dst(features))[1]

    def _first(self, share: float | jax.Array) -> jax.Array:
        """bool [channels], true for the first ones, `share` of them; one may be an array [1]."""
        count = self.channels * share
        count = int(count) if isinstance(count, float) else count.astype(jnp.int32)
        return jnp.arange(self.channels) < count

    def _mixed(self, features: jax.Array, of_src: jax.Array) -> jax.Array:
        """The code of `features`; channels of src's inter where `of_src` [N or 1, channels]."""
        choose = of_src[:, None, None, :]
        return jnp.where(choose, self.inter_src(features), self.inter_dst(features))
