"""What the user types."""

from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from concept_saliency.core.concepts import (
    MAX_CONCEPTS,
    Concept,
    ConceptInputs,
    concept_vectors,
    own_tokens,
    parse_concepts,
    parse_contrast,
    row_of,
    rows_of,
)


def test_commas_lines_and_synonyms():
    assert parse_concepts(" the  red car,\nsky | heaven \n,, ") == (Concept(("the red car",)), Concept(("sky", "heaven")))
    assert [concept.name for concept in parse_concepts("the red car, sky | heaven")] == ["the red car", "sky"]


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


def test_as_many_as_can_be_recorded_and_no_more():
    words = ", ".join(f"thing {i}" for i in range(MAX_CONCEPTS))
    assert len(parse_concepts(words)) == MAX_CONCEPTS == len(parse_contrast(words, ()))
    with pytest.raises(ValueError, match=f"{MAX_CONCEPTS + 1} contrast concepts were typed, but at most {MAX_CONCEPTS}"):
        parse_contrast(words + ", one more", ())


def test_a_concept_goes_by_its_name_its_number_or_as_the_first():
    names = ("Cat", "dog", "9 lives", "salt+pepper", "3")
    assert [row_of(text, names) for text in ("cat", " DOG ", "", "1", "5", "9 lives")] == [0, 1, 0, 0, 4, 2]
    assert row_of("3", names) == 4, "a name before a number"
    assert rows_of("cat + dog", names) == [0, 1] and rows_of("Salt+Pepper", names) == [3] and rows_of("2", names) == [1]
    for unknown in ("horse", "0", "6", "-1", "1.0", "cat + horse"):
        with pytest.raises(ValueError, match="There is no concept.*Known: 1 Cat, 2 dog"):
            rows_of(unknown, names)


def test_what_is_asked_for_is_the_output_space_with_self_attention_unless_said():
    inputs = ConceptInputs.encoded("cat", "sky, cat", lambda phrase: torch.ones(2, 3) * len(phrase))
    assert (inputs.concepts, inputs.contrast, inputs.vectors.shape) == (("cat",), ("sky",), (1, 2, 3))
    assert (inputs.cross_attention, inputs.self_attention, inputs.linear) == (False, True, False)
    assert ConceptInputs(("a",), (), inputs.vectors).self_attention and not ConceptInputs(("a",), (), inputs.vectors).cross_attention


def test_what_was_typed_stays_as_it_was_typed():
    """Concepts are kept on a model between runs, and told apart by what is in them."""
    inputs = ConceptInputs(("a",), (), torch.ones(1, 1, 2))
    for kept, field in ((Concept(("a",)), "phrases"), (inputs, "concepts")):
        with pytest.raises(FrozenInstanceError):
            setattr(kept, field, ("b",))
    assert len({Concept(("a",)), Concept(("a",)), Concept(("b",))}) == 2


@pytest.mark.parametrize("phrase, around", [([7, 8], ([1, 2], [3])), ([7], ([], [3])), ([7, 7, 9], ([1], [])), ([3, 4], ([1, 2], [3])),
                                            ([], ([1, 2], [3]))])
def test_a_phrase_is_what_stands_between_the_parts_of_the_template(phrase, around):
    """Text encoders put prompts into templates; a phrase may begin with the very token that follows it there."""
    before, after = around
    row = [*before, *phrase, *after]
    assert sorted(row[own_tokens(row, [*before, *after])]) == sorted(phrase)


def test_a_text_that_is_shorter_than_an_empty_one_has_no_tokens():
    assert own_tokens([1, 2], [1, 2, 3, 4]) == slice(2, 2)


def test_an_empty_phrase_may_have_a_token_of_its_own_and_the_templates_end_may_stand_behind_padding():
    assert own_tokens([1, 2, 9, 5], [1, 2, 7, 5]) == slice(2, 3)
    assert own_tokens([1, 2, 8, 9, 0, 5], [1, 2, 7, 0, 0, 5]) == slice(2, 4)
