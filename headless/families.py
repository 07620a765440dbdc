"""Which family a transformer of diffusers is."""

from __future__ import annotations

import inspect
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import diffusers
from torch import nn

from ..core.families import FAMILIES
from ..core.families.chroma import diffusers as chroma
from ..core.families.flux1 import diffusers as flux1
from ..core.families.flux2 import diffusers as flux2
from ..core.families.hunyuan_image import diffusers as hunyuan_image
from ..core.families.hunyuan_video import diffusers as hunyuan_video
from ..core.families.hunyuan_video15 import diffusers as hunyuan_video15
from ..core.families.krea2 import diffusers as krea2
from ..core.families.longcat_image import diffusers as longcat_image
from ..core.families.lumina2 import diffusers as lumina2
from ..core.families.naming import DiffusersNaming, Layers
from ..core.families.ovis_image import diffusers as ovis_image
from ..core.families.qwen_image import diffusers as qwen_image
from ..core.families.sd3 import diffusers as sd3
from ..core.families.z_image import diffusers as z_image


class _Known(NamedTuple):
    """A class of diffusers', and the class of its blocks' attention: another one may be anything."""

    transformer: type[nn.Module]
    attention: type[nn.Module]
    family: DiffusersNaming

    @classmethod
    def of(cls, module: str, transformer: str, attention: str, family: DiffusersNaming) -> list[_Known]:
        """One, or none where this diffusers has no such module."""
        name = f"diffusers.models.transformers.transformer_{module}"
        if find_spec(name) is None:
            return []
        found = import_module(name)
        return [cls(getattr(found, transformer), getattr(found, attention), family)]


_TRANSFORMERS = [
    *_Known.of("flux", "FluxTransformer2DModel", "FluxAttention", flux1),
    *_Known.of("flux2", "Flux2Transformer2DModel", "Flux2Attention", flux2),
    *_Known.of("z_image", "ZImageTransformer2DModel", "Attention", z_image),
    *_Known.of("lumina2", "Lumina2Transformer2DModel", "Attention", lumina2),
    *_Known.of("krea2", "Krea2Transformer2DModel", "Krea2Attention", krea2),
    *_Known.of("qwenimage", "QwenImageTransformer2DModel", "Attention", qwen_image),
    *_Known.of("chroma", "ChromaTransformer2DModel", "FluxAttention", chroma),
    *_Known.of("ovis_image", "OvisImageTransformer2DModel", "OvisImageAttention", ovis_image),
    *_Known.of("longcat_image", "LongCatImageTransformer2DModel", "LongCatImageAttention", longcat_image),
    *_Known.of("sd3", "SD3Transformer2DModel", "Attention", sd3),
    *_Known.of("hunyuanimage", "HunyuanImageTransformer2DModel", "Attention", hunyuan_image),
    *_Known.of("hunyuan_video", "HunyuanVideoTransformer3DModel", "Attention", hunyuan_video),
    *_Known.of("hunyuan_video15", "HunyuanVideo15Transformer3DModel", "Attention", hunyuan_video15),
]
_DRAWING = {"QwenImageEdit": "QwenImagePipeline", "LongCatImageEdit": "LongCatImagePipeline"}  # by the names of what edits


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
    """A pipeline whose prompts need no picture: for one that edits with Qwen-Image or LongCat-Image that which draws, of the same parts."""
    for edits, draws in _DRAWING.items():
        if type(pipe).__name__.startswith(edits):
            kind = getattr(diffusers, draws)
            return kind(**{name: getattr(pipe, name) for name in list(inspect.signature(kind.__init__).parameters)[1:]})
    return pipe


def arguments(transformer: nn.Module, args: tuple, kwargs: dict) -> dict:
    """What a call of a transformer is given, by the names of its parameters."""
    return inspect.signature(type(transformer).forward).bind(transformer, *args, **kwargs).arguments
