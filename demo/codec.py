"""The tiny world's image codec: the TAESD architecture (diffusers' AutoencoderTiny) with Flux's latent format.

Latents are at 1/8 of the picture's size with 16 channels. The encoder is not trained: its
convolutions are set to the principal components of 8 x 8 pixel blocks, so that the latent space
stands before anything is learned; only the decoder is trained. The file is in TAESD's own naming
with Flux.1's shift and scale beside the weights, so that ComfyUI's stock VAE recognises it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import pixel_unshuffle

LATENT_SCALE, LATENT_SHIFT = 0.3611, 0.1159  # Flux.1's latent format (ComfyUI: comfy/latent_formats.py, Flux)
LATENT_CHANNELS = 16
_HALF = 32  # a signed value takes two of TAESD's 64 rectified channels, this far apart


def make_codec(samples: Tensor):
    """A codec (diffusers.AutoencoderTiny) whose encoder is fitted to pictures B x 3 x H x W in 0..1."""
    from diffusers import AutoencoderTiny

    codec = AutoencoderTiny(latent_channels=LATENT_CHANNELS)
    for name, module in codec.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
            if name.endswith(".conv.4") or module is codec.decoder.layers[-1]:
                module.weight.data *= 0.1  # residual branches start small, so that the signal does not grow
    _fit_encoder(codec.encoder, samples)
    return codec


@torch.no_grad()
def _fit_encoder(encoder, samples: Tensor) -> None:
    """Three times: gather 2 x 2 neighbours and keep their principal components (12, then 32, then 16)."""
    for parameter in encoder.parameters():
        parameter.zero_()  # a residual block of zeros passes rectified values through
    stem, *halvings, last = [layer for layer in encoder.layers if isinstance(layer, torch.nn.Conv2d)]
    centre = 0.5
    for c in range(3):
        stem.weight[c, c, 1, 1], stem.bias[c] = 1, -centre
        stem.weight[_HALF + c, c, 1, 1], stem.bias[_HALF + c] = -1, centre
    values = samples - centre
    for conv, keep in zip(halvings, (12, 32, LATENT_CHANNELS)):
        gathered = pixel_unshuffle(values, 2)  # channel order: input channel, row, column
        flat = gathered.movedim(1, -1).flatten(0, -2)
        _, basis = torch.linalg.eigh(torch.cov(flat.T))
        basis = basis.flip(1)[:, :keep].T  # keep x 4n
        taps = basis.unflatten(1, (-1, 2, 2))
        n = taps.shape[1]
        for row, sign in ((0, 1), (_HALF, -1)):
            conv.weight[row:row + keep, :n, 1:, 1:] = sign * taps
            conv.weight[row:row + keep, _HALF:_HALF + n, 1:, 1:] = -sign * taps
        values = torch.einsum("kc,bchw->bkhw", basis, gathered)
    variance, mean = values.var((0, 2, 3)), values.mean((0, 2, 3))
    gain = variance ** -0.4  # between none and full whitening: fine detail stays the smaller part
    gain = gain / (variance * gain**2).mean().sqrt()
    for k in range(LATENT_CHANNELS):
        last.weight[k, k, 1, 1], last.weight[k, _HALF + k, 1, 1], last.bias[k] = gain[k], -gain[k], -gain[k] * mean[k]


def as_matrix(codec) -> tuple[Tensor, Tensor]:
    """The encoder as one matrix: latents = pixel_unshuffle(pictures, 8) along channels times M (192 x 16), plus b."""
    unit = torch.nn.functional.pixel_shuffle(torch.eye(192)[:, :, None, None], 8)
    offset = encode(codec, torch.zeros(1, 3, 8, 8)).flatten()
    return encode(codec, unit).flatten(1) - offset, offset


def save_codec(codec, path: Path, metadata: dict[str, str]) -> None:
    """Write the codec as bfloat16 safetensors in TAESD's naming, whose decoder counts its clamp as layer 0."""
    weights = {}
    for name, value in codec.state_dict().items():
        part, _, number, rest = name.split(".", 3)
        number = int(number) + (part == "decoder")
        dtype = torch.bfloat16 if value.any() else torch.float8_e4m3fn  # zeros need no more than a byte
        weights[f"taesd_{part}.{number}.{rest}"] = value.to(dtype).contiguous()
    weights["vae_scale"], weights["vae_shift"] = torch.tensor(LATENT_SCALE), torch.tensor(LATENT_SHIFT)
    save_file(weights, path, metadata=metadata)


def load_codec(path: Path):
    """The trained codec, in float32, ready for inference."""
    from diffusers import AutoencoderTiny

    codec, weights = AutoencoderTiny(latent_channels=LATENT_CHANNELS), {}
    for name, value in load_file(path).items():
        if name.startswith("taesd_"):
            part, number, rest = name.removeprefix("taesd_").split(".", 2)
            weights[f"{part}.layers.{int(number) - (part == 'decoder')}.{rest}"] = value.float()
    codec.load_state_dict(weights)
    return codec.eval().requires_grad_(False)


@torch.no_grad()
def encode(codec, images: Tensor) -> Tensor:
    """Pictures B x 3 x H x W in 0..1 (sides multiples of 8) -> model latents B x 16 x H/8 x W/8."""
    return codec.encode(images * 2 - 1).latents


@torch.no_grad()
def decode(codec, latents: Tensor) -> Tensor:
    """Model latents B x 16 x h x w -> pictures B x 3 x 8h x 8w in 0..1."""
    return (codec.decode(latents).sample / 2 + 0.5).clamp(0, 1)
