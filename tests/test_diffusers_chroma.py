"""Chroma in diffusers: a plain second computation of the scores, whole pipelines, pictures that exist."""

import pytest
import torch

diffusers = pytest.importorskip("diffusers")

from diffusers import ChromaPipeline, ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler  # noqa: E402
from tiny_diffusers import (  # noqa: E402, F401
    check_equal,
    check_one_pass,
    check_picture,
    check_scores,
    in_black_forest_labs_names,
    one_thread,
    reference,
    saved_pipeline_works_in_the_shell,
    small_t5,
    small_vae,
    tokenizer,
)

from concept_saliency.core.families import chroma  # noqa: E402
from concept_saliency.core.families.flux1.diffusers import encode, pack, positions  # noqa: E402
from concept_saliency.headless.inputs import phrase_encoder  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pipe():
    torch.manual_seed(0)
    t5 = small_t5()
    vae = small_vae()
    transformer = ChromaTransformer2DModel(num_layers=3, num_single_layers=2, attention_head_dim=32, num_attention_heads=2,
                                           joint_attention_dim=32, axes_dims_rope=(8, 12, 12), approximator_hidden_dim=32,
                                           approximator_layers=2).eval()
    pipe = ChromaPipeline(FlowMatchEulerDiscreteScheduler(), vae, t5, tokenizer(), transformer)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, **how) -> torch.Tensor:
    return pipe(**{"prompt": "a cat and a dog", "height": 64, "width": 96, "num_inference_steps": 3, "output_type": "pt",
                   "max_sequence_length": 8, "generator": torch.Generator().manual_seed(0), **how}).images


@torch.no_grad()
def test_scores_are_those_of_the_plain_computation(pipe):
    model, generator = pipe.transformer, torch.Generator().manual_seed(1)
    latent = torch.randn(2, 16, 8, 12, generator=generator)
    call = dict(hidden_states=pack(latent), timestep=torch.tensor([0.7, 0.7]), img_ids=positions(latent), txt_ids=torch.zeros(5, 3),
                encoder_hidden_states=torch.randn(2, 5, 32, generator=generator))
    vectors = {name: torch.randn(1, 32, generator=generator) for name in ("cat", "dog")}
    found = check_scores(model, call, vectors)
    for row in range(2):
        expected = reference("DoubleStream", "reference", patch=2, distilled=True).scores(
            in_black_forest_labs_names(model), dict(num_heads=2, depth=3, depth_single_blocks=2, axes_dim=[8, 12, 12], theta=10_000),
            latent=latent[row], text=call["encoder_hidden_states"][row], concepts=torch.cat(list(vectors.values())), t=0.7, guidance=0.0)
        check_equal(found, row, expected)
    assert (found.latest.family, found.latest.defaults) == (chroma.NAME, chroma.DEFAULTS)


@pytest.mark.parametrize("blocks, layers", [("auto", 3), ("all", 5)])
@pytest.mark.parametrize("how", [{}, dict(guidance_scale=0.0), dict(num_images_per_prompt=2)], ids=str)
def test_the_picture_does_not_change(pipe, how, blocks, layers):
    check_picture(pipe, draw, how, layers, blocks=blocks)


@torch.no_grad()
def test_a_phrases_own_tokens(pipe):
    encode_phrase = phrase_encoder(pipe)
    for phrase, count in (("cat", 1), ("red dog", 2)):
        assert torch.equal(encode_phrase(phrase), pipe.encode_prompt(phrase, do_classifier_free_guidance=False)[0][0, :count].float())
    assert not torch.allclose(encode_phrase("cat"), encode_phrase("dog"), rtol=1e-2)


def test_one_pass_records_what_the_first_step_of_sampling_from_there_records(pipe):
    check_one_pass(pipe, draw, encode, 3, pack, guidance_scale=0.0, max_sequence_length=512)


def test_the_shell(pipe, tmp_path):
    saved_pipeline_works_in_the_shell(pipe, tmp_path)
