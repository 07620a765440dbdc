"""A Flux.1 transformer in plain PyTorch, in Black Forest Labs' naming, small enough to train on a CPU.

The weights load unchanged in ComfyUI. `watch` is where concept attention looks on: it is called in
every double-stream block, and in as many single-stream ones as it is told, with the image's keys, values
and attention output, and changes nothing.
Source: black-forest-labs/flux, src/flux/model.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, scaled_dot_product_attention, silu

from ..core.erase import Hole, look_outside
from ..core.families.flux1.comfyui import timestep_embedding
from ..core.stream import rotate

# block, image keys and values (B, heads, N, d; after RoPE), image attention output (B, N, D), image RoPE
Watch = Callable[[nn.Module, Tensor, Tensor, Tensor, Tensor], None]


@dataclass(frozen=True)
class FluxConfig:
    in_channels: int = 64
    vec_in_dim: int = 64
    context_in_dim: int = 256
    hidden_size: int = 256
    mlp_ratio: float = 4.0
    num_heads: int = 2
    depth: int = 3
    depth_single_blocks: int = 2
    axes_dim: tuple[int, ...] = (16, 56, 56)
    theta: int = 10_000
    qkv_bias: bool = True
    guidance_embed: bool = False

    to_dict = asdict


def rope(ids: Tensor, axes_dim: tuple[int, ...], theta: int) -> Tensor:
    """Rotations for positions B x T x axes: B x 1 x T x d/2 x 2 x 2, d the sum of `axes_dim`."""
    angles = []
    for axis, dim in enumerate(axes_dim):
        omega = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        angles.append(ids[..., axis, None].double() * omega)
    a = torch.cat(angles, dim=-1)
    return torch.stack([a.cos(), -a.sin(), a.sin(), a.cos()], dim=-1).unflatten(-1, (2, 2)).float().unsqueeze(1)


def image_ids(height: int, width: int) -> Tensor:
    """Positions of an image's tokens, 1 x (height * width) x 3."""
    ids = torch.zeros(height, width, 3)
    ids[..., 1] = torch.arange(height)[:, None]
    ids[..., 2] = torch.arange(width)[None, :]
    return ids.flatten(0, 1)[None]


class MLPEmbedder(nn.Module):
    def __init__(self, in_dim: int, hidden: int):
        super().__init__()
        self.in_layer, self.out_layer = nn.Linear(in_dim, hidden), nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(silu(self.in_layer(x)))


