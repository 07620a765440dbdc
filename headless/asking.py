"""What a caller asks for, in words -> names and text vectors, with the text encoder of a diffusers pipeline."""

from __future__ import annotations

from typing import Callable, Sequence

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from ..core.concepts import ConceptInputs

Encode = Callable[[str], Tensor]


def asked(encode: DiffusionPipeline | Encode, concepts: str | Sequence[str], contrast: str | Sequence[str], token: str,
          cross_attention: bool, self_attention: bool = True) -> ConceptInputs:
    """Parse and encode. self_attention: see core.stream.attend. Raises ValueError for concepts or an encoder that cannot be used."""
    if isinstance(encode, DiffusionPipeline):
        encode = phrase_encoder(encode)
    elif not callable(encode):
        raise ValueError(f"encode is {encode!r}, expected a Flux pipeline, or a function that turns a phrase into its tokens' "
                         "vectors T x D. Give encode=pipe.")
    with torch.no_grad():
        return ConceptInputs.encoded(_text(concepts), _text(contrast), encode, token, cross_attention, self_attention)


def phrase_encoder(pipe: DiffusionPipeline) -> Encode:
    """How a Flux pipeline encodes one phrase: T x D float32 on the CPU, the phrase's own tokens only.

    The phrase is encoded as a prompt would be, padding and all, for that is what the model was trained on; then its
    own tokens are taken. Raises ValueError for a pipeline without the text encoder.
    """
    if getattr(pipe, "text_encoder_2", None) is None or getattr(pipe, "tokenizer_2", None) is None:
        raise ValueError(f"This {type(pipe).__name__} has no text_encoder_2 and tokenizer_2 to encode concepts with. "
                         "Load it with them, or give encode=, a function that turns a phrase into its tokens' vectors T x D.")

    def encode(phrase: str) -> Tensor:
        own = len(pipe.tokenizer_2(phrase, add_special_tokens=False).input_ids)
        return pipe.encode_prompt(phrase, phrase)[0][0, :own].float().cpu()

    return encode


def _text(concepts: str | Sequence[str]) -> str:
    return concepts if isinstance(concepts, str) else "\n".join(concepts)
