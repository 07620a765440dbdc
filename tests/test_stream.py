"""The concept stream's options, beside what the golden values cover."""

from types import SimpleNamespace

import pytest
import torch

from concept_saliency.core.families.flux1 import comfyui
from concept_saliency.core.stream import ConceptStream, TextStream, linear_shares
from concept_saliency.demo.flux import Flux, FluxConfig
from concept_saliency.demo.pipeline import TinyFlux


@pytest.fixture(scope="module")
def tiny() -> TinyFlux:
    return TinyFlux()


def scores(tiny: TinyFlux, concepts: str, **options) -> torch.Tensor:
    """Layers x concepts x height x width of one picture of a fixed seed."""
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return tiny.record(picture, concepts, "", **options)["output"].scores[0, :, 0]


def test_without_self_attention_a_concept_does_not_depend_on_its_rivals(tiny):
    alone, beside = scores(tiny, "cat", self_attention=False), scores(tiny, "cat, sand", self_attention=False)
    torch.testing.assert_close(alone[:, 0], beside[:, 0])
    assert not torch.allclose(scores(tiny, "cat")[:, 0], scores(tiny, "cat, sand")[:, 0], rtol=1e-3)


def watched(golden, authors: bool = False, **options):
    """The golden Flux.1, watched on its first step: the scores of both spaces, and what its norms gave of image and concepts: keys and
    queries, or queries and keys where cross-attention is the authors'."""
    data = golden("flux1_dev_like")
    config, grid = data.about["config"], tuple(data.about["grid"])
    model = Flux(FluxConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}))
    model.load_state_dict(data.weights())
    image, text, queries = [], [], []
    for block in model.double_blocks:
        block.img_attn.norm.register_forward_hook(lambda module, args, out: image.append(out[1 - authors]))
        block.img_attn.norm.register_forward_hook(lambda module, args, out: queries.append(out[0]))
        block.txt_attn.norm.register_forward_hook(lambda module, args, out: text.append(out[int(authors)]))
    t, guidance = torch.tensor([data.about["timesteps"][0]]), torch.tensor([data.about["guidance"]])
    stream = ConceptStream(comfyui, model, data["concepts"], t, guidance, cross_attention=True, **options)
    with torch.no_grad():
        model(data["step0.img"], data["txt"], t, grid, data["pooled"], guidance,
              watch=lambda *seen: stream.watch(*seen, queries[-1] if authors else None))
    return stream.scores, image, text[1::2]  # in every block the prompt's come first


def test_cross_attention_is_what_queries_and_keys_say_before_they_are_turned_by_their_positions(golden):
    """Numbers of its own: for every concept and token, the products of all heads' dimensions, one by one."""
    scores, keys, queries = watched(golden)
    for layer, found in enumerate(scores["cross-attention"]):
        expected = (queries[layer][:, :, :, None] * keys[layer][:, :, None]).sum(dim=(1, 4))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_the_authors_multiply_the_image_s_queries_with_the_concepts_keys(golden):
    scores, image_queries, concept_keys = watched(golden, authors=True)
    for layer, found in enumerate(scores["cross-attention"]):
        expected = (concept_keys[layer][:, :, :, None] * image_queries[layer][:, :, None]).sum(dim=(1, 4))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(scores["output"][0], watched(golden)[0]["output"][0]), "output space has no part in it"


def test_a_concept_s_linear_share_is_what_it_has_above_the_least(golden):
    """By hand: 1, 3, 5 are 0, 2, 4 above the least, shares of 0, 1/3 and 2/3; where all are equal nobody has a share."""
    rows = torch.tensor([[[1.0, 5.0], [3.0, 5.0], [5.0, 5.0]]])
    torch.testing.assert_close(linear_shares(rows), torch.tensor([[[0.0, 0.0], [1 / 3, 0.0], [2 / 3, 0.0]]]))
    scores, keys, queries = watched(golden, linear=True)
    shares = queries[0] - queries[0].amin(dim=2, keepdim=True)
    shares = shares / shares.sum(dim=2, keepdim=True)
    expected = (shares[:, :, :, None] * keys[0][:, :, None]).sum(dim=(1, 4))
    torch.testing.assert_close(scores["cross-attention"][0], expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(scores["output"][0], watched(golden)[0]["output"][0], rtol=0.1)


def test_a_state_beyond_half_precision_s_range_stays_at_its_end():
    """ComfyUI and diffusers do so with the text's after every block: the largest number is 65504, and an infinite state is NaN in the
    next block's norm. The attention adds 40000 to the first of four dimensions, and so does the MLP."""
    large = torch.tensor([40000.0, 0, 0, 0]).half()
    plain, kept = torch.ones(1, 1, 4).half(), []

    def qkv(x):
        kept.append(x)
        return (x[:, None],) * 3

    block = TextStream(*(0 * plain, 0 * plain, plain) * 2, norm1=lambda x: x, qkv=qkv, to_out=lambda out: large, norm2=lambda x: x,
                       mlp=lambda x: large)
    family = SimpleNamespace(blocks=lambda model, singles: [0, 1, 2], block=lambda module, modulation, index: block,
                             begin=lambda *given: (plain, None, None))
    stream = ConceptStream(family, None, plain, torch.ones(1), None)
    for _ in range(3):
        stream.watch(None, plain[:, None], plain[:, None], plain, None)
    assert [states[0, 0].tolist() for states in kept] == [[1, 1, 1, 1], [65504, 1, 1, 1], [65504, 1, 1, 1]]
