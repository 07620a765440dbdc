"""The paper's equations on numbers so small that they can be worked out by hand."""

import math
from dataclasses import FrozenInstanceError, replace
from types import SimpleNamespace

import pytest
import torch

from concept_saliency.core.stream import (
    ConceptStream,
    KeyStream,
    ParallelStream,
    TextKeys,
    TextStream,
    attend,
    cross_attention_scores,
    linear_shares,
    output_scores,
    rotate,
    unrotate,
    within_range,
)


def row(*numbers: float) -> torch.Tensor:
    """1 x 1 x D."""
    return torch.tensor([[numbers]])


def text_stream() -> TextStream:
    """With modulation and layers that are told apart: shift, scale, gate of the attention are 1, 2, 3, of the MLP 4, 5, 6."""
    parts = (row(float(n)) for n in range(1, 7))
    return TextStream(*parts, norm1=lambda x: x + 10, qkv=lambda x: (x, 2 * x, 3 * x), to_out=lambda x: x * x, norm2=lambda x: x + 100,
                      mlp=lambda x: -x)


def test_a_block_shifts_and_scales_what_its_norm_gives():
    """(1 + 2) * (7 + 10) + 1 = 52."""
    q, k, v = text_stream().project(row(7.0))
    assert (q.item(), k.item(), v.item()) == (52, 104, 156)


def test_what_a_block_was_made_of_stays():
    with pytest.raises(FrozenInstanceError):
        text_stream().gate1 = row(0.0)


def test_a_block_adds_the_gated_attention_and_then_the_gated_mlp_of_that():
    """7 + 3 * 5^2 = 82; the MLP gets (1 + 5) * (82 + 100) + 4 = 1096; 82 + 6 * -1096."""
    assert text_stream().update(row(7.0), row(5.0)).item() == 82 - 6 * 1096


def test_a_last_block_of_attention_alone_projects_as_any_other():
    last = TextStream.attention_only(row(1.0), row(2.0), norm=lambda x: x + 10, qkv=lambda x: (x, 2 * x, 3 * x))
    assert [part.item() for part in last.project(row(7.0))] == [52, 104, 156]
    with pytest.raises(TypeError):
        TextStream.attention_only(row(1.0), row(2.0), lambda x: x, lambda x: x)  # which is the norm is to be said


def test_a_single_stream_block_adds_attention_and_mlp_at_once():
    """(1 + 2) * (7 + 10) + 1 = 52 enters; leaves: the sum of the attention's output, 5, and of the MLP's activations, 52 + 52 / 2;
    7 + 3 * 83."""
    block = ParallelStream(row(1.0), row(2.0), row(3.0), norm=lambda x: x + 10,
                           enter=lambda x: (x, 2 * x, 3 * x, torch.cat((x, x / 2), dim=-1)), leave=lambda x: x.sum(dim=-1, keepdim=True))
    assert [part.item() for part in block.project(row(7.0))] == [52, 104, 156]
    assert block.update(row(7.0), row(5.0)).item() == 7 + 3 * (5 + 52 + 26)
    with pytest.raises(AssertionError, match="project comes first"):
        replace(block, hidden=None).update(row(7.0), row(5.0))


def heads(*rows: list[list[float]]) -> torch.Tensor:
    """1 x heads x tokens x d."""
    return torch.tensor([rows])


def test_concepts_attend_to_one_another_and_to_the_image():
    """Two heads of one dimension, two concepts, one image token. Keys of zero: everybody gets the same third, (1 + 2 + 6) / 3 = 3 in
    the first head and (4 + 5 + 9) / 3 = 6 in the second. Without self-attention there is only the image, 6 and 9."""
    q, values, image = heads([[1.0], [1.0]], [[1.0], [1.0]]), heads([[1.0], [2.0]], [[4.0], [5.0]]), heads([[6.0]], [[9.0]])
    for found in (attend(q, 0 * q, values, 0 * image, image), attend(q, 0 * q, values, 0 * image, image, self_attention=True)):
        torch.testing.assert_close(found, torch.tensor([[[3.0, 6.0], [3.0, 6.0]]]))
    assert attend(q, 0 * q, values, 0 * image, image, self_attention=False).tolist() == [[[6, 9], [6, 9]]]


