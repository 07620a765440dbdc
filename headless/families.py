"""Which family a transformer of diffusers is."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

from diffusers import QwenImagePipeline
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_chroma import ChromaTransformer2DModel
from diffusers.models.transformers.transformer_flux import FluxAttention, FluxTransformer2DModel
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from torch import nn

from ..core.families import FAMILIES
from ..core.families.chroma import diffusers as chroma
from ..core.families.flux1 import diffusers as flux1
from ..core.families.flux2 import diffusers as flux2
from ..core.families.krea2 import diffusers as krea2
from ..core.families.naming import DiffusersNaming, Layers
from ..core.families.qwen_image import diffusers as qwen_image
from ..core.families.sd3 import diffusers as sd3
from ..core.families.z_image import diffusers as z_image


class _Known(NamedTuple):
    """A class of diffusers', and the class of its blocks' attention: another one may be anything."""

    transformer: type[nn.Module]
    attention: type[nn.Module]
    family: DiffusersNaming


_TRANSFORMERS = [_Known(FluxTransformer2DModel, FluxAttention, flux1)]
try:
    from diffusers.models.transformers.transformer_flux2 import Flux2Attention, Flux2Transformer2DModel
except ImportError:  # diffusers before 0.36
    pass
else:
    _TRANSFORMERS.append(_Known(Flux2Transformer2DModel, Flux2Attention, flux2))
try:
    from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
except ImportError:  # diffusers before 0.36
    pass
else:
    _TRANSFORMERS.append(_Known(ZImageTransformer2DModel, Attention, z_image))
try:
    from diffusers.models.transformers.transformer_krea2 import Krea2Attention, Krea2Transformer2DModel
except ImportError:  # older diffusers
    pass
else:
    _TRANSFORMERS.append(_Known(Krea2Transformer2DModel, Krea2Attention, krea2))
_TRANSFORMERS += [_Known(QwenImageTransformer2DModel, Attention, qwen_image),
                  _Known(ChromaTransformer2DModel, FluxAttention, chroma), _Known(SD3Transformer2DModel, Attention, sd3)]


def family_of(transformer: nn.Module) -> DiffusersNaming:
    """The family of a transformer, in diffusers' naming. Raises ValueError, naming what was found, for one that is not supported."""
    for kind, attention, family in _TRANSFORMERS:
        fits = isinstance(transformer, kind) and family.fits(transformer)
        if fits and all(isinstance(attention_of(block), attention) for block in family.blocks(transformer)):
            return family
    supported = ", ".join(FAMILIES[family.NAME].TITLE for *_, family in _TRANSFORMERS)
    raise ValueError(f"This is a {type(transformer).__name__}, which cannot be looked into. Supported: {supported}. "
                     "Give a pipeline of diffusers with one of these, or its transformer.")


def attention_of(block: Layers) -> Layers:
    """The attention of a block."""
    return block.attn if hasattr(block, "attn") else block.attention


def heads_of(attn: Layers) -> int:
    """Of its queries."""
    return attn.heads if hasattr(attn, "heads") else attn.num_heads


def plain(pipe: Any) -> Any:
    """A pipeline whose prompts need no picture: for one that edits with Qwen-Image that which draws, of the same parts."""
    if not type(pipe).__name__.startswith("QwenImageEdit"):
        return pipe
    return QwenImagePipeline(**{name: getattr(pipe, name) for name in ("scheduler", "vae", "text_encoder", "tokenizer", "transformer")})


def arguments(transformer: nn.Module, args: tuple, kwargs: dict) -> dict:
    """What a call of a transformer is given, by the names of its parameters."""
    return inspect.signature(type(transformer).forward).bind(transformer, *args, **kwargs).arguments
