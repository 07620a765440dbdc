"""What the user types."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from concept_saliency.core.concepts import MAX_CONCEPTS, Concept, concept_vectors, parse_concepts, parse_contrast


def test_commas_lines_and_synonyms():
    assert parse_concepts(" the  red car,\nsky | heaven \n,, ") == (Concept(("the red car",)), Concept(("sky", "heaven")))


@pytest.mark.parametrize("text, message", [("", "No concept"), ("|,\n|", "No concept"), ("a, A", "there twice"), ("a|b, b", "there twice"),
                                           (",".join(map(str, range(MAX_CONCEPTS + 1))), "at most 32")])
def test_bad_concepts_say_what_to_do(text, message):
    with pytest.raises(ValueError, match=message):
        parse_concepts(text)


def test_contrast_gives_way_to_what_the_user_asked_for():
    asked = parse_concepts("Tree, dog|grass")
    assert [c.name for c in parse_contrast("background, tree, grass, floor, floor", asked)] == ["background", "floor"]
    assert parse_contrast("", asked) == ()


@given(st.text(max_size=200))
def test_any_text_parses_or_is_refused_clearly(text):
    try:
        concepts = parse_concepts(text)
    except ValueError as error:
        assert str(error)
        return
    assert 1 <= len(concepts) <= MAX_CONCEPTS
    assert all(p == p.strip() and p and not set(p) & set(",|\n") for c in concepts for p in c.phrases)


def test_vectors_are_means_over_tokens_or_first_tokens_and_synonyms_are_averaged():
    table = {"a": torch.tensor([[1.0, 0.0], [3.0, 0.0]]), "b": torch.tensor([[0.0, 4.0]])}
    concepts = (Concept(("a",)), Concept(("b", "a")))
    assert torch.equal(concept_vectors(concepts, table.get), torch.tensor([[[2.0, 0.0], [1.0, 2.0]]]))
    assert torch.equal(concept_vectors(concepts, table.get, "first"), torch.tensor([[[1.0, 0.0], [0.5, 2.0]]]))
    with pytest.raises(ValueError, match="expected 'mean' or 'first'"):
        concept_vectors(concepts, table.get, "last")
    with pytest.raises(ValueError, match="no token of the concept 'c'"):
        concept_vectors([Concept(("c",))], lambda phrase: torch.zeros(0, 2))
