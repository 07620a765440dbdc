"""What the user typed -> concepts, their rivals, and one vector for each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

MAX_CONCEPTS = 32
DEFAULT_CONTRAST = "background, floor, tree, person, grass, face"  # the paper's evaluation (section 5)


@dataclass(frozen=True)
class Concept:
    """One thing to look for. `phrases` are synonyms; the first of them is the concept's name."""

    phrases: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.phrases[0]


def parse_concepts(text: str) -> tuple[Concept, ...]:
    """Concepts separated by commas or lines, synonyms within one by `|`.

    Raises ValueError when there is none, when one is there twice, or when there are more than MAX_CONCEPTS.
    """
    concepts = _split(text)
    if not concepts:
        raise ValueError("No concept was typed. Type one or more words, separated by commas or lines, for example: dragon, sky")
    seen: dict[str, str] = {}
    for concept in concepts:
        for phrase in concept.phrases:
            if phrase.casefold() in seen:
                raise ValueError(f"The concept '{phrase}' is there twice (in '{seen[phrase.casefold()]}' and in "
                                 f"'{'|'.join(concept.phrases)}'). Remove one of them.")
            seen[phrase.casefold()] = "|".join(concept.phrases)
    if len(concepts) > MAX_CONCEPTS:
        raise ValueError(f"{len(concepts)} concepts were typed, but at most {MAX_CONCEPTS} can be recorded at once. "
                         "Remove some, and ask for the rest in a second run.")
    return concepts


def parse_contrast(text: str, concepts: Sequence[Concept]) -> tuple[Concept, ...]:
    """Rivals in the softmax that are not shown: as typed, less whatever the user asked for and less repetitions."""
    taken = {phrase.casefold() for concept in concepts for phrase in concept.phrases}
    contrast = []
    for concept in _split(text):
        if not any(phrase.casefold() in taken for phrase in concept.phrases):
            contrast.append(concept)
            taken.update(phrase.casefold() for phrase in concept.phrases)
    if len(contrast) > MAX_CONCEPTS:
        raise ValueError(f"{len(contrast)} contrast concepts were typed, but at most {MAX_CONCEPTS} are possible. Remove some.")
    return tuple(contrast)


def concept_vectors(concepts: Iterable[Concept], encode: Callable[[str], Tensor], token: str = "mean") -> Tensor:
    """One text vector a concept: 1 x C x D.

    `encode` turns one phrase into the text encoder's output for the phrase's own tokens (T x D, no
    padding, no end token). token: "mean" averages them, "first" takes the first (the paper's
    choice). Synonyms are averaged. Raises ValueError for another `token` or a phrase without tokens.
    """
    if token not in ("mean", "first"):
        raise ValueError(f"token is '{token}', expected 'mean' or 'first'")
    rows = []
    for concept in concepts:
        vectors = []
        for phrase in concept.phrases:
            tokens = encode(phrase)
            if not len(tokens):
                raise ValueError(f"The text encoder makes no token of the concept '{phrase}'. Use another word.")
            vectors.append(tokens[0] if token == "first" else tokens.mean(dim=0))
        rows.append(torch.stack(vectors).mean(dim=0))
    return torch.stack(rows)[None]


def row_of(concept: str, names: Sequence[str]) -> int:
    """Which of `names` a concept is: by its name, whatever its capitals, or by its number, from 1; an empty text is the first.

    Raises ValueError, listing the names, for an unknown one.
    """
    wanted, known = concept.strip().casefold(), [name.casefold() for name in names]
    if wanted in known:
        return known.index(wanted)
    if not wanted:
        return 0
    if re.fullmatch(r"\d{1,3}", wanted) and 1 <= int(wanted) <= len(names):
        return int(wanted) - 1
    listed = ", ".join(f"{number} {name}" for number, name in enumerate(names, 1))
    raise ValueError(f"There is no concept '{concept.strip()}' here. Known: {listed}. Write one of these names, or its number.")


def rows_of(concepts: str, names: Sequence[str]) -> list[int]:
    """The same for one concept or several joined by "+"."""
    if concepts.strip().casefold() in map(str.casefold, names):
        return [row_of(concepts, names)]  # a name that holds a "+" itself
    return [row_of(concept, names) for concept in concepts.split("+")]


@dataclass(frozen=True)
class ConceptInputs:
    """What is recorded: names of the concepts and of their rivals, and one text vector for each, concepts first, 1 x C x D.

    cross_attention: that space too. self_attention, linear: see core.stream. blocks: see core.families.Defaults.singles_of.
    """

    concepts: tuple[str, ...]
    contrast: tuple[str, ...]
    vectors: Tensor
    cross_attention: bool = False
    self_attention: bool = True
    linear: bool = False
    blocks: str = "auto"

    @classmethod
    def encoded(cls, concepts: str, contrast: str, encode: Callable[[str], Tensor], token: str = "mean", cross_attention: bool = False,
                self_attention: bool = True, blocks: str = "auto") -> ConceptInputs:
        """Parse and encode; see parse_concepts, parse_contrast and concept_vectors, also for what is raised."""
        wanted = parse_concepts(concepts)
        rivals = parse_contrast(contrast, wanted)
        vectors = concept_vectors([*wanted, *rivals], encode, token)
        return cls(tuple(c.name for c in wanted), tuple(c.name for c in rivals), vectors, cross_attention, self_attention, blocks=blocks)


def own_tokens(row: Sequence, empty: Sequence) -> slice:
    """Where a phrase's own tokens stand in `row`, as a text encoder is given it, template and all; `empty` is an empty phrase's.

    Neither ends with padding. What stands between the template's parts is the phrase; in place of an empty one some tokenizers put a
    token of their own.
    """
    def in_common(one: Iterable, other: Iterable) -> int:
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other)))

    first = in_common(row, empty)
    behind = min(in_common(reversed(row), reversed(empty)), len(empty) - first)
    return slice(first, max(first, len(row) - behind))


def _split(text: str) -> tuple[Concept, ...]:
    concepts = []
    for entry in re.split(r"[,\n]", text):
        phrases = tuple(" ".join(part.split()) for part in entry.split("|"))
        phrases = tuple(phrase for phrase in phrases if phrase)
        if phrases:
            concepts.append(Concept(phrases))
    return tuple(concepts)
