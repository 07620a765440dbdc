"""The tiny world's text encoder: words in order, one vector a word."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from .world import vocabulary

PAD, UNKNOWN, SPECIAL = 0, 1, 2
LENGTH = 16  # shorter prompts are filled up to this many tokens, as T5 does for Flux


class Tokenizer:
    """Lower-case words of the tiny world; whatever it does not know becomes one token, "unknown"."""

    def __init__(self):
        self.numbers = {word: SPECIAL + i for i, word in enumerate(vocabulary())}

    def __len__(self) -> int:
        return SPECIAL + len(self.numbers)

    def words(self, text: str) -> list[str]:
        return re.findall(r"\w+|,", text.lower())

    def unknown(self, text: str) -> list[str]:
        """The words of `text` that the tiny world has no picture of."""
        return [word for word in self.words(text) if word not in self.numbers]

    def check(self, text: str) -> None:
        """Raises ValueError, with all words there are, for a text in which some are unknown."""
        if unknown := self.unknown(text):
            raise ValueError(f"The tiny model does not know '{' '.join(unknown)}'. It knows: {', '.join(self.known())}.")

    def known(self) -> list[str]:
        """All words of the tiny world, without its punctuation marks."""
        return sorted(filter(str.isalpha, self.numbers))

    def __call__(self, text: str) -> list[int]:
        """The tokens of `text`, without padding."""
        return [self.numbers.get(word, UNKNOWN) for word in self.words(text)]


def pad(tokens: list[list[int]]) -> Tensor:
    """Token lists -> B x T int64, T the longest of them and at least LENGTH."""
    length = max([LENGTH, *map(len, tokens)])
    return torch.tensor([row + [PAD] * (length - len(row)) for row in tokens])


class TextEncoder(nn.Module):
    """Word vectors with sinusoidal positions, through one transformer layer."""

    def __init__(self, words: int, dim: int = 256):
        super().__init__()
        self.dim = dim
        self.embedding = nn.Embedding(words, dim)
        self.layer = nn.TransformerEncoderLayer(dim, 4, 2 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens B x T -> B x T x dim."""
        place = torch.arange(tokens.shape[1], device=tokens.device)[:, None]
        rate = torch.exp(-torch.arange(0, self.dim, 2, device=tokens.device) * (6.0 / self.dim))
        positions = torch.cat([torch.sin(place * rate), torch.cos(place * rate)], dim=-1)
        x = self.embedding(tokens)
        return self.norm(self.layer(x + 0.3 * positions.to(x.dtype)))
