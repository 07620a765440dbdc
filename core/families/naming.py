"""What a family's naming says: the layers of a model, by the names that one library gives them. And what a pipeline must have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor, nn

from .defaults import Defaults

if TYPE_CHECKING:
    from ..stream import Block

Layers = Any  # a model, or a part of one, of a library's own class: which layers it has depends on the class, and no type says it


class Naming(Protocol):
    """What core.stream needs of any. PATCH, PIXELS: a token's side in latent values and in pixels. AT_FIRST_TOKEN = True is said by
    families whose concepts stand where the prompt's first token does, wherever that is; COMPRESSION by those that draw videos: how
    many frames a latent frame stands for, but the first, which stands for one. KEYS_ONLY = True is said by families in which text has
    no stream of its own, see core.stream.KeyStream."""

    NAME: str
    DEFAULTS: Defaults
    PATCH: int
    PIXELS: int

    def fits(self, model: Layers) -> bool:
        """Whether a transformer of the class that is known for this family is one of it."""

    def blocks(self, model: Layers, singles: int | None = 0) -> Sized:
        """The blocks whose attention is watched, in the order of the pass; where single-stream blocks follow double-stream ones, the
        first `singles` of them too, None for all."""

    def begin(self, model: Layers, vectors: Tensor, timesteps: Tensor, guidance: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """The concepts' first states B x C x D, their modulation, as `block` takes it, and their RoPE, or None: it is the identity,
        or that of the prompt's first token (AT_FIRST_TOKEN). vectors: 1 x C x D_text. timesteps in 0..1, guidance: one a picture, B."""

    def block(self, module: Layers, modulation: Tensor, index: int) -> Block:
        """What one of the blocks, the index-th, does to concept tokens."""


class ComfyNaming(Naming, Protocol):
    """What ComfyUI has to be asked for besides, by nodes/. TEXT_KEYS: which text encoder's row holds the concepts' tokens, of several
    the first that is loaded; TOKENIZE: how it is asked to take them literally. BARE = True is said by families of which ComfyUI
    tells neither a call of the transformer nor which block an attention belongs to; CUT_BEHIND by those whose text encoder cuts so many
    tokens of its template off again that stand behind the prompt."""

    TEXT_KEYS: tuple[str, ...]
    TOKENIZE: dict

    def blocks(self, model: Layers, singles: int | None = 0) -> Mapping[Any, Layers]:
        """By the names under which ComfyUI lets them be replaced, or by their numbers where it does not."""


class PlacedNaming(ComfyNaming, Protocol):
    """The same of all families but those that say BARE, to which ComfyUI does not tell which block an attention belongs to."""

    def picture(self, told: Any, count: int, seen: dict, /) -> tuple[Tensor, int, int]:
        """RoPE of a block's tokens, and the first and the end of the `count` that are the picture's own.

        told: what ComfyUI gives a replacement of the block; the model, where no block can be replaced. Such a family also says
        `patches(seen)`: ComfyUI's patches, by their names, that leave in `seen` what is needed. Others leave there what later
        blocks of the call are not told.
        """


class DiffusersNaming(Naming, Protocol):
    """What headless/ needs besides. BOTH_PROMPTS = True is said by families whose guided pipelines give the negative and the positive
    prompt in one call, in this order; PICTURE_ROPE by those whose blocks are given RoPE of the picture alone."""

    def blocks(self, model: Layers, singles: int | None = 0) -> Sequence[Layers]: ...

    def hooked(self, attn: Layers) -> tuple[nn.Module, nn.Module, nn.Module | None]:
        """The layers of an attention that make the keys before RoPE and the values, and the one that is given its output; None where it
        returns it."""

    def drawing(self, model: Layers) -> dict[str, Any]:
        """What a pipeline is told besides the prompt where nothing else is asked for."""

    def called(self, given: dict) -> tuple[tuple[int, ...] | None, Tensor, Tensor | None]:
        """Rows and columns of the picture's own tokens, before them latent frames where it is a video's, None where they do not stand
        row by row; noise levels in 0..1; guidance. given: to the transformer, by the names of its arguments."""

    def keys(self, attn: Layers, seen: Tensor) -> Tensor:
        """Keys before RoPE, B x heads x N x d, of what the first layer of `hooked` has made."""

    rotations: Callable[..., Tensor]
    """RoPE as diffusers gives it to an attention -> 1 x 1 x T x d/2 x 2 x 2, text first (see PICTURE_ROPE)."""


@runtime_checkable
class SharedNaming(DiffusersNaming, Protocol):
    """Where text and image are one sequence in every block."""

    def before(self, given: dict) -> int | list[int]:
        """How many tokens stand before the picture's, one number a picture where they differ. given: as in `called`."""

    def pictures(self, given: dict, guided: bool) -> Tensor:
        """The noisy pictures or their tokens, one a picture. guided: the batch may hold the same once more, for a negative prompt."""

    def gate(self, attn: Layers) -> nn.Module | None:
        """The layer whose output, through a sigmoid, closes on what attention gives before `hooked` sees it; None where there is none."""


@runtime_checkable
class ReadingNaming(DiffusersNaming, Protocol):
    """What it takes to read pictures that exist."""

    def encode(self, pipe: Pipeline, pictures: Tensor) -> Tensor:
        """Model latents B x c x h x w, or x 1 x h x w, of pictures B x 3 x H x W in 0..1, on the pipeline's device."""

    def reading(self, pipe: Pipeline, latents: Tensor, prompt: str, guidance_scale: float,
                pooled_prompt: bool) -> Callable[[Tensor, float], dict[str, Any]]:
        """How the transformer is called to read pictures: from noisy latents and their noise level to its arguments."""


@runtime_checkable
class Pipeline(Protocol):
    """What a pipeline of diffusers must have to read pictures that exist. Its classes register their parts by name, and no type of
    theirs says them. encode_prompt: gives text vectors B x T x D first."""

    transformer: Layers
    vae: Layers

    @property
    def _execution_device(self) -> Any: ...

    def encode_prompt(self, *args: Any, **kwargs: Any) -> tuple: ...

    def maybe_free_model_hooks(self) -> None: ...