def test_attention_is_a_softmax_of_queries_times_keys_over_the_root_of_the_dimension():
    """d = 4, a query of ones: its products with the keys are 2 log 3, own, and 0, the image's; halved, weights 3 : 1."""
    q, k = torch.ones(1, 1, 1, 4), torch.full((1, 1, 1, 4), math.log(3) / 2)
    found = attend(q, k, torch.full((1, 1, 1, 4), 8.0), torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 1, 4))
    torch.testing.assert_close(found, torch.full((1, 1, 4), 6.0))


def test_output_space_is_the_product_of_outputs():
    concepts, image = torch.tensor([[[1.0, 2.0], [3.0, -1.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]]])
    torch.testing.assert_close(output_scores(concepts, image), torch.tensor([[[1.0, 2.0, 6.0], [3.0, -1.0, 4.0]]]))
    two = output_scores(torch.cat((concepts, 2 * concepts)), torch.cat((image, image)))
    torch.testing.assert_close(two[1], 2 * two[0])


def test_cross_attention_is_the_product_of_queries_and_keys_summed_over_heads():
    """Two heads of two dimensions: 1 * 5 + 2 * 6 in the first, 3 * 7 + 4 * 8 in the second; not divided by anything."""
    queries, keys = heads([[1.0, 2.0], [0.0, 0.0]], [[3.0, 4.0], [1.0, 0.0]]), heads([[5.0, 6.0]], [[7.0, 8.0]])
    torch.testing.assert_close(cross_attention_scores(queries, keys), torch.tensor([[[17.0 + 53.0], [7.0]]]))


def test_linear_shares_are_of_what_all_have_above_the_least():
    rows = torch.tensor([[[1.0, 5.0], [3.0, 5.0], [5.0, 5.0]]])
    shares = torch.tensor([[[0.0, 0.0], [1 / 3, 0.0], [2 / 3, 0.0]]])
    torch.testing.assert_close(linear_shares(torch.cat((rows, rows.flip(1)))), torch.cat((shares, shares.flip(1))))


def turn(*degrees: float) -> torch.Tensor:
    """RoPE of so many tokens, one pair of dimensions each: 1 x 1 x N x 1 x 2 x 2."""
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack((angles.cos(), -angles.sin(), angles.sin(), angles.cos()), dim=-1).view(1, 1, -1, 1, 2, 2)