class RMSNorm(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.rms_norm(x, self.scale.shape, self.scale.to(x.dtype), eps=1e-6)


class QKNorm(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.query_norm, self.key_norm = RMSNorm(dim), RMSNorm(dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.query_norm(q).to(v), self.key_norm(k).to(v)


class SelfAttention(nn.Module):
    def __init__(self, dim: int, num_heads: int, qkv_bias: bool):
        super().__init__()
        self.num_heads = num_heads
        self.qkv, self.norm, self.proj = nn.Linear(dim, dim * 3, bias=qkv_bias), QKNorm(dim // num_heads), nn.Linear(dim, dim)


@dataclass
class ModulationOut:
    shift: Tensor
    scale: Tensor
    gate: Tensor


class Modulation(nn.Module):
    def __init__(self, dim: int, double: bool):
        super().__init__()
        self.double = double
        self.lin = nn.Linear(dim, (6 if double else 3) * dim)

    def forward(self, vec: Tensor) -> tuple[ModulationOut, ModulationOut | None]:
        out = self.lin(silu(vec))[:, None, :].chunk(6 if self.double else 3, dim=-1)
        return ModulationOut(*out[:3]), ModulationOut(*out[3:]) if self.double else None


def mlp(dim: int, ratio: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, int(dim * ratio)), nn.GELU(approximate="tanh"), nn.Linear(int(dim * ratio), dim))


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """B x T x 3D -> queries, keys and values, each B x heads x T x d."""
    return qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def attention(q: Tensor, k: Tensor, v: Tensor, holes: list[Hole] | None, text: int) -> Tensor:
    """Each B x heads x N x d -> B x N x D. holes: see core.erase; text: how many of the tokens are the prompt's."""
    out = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    return out if holes is None else look_outside(out, q, k, v, holes, text)


class DoubleStreamBlock(nn.Module):
    def __init__(self, c: FluxConfig):
        super().__init__()
        dim = c.hidden_size
        for stream in ("img", "txt"):
            setattr(self, f"{stream}_mod", Modulation(dim, double=True))
            setattr(self, f"{stream}_norm1", nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6))
            setattr(self, f"{stream}_attn", SelfAttention(dim, c.num_heads, c.qkv_bias))
            setattr(self, f"{stream}_norm2", nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6))
            setattr(self, f"{stream}_mlp", mlp(dim, c.mlp_ratio))

    def forward(self, img: Tensor, txt: Tensor, vec: Tensor, pe: Tensor, watch: Watch | None = None,
                holes: list[Hole] | None = None) -> tuple[Tensor, Tensor]:
        (img_mod1, img_mod2), (txt_mod1, txt_mod2) = self.img_mod(vec), self.txt_mod(vec)
        heads, text = self.img_attn.num_heads, txt.shape[1]
        q, k, v = split_heads(self.img_attn.qkv((1 + img_mod1.scale) * self.img_norm1(img) + img_mod1.shift), heads)
        img_q, img_k = self.img_attn.norm(q, k, v)
        img_v = v
        q, k, v = split_heads(self.txt_attn.qkv((1 + txt_mod1.scale) * self.txt_norm1(txt) + txt_mod1.shift), heads)
        txt_q, txt_k = self.txt_attn.norm(q, k, v)
        q, k, v = torch.cat((txt_q, img_q), 2), torch.cat((txt_k, img_k), 2), torch.cat((v, img_v), 2)
        q, k = rotate(q, pe), rotate(k, pe)
        out = attention(q, k, v, holes, text)
        txt_out, img_out = out[:, :text], out[:, text:]
        if watch is not None:
            watch(self, k[:, :, text:], v[:, :, text:], img_out, pe[:, :, text:])
        img = img + img_mod1.gate * self.img_attn.proj(img_out)
        img = img + img_mod2.gate * self.img_mlp((1 + img_mod2.scale) * self.img_norm2(img) + img_mod2.shift)
        txt = txt + txt_mod1.gate * self.txt_attn.proj(txt_out)
        txt = txt + txt_mod2.gate * self.txt_mlp((1 + txt_mod2.scale) * self.txt_norm2(txt) + txt_mod2.shift)
        return img, txt


class SingleStreamBlock(nn.Module):
    def __init__(self, c: FluxConfig):
        super().__init__()
        dim = self.hidden_size = c.hidden_size
        hidden, self.num_heads = int(dim * c.mlp_ratio), c.num_heads
        self.linear1, self.linear2 = nn.Linear(dim, 3 * dim + hidden), nn.Linear(dim + hidden, dim)
        self.norm, self.modulation = QKNorm(dim // c.num_heads), Modulation(dim, double=False)
        self.pre_norm, self.mlp_act = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6), nn.GELU(approximate="tanh")

    def forward(self, x: Tensor, vec: Tensor, pe: Tensor, text: int, watch: Watch | None = None, holes: list[Hole] | None = None) -> Tensor:
        """text: how many of the tokens are the prompt's; they stand first."""
        mod, _ = self.modulation(vec)
        qkv, hidden = self.linear1((1 + mod.scale) * self.pre_norm(x) + mod.shift).tensor_split([3 * self.hidden_size], dim=-1)
        q, k, v = split_heads(qkv, self.num_heads)
        q, k = self.norm(q, k, v)
        q, k = rotate(q, pe), rotate(k, pe)
        out = attention(q, k, v, holes, text)
        if watch is not None:
            watch(self, k[:, :, text:], v[:, :, text:], out[:, text:], pe[:, :, text:])
        return x + mod.gate * self.linear2(torch.cat((out, self.mlp_act(hidden)), -1))


class LastLayer(nn.Module):
    def __init__(self, c: FluxConfig):
        super().__init__()
        self.linear = nn.Linear(c.hidden_size, c.in_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(c.hidden_size, 2 * c.hidden_size))

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(vec)[:, None, :].chunk(2, dim=-1)
        return self.linear((1 + scale) * layer_norm(x, x.shape[-1:], eps=1e-6) + shift)


class Flux(nn.Module):
    def __init__(self, config: FluxConfig = FluxConfig()):
        super().__init__()
        c = self.config = config
        self.img_in, self.txt_in = nn.Linear(c.in_channels, c.hidden_size), nn.Linear(c.context_in_dim, c.hidden_size)
        self.time_in, self.vector_in = MLPEmbedder(256, c.hidden_size), MLPEmbedder(c.vec_in_dim, c.hidden_size)
        if c.guidance_embed:
            self.guidance_in = MLPEmbedder(256, c.hidden_size)
        self.double_blocks = nn.ModuleList(DoubleStreamBlock(c) for _ in range(c.depth))
        self.single_blocks = nn.ModuleList(SingleStreamBlock(c) for _ in range(c.depth_single_blocks))
        self.final_layer = LastLayer(c)

    def forward(self, img: Tensor, txt: Tensor, timesteps: Tensor, grid: tuple[int, int], y: Tensor | None = None,
                guidance: Tensor | None = None, watch: Watch | None = None, singles: int | None = 0,
                holes: list[Hole] | None = None) -> Tensor:
        """Velocity B x N x in_channels of packed latent tokens `img` (B x N x in_channels, N = h * w of `grid`).

        txt: B x T x context_in_dim; timesteps in 0..1, one a picture; y: pooled text B x vec_in_dim, None for zeros.
        singles: in how many single-stream blocks `watch` is called, None for all. holes: what is erased, see core.erase.
        """
        vec = self.time_in(timestep_embedding(timesteps).to(img.dtype))
        if self.config.guidance_embed:
            if guidance is None:
                raise ValueError("this Flux is guidance-distilled: give `guidance`, for example 3.5")
            vec = vec + self.guidance_in(timestep_embedding(guidance).to(img.dtype))
        vec = vec + self.vector_in(img.new_zeros(len(img), self.config.vec_in_dim) if y is None else y)
        ids = torch.cat((torch.zeros(1, txt.shape[1], 3), image_ids(*grid)), dim=1)
        pe = rope(ids, self.config.axes_dim, self.config.theta).to(img.device)
        img, txt = self.img_in(img), self.txt_in(txt)
        for block in self.double_blocks:
            img, txt = block(img, txt, vec, pe, watch, holes)
        x = torch.cat((txt, img), dim=1)
        for i, block in enumerate(self.single_blocks):
            x = block(x, vec, pe, txt.shape[1], watch if singles is None or i < singles else None, holes)
        return self.final_layer(x[:, txt.shape[1]:], vec)


def pack(latents: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Latents B x C x H x W (even sides) -> tokens B x (H/2 * W/2) x 4C, and their grid (H/2, W/2)."""
    x = nn.functional.pixel_unshuffle(latents, 2)
    return x.flatten(2).transpose(1, 2), (x.shape[2], x.shape[3])


def unpack(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """The inverse of `pack`."""
    return nn.functional.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, grid), 2)
