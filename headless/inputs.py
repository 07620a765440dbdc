"""What a caller asks for, in words -> names and text vectors, with the text encoder of a diffusers pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from ..core.concepts import ConceptInputs, own_tokens
from .families import plain

Encode = Callable[[str], Tensor]


def concept_inputs(encode: DiffusionPipeline | Encode, concepts: str | Sequence[str], contrast: str | Sequence[str], token: str,
                   cross_attention: bool, self_attention: bool = True, blocks: str = "auto") -> ConceptInputs:
    """Parse and encode. self_attention: see core.stream.attend. blocks: see core.families.Defaults.singles_of.

    Raises ValueError for concepts or an encoder that cannot be used.
    """
    if isinstance(encode, DiffusionPipeline):
        encode = phrase_encoder(encode)
    elif not callable(encode):
        raise ValueError(f"encode is {encode!r}, expected a pipeline, or a function that turns a phrase into its tokens' "
                         "vectors T x D. Give encode=pipe.")
    with torch.no_grad():
        return ConceptInputs.encoded(_text(concepts), _text(contrast), encode, token, cross_attention, self_attention, blocks)


def phrase_encoder(pipe: DiffusionPipeline) -> Encode:
    """How a pipeline encodes one phrase: T x D float32 on the CPU, the phrase's own tokens only.

    The phrase is encoded as a prompt would be, padding, template and all, for that is what the model was trained on; then
    its own tokens are taken. Raises ValueError for a pipeline without the text encoder.
    """
    of_t5 = hasattr(pipe, "tokenizer_2") and not hasattr(pipe, "tokenizer_3") and not type(pipe).__name__.startswith("Hunyuan")
    needed = "text_encoder_2 and tokenizer_2" if of_t5 else "text_encoder and tokenizer"
    if any(getattr(pipe, part, None) is None for part in needed.split(" and ")):
        raise ValueError(f"This {type(pipe).__name__} has no {needed} to encode concepts with. "
                         "Load it with them, or give encode=, a function that turns a phrase into its tokens' vectors T x D.")
    speaking = plain(pipe)
    if isinstance(speaking, _WithClip):  # SD3
        return lambda phrase: _of_clip(speaking, phrase).float().cpu()
    if getattr(getattr(speaking.text_encoder, "config", None), "model_type", None) == "t5":  # Chroma
        return lambda phrase: _of_t5_alone(speaking, phrase).float().cpu()
    if of_t5 and isinstance(speaking, _WithT5):  # Flux.1; its text_encoder is CLIP
        return lambda phrase: _of_t5(speaking, phrase).float().cpu()
    if isinstance(speaking, _WithLanguageModel):
        return lambda phrase: _of_language_model(speaking, phrase).float().cpu()
    raise ValueError(f"This {type(pipe).__name__} has no encode_prompt to encode concepts with. Give encode=, a function that turns a "
                     "phrase into its tokens' vectors T x D.")


@runtime_checkable
class _WithClip(Protocol):
    tokenizer: Any
    tokenizer_3: Any

    def encode_prompt(self, *args: Any, **kwargs: Any) -> tuple: ...


@runtime_checkable
class _WithT5(Protocol):
    tokenizer_2: Any

    def encode_prompt(self, *args: Any, **kwargs: Any) -> tuple: ...


@runtime_checkable
class _WithLanguageModel(Protocol):
    text_encoder: Any

    def encode_prompt(self, *args: Any, **kwargs: Any) -> tuple: ...


def _of_clip(pipe: _WithClip, phrase: str) -> Tensor:
    """T5's tokens stand after CLIP's, if it is there."""
    own = own_tokens(pipe.tokenizer(phrase).input_ids, pipe.tokenizer("").input_ids)
    return pipe.encode_prompt(phrase, phrase, phrase, do_classifier_free_guidance=False)[0][0, own]


def _of_t5(pipe: _WithT5, phrase: str) -> Tensor:
    own = len(pipe.tokenizer_2(phrase, add_special_tokens=False).input_ids)
    return pipe.encode_prompt(phrase, phrase)[0][0, :own]


def _of_t5_alone(pipe: Any, phrase: str) -> Tensor:
    own = len(pipe.tokenizer(phrase, add_special_tokens=False).input_ids)
    return pipe.encode_prompt(phrase, do_classifier_free_guidance=False)[0][0, :own]


def _of_language_model(pipe: Any, phrase: str) -> Tensor:
    """What stands in the template where an empty prompt has nothing."""
    def encoded(text: str) -> tuple[list[int], Tensor]:
        given: list[tuple[Tensor, Tensor]] = []
        hook = pipe.text_encoder.register_forward_pre_hook(
            lambda encoder, args, kwargs: given.append(((*args, kwargs.get("input_ids"))[0][0], kwargs["attention_mask"][0].bool())),
            with_kwargs=True)
        try:
            vectors = pipe.encode_prompt(text)[0][0]
        finally:
            hook.remove()
        tokens, filled = given[0]  # of a negative prompt, too, where the pipeline encodes one
        if len(vectors) != filled.sum():  # padding is still there
            end = len(filled) - behind
            vectors = vectors[filled[end - len(vectors):end].to(vectors.device)]
        return tokens[filled].tolist(), vectors.flatten(1)

    behind = 0  # tokens that end the template and are cut off after they were encoded
    if type(pipe).__name__.startswith("LongCatImage"):
        behind = len(pipe.tokenizer(pipe.prompt_template_encode_suffix, add_special_tokens=False).input_ids)
    (row, vectors), (empty, _) = encoded(phrase), encoded("")
    own, cut = own_tokens(row, empty), len(row) - len(vectors) - behind  # of the template's beginning, after it was encoded
    return vectors[own.start - cut:own.stop - cut]


def _text(concepts: str | Sequence[str]) -> str:
    return concepts if isinstance(concepts, str) else "\n".join(concepts)
