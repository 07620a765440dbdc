"""What the paper's evaluation does differently, through diffusers."""

import pytest
import torch

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from tiny_diffusers import CONCEPTS, hooks, one_thread, tiny  # noqa: E402

from concept_saliency.cli.pipeline import Pipeline  # noqa: E402
from concept_saliency.headless.image import record_image  # noqa: E402

pytestmark = pytest.mark.usefixtures(one_thread.__name__)
PICTURE = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(3))


def told(pipe) -> list[dict]:
    """What every later call of the transformer is told, by hooks of the test's own."""
    calls: list[dict] = []
    pipe.transformer.register_forward_pre_hook(lambda model, args, kwargs: calls.append(kwargs), with_kwargs=True)
    return calls


def test_linear_shares_divide_the_picture_s_vectors_among_all_concepts():
    """In each dimension the shares of all concepts, shown or not, add up to 1, so their scores add up to the sum over a token's own
    vector: its attention output, or in cross-attention its query before RoPE, which the authors multiply with the concepts' keys."""
    pipe = tiny()
    outputs, queries = [], []
    for block in pipe.transformer.transformer_blocks:
        block.attn.to_out[0].register_forward_pre_hook(lambda layer, args: outputs.append(args[0].sum(-1)))
        block.attn.norm_q.register_forward_hook(lambda layer, args, query: queries.append(query.sum((-2, -1))))
    found = record_image(pipe, PICTURE, CONCEPTS, linear=True, cross_attention=True)
    for space, sums in (("output", outputs), ("cross-attention", queries)):
        scores = found[space].scores[0].flatten(-2)  # layers x pictures x concepts x tokens
        torch.testing.assert_close(scores.sum(2), torch.stack(sums), rtol=1e-4, atol=1e-4)
    plain = record_image(pipe, PICTURE, CONCEPTS)["output"].scores
    assert not torch.allclose(plain, found["output"].scores, atol=1e-3)


def test_a_model_that_does_not_normalise_queries_is_refused():
    pipe = tiny()
    for block in pipe.transformer.transformer_blocks:
        block.attn.norm_q = None
    before = hooks(pipe.transformer)
    with pytest.raises(ValueError, match="This FluxTransformer2DModel does not normalise its queries"):
        record_image(pipe, PICTURE, CONCEPTS, linear=True)
    assert hooks(pipe.transformer) == before, "nothing is left"


def test_a_concept_without_rivals_has_no_share():
    """It is the least in every dimension."""
    assert not record_image(tiny(), PICTURE, "cat", contrast="", linear=True)["output"].scores.any()


def test_without_the_pooled_prompt_clip_has_no_say():
    pipe = tiny()
    calls = told(pipe)

    def scores(pooled_prompt: bool) -> torch.Tensor:
        return record_image(pipe, PICTURE, CONCEPTS, prompt="a cat", pooled_prompt=pooled_prompt)["output"].scores

    with_pooled, without = scores(True), scores(False)
    assert calls[0]["pooled_projections"].any() and not calls[1]["pooled_projections"].any()
    with torch.no_grad():
        for weight in pipe.text_encoder.parameters():
            weight.mul_(1.5)
    assert torch.equal(scores(False), without) and not torch.equal(scores(True), with_pooled)


def test_the_shell_asks_for_what_the_paper_s_rules_say(tmp_path):
    tiny().save_pretrained(tmp_path)
    model = Pipeline(str(tmp_path), torch.device("cpu"))
    calls = told(model.pipe)
    ours = model.record(PICTURE, "cat", "sky, sand")["output"].scores
    paper = model.record(PICTURE, "cat", "sky, sand", token="first", linear=True, pooled_prompt=False, guidance=0.0)["output"].scores
    assert [float(call["guidance"]) for call in calls] == [3.5, 0.0] and not calls[1]["pooled_projections"].any()
    wanted = record_image(model.pipe, PICTURE, "cat", contrast="sky, sand", token="first", linear=True, pooled_prompt=False,
                          guidance_scale=0.0, megapixels=0)["output"].scores
    assert torch.equal(paper, wanted) and not torch.allclose(paper, ours, atol=1e-3)