def test_a_position_turns_every_pair_of_dimensions_and_is_turned_back():
    """A quarter turn takes (1, 0) to (0, 1) and (0, 1) to (-1, 0)."""
    x, pe = torch.tensor([[[[1.0, 0.0], [0.0, 1.0], [3.0, 4.0]]]]), turn(90.0, 90.0, 30.0)
    turned = rotate(x, pe)
    torch.testing.assert_close(turned[0, 0, :2], torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    torch.testing.assert_close(unrotate(turned, pe), x)
    assert rotate(x, None) is x and unrotate(x, None) is x
    assert rotate(x.bfloat16(), pe).dtype == torch.bfloat16, "as it came, though RoPE is float32"
    four = torch.tensor([[[[1.0, 0.0, 0.0, 2.0]]]])
    both = torch.cat((turn(90.0), turn(180.0)), dim=3)
    torch.testing.assert_close(rotate(four, both), torch.tensor([[[[0.0, 1.0, 0.0, -2.0]]]]))


def test_only_half_precision_has_an_end_to_keep_within():
    beyond = torch.tensor([float("inf"), float("-inf"), 1.0])
    assert within_range(beyond.half()).tolist() == [65504, -65504, 1]
    assert within_range(torch.tensor([float("nan")]).half()).tolist() == [0]
    for kept in (beyond, beyond.bfloat16()):
        assert within_range(kept) is kept


def stream(blocks: int = 2, rope: torch.Tensor | None = None, **options) -> tuple[ConceptStream, list[torch.Tensor]]:
    """Of two concepts and so many blocks whose norm is the identity, whose keys are twice their queries and whose MLP gives nothing:
    each adds the attention's output. And the states that the blocks were given."""
    given: list[torch.Tensor] = []

    def qkv(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        given.append(x)
        return x[:, None], 2 * x[:, None], x[:, None]

    zero, one = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    block = TextStream(zero, zero, one, zero, zero, zero, norm1=lambda x: x, qkv=qkv, to_out=lambda x: x, norm2=lambda x: x,
                       mlp=lambda x: x)
    family = SimpleNamespace(blocks=lambda model, singles: range(blocks + (singles or 0)), block=lambda module, modulation, index: block,
                             begin=lambda model, vectors, timesteps, guidance: (vectors, None, rope))
    return ConceptStream(family, None, torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.ones(1), None, **options), given


IMAGE = torch.tensor([[[2.0, 1.0]]])


def watch(seen: ConceptStream, pe: torch.Tensor | None = None, queries: torch.Tensor | None = None) -> torch.Tensor:
    """One block, in which the image's only token has keys, values and an output of (2, 1)."""
    return seen.watch(None, IMAGE[:, None], IMAGE[:, None], IMAGE, pe, queries)


def test_concepts_go_from_block_to_block_until_all_have_been_seen():
    seen, given = stream(self_attention=False)
    assert torch.equal(watch(seen), torch.tensor([[[2.0, 1.0], [2.0, 1.0]]])) and not seen.complete
    watch(seen)
    assert seen.complete and torch.equal(given[1], given[0] + IMAGE), "a block adds what its attention gives"
    assert torch.equal(seen.states, given[1]), "nobody reads the states after the last block"
    assert list(seen.scores) == ["output"] and seen.scores["output"][0].tolist() == [[[5], [5]]]
    assert stream(singles=3)[0].depth == 5 and seen.depth == 2


def test_concepts_see_one_another_unless_told_otherwise():
    seen, alone = stream()[0], stream(self_attention=False)[0]
    assert not torch.allclose(watch(seen), watch(alone))


def test_cross_attention_is_before_positions():
    """The concepts' queries are (1, 0) and (0, 1), the image's key (2, 1) when it is turned back by a quarter: (1, -2)."""
    seen, _ = stream(cross_attention=True)
    watch(seen, turn(90.0))
    torch.testing.assert_close(seen.scores["cross-attention"][0], torch.tensor([[[1.0], [-2.0]]]))
    watch(seen, None, torch.tensor([[[[3.0, 5.0]]]]))
    keys = 2 * seen.states
    torch.testing.assert_close(seen.scores["cross-attention"][1], keys @ torch.tensor([[[3.0], [5.0]]]))


def test_where_text_has_keys_alone_they_are_asked_by_the_picture_and_stay_as_they_are():
    """The concepts (1, 0) and (0, 1), keys three times as large, and a picture's query (2, 1)."""
    block, concepts = TextKeys(keys=lambda x: 3 * x[:, None]), torch.eye(2)[None]
    family = SimpleNamespace(blocks=lambda model, singles: range(2), block=lambda module, modulation, index: block,
                             begin=lambda model, vectors, timesteps, guidance: (vectors, None, None))
    seen = KeyStream(family, None, concepts, torch.ones(1))
    for complete in (False, True):
        seen.ask(None, IMAGE[:, None])
        assert seen.complete == complete
    assert list(seen.scores) == ["cross-attention"] and [s.tolist() for s in seen.scores["cross-attention"]] == [[[[6], [3]]]] * 2
    queries, keys, values = block.project(concepts)
    assert queries.numel() == values.numel() == 0 and torch.equal(keys, 3 * concepts[:, None]), "there is nothing else to attend with"
    assert block.update(concepts, IMAGE) is concepts
    with pytest.raises(FrozenInstanceError):
        block.keys = None


def test_positions_of_the_concepts_themselves_count_in_their_attention():
    """Turned by half a turn the first concept's query is (-1, 0), and its key (-2, 0)."""
    turned, _ = stream(rope=turn(180.0))
    found = watch(turned)
    q = k = torch.tensor([[-1.0, 0.0], [0.0, -1.0]])
    weights = (q @ torch.cat((2 * k, IMAGE[0])).T / math.sqrt(2)).softmax(dim=-1)
    torch.testing.assert_close(found[0], weights @ torch.cat((torch.eye(2), IMAGE[0])))


def test_linear_scores_are_those_of_shares():
    """The queries (1, 0) and (0, 1) are their own shares; of equal outputs nobody has a share."""
    seen, _ = stream(cross_attention=True, linear=True, self_attention=False)
    watch(seen)
    assert seen.scores["output"][0].tolist() == [[[0], [0]]]
    torch.testing.assert_close(seen.scores["cross-attention"][0], torch.tensor([[[2.0], [1.0]]]))
