"""Qwen-Image in diffusers: a plain second computation of the scores, whole pipelines, pictures that exist, and what is refused."""

import pytest
import torch

diffusers = pytest.importorskip("diffusers")

from diffusers import (  # noqa: E402
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImageEditPipeline,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from tiny_diffusers import (  # noqa: E402, F401
    check_compiled,
    check_equal,
    check_one_pass,
    check_own_tokens,
    check_picture,
    check_scores,
    one_thread,
    reference,
    saved_pipeline_works_in_the_shell,
    tokenizer,
)
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration  # noqa: E402

import concept_saliency  # noqa: E402
from concept_saliency.core.families import qwen_image  # noqa: E402
from concept_saliency.core.families.qwen_image.diffusers import encode, pack  # noqa: E402
from concept_saliency.headless.inputs import phrase_encoder  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pipe():
    torch.manual_seed(0)
    words, small = tokenizer(), dict(hidden_size=16, intermediate_size=16)
    text = Qwen2_5_VLConfig(vision_config=dict(depth=1, num_heads=2, out_hidden_size=16, **small), text_config=dict(
        vocab_size=len(words), num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, rope_theta=10_000.0,
        rope_scaling=dict(type="mrope", rope_type="default", rope_theta=10_000.0, mrope_section=[1, 1, 2]), **small))
    vae = AutoencoderKLQwenImage(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    transformer = QwenImageTransformer2DModel(num_layers=4, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=16,
                                              axes_dims_rope=(4, 4, 8))
    pipe = QwenImagePipeline(scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae.eval(), tokenizer=words,
                             text_encoder=Qwen2_5_VLForConditionalGeneration(text).eval(), transformer=transformer.eval())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, **how) -> torch.Tensor:
    return pipe(**{"prompt": "a cat and a dog", "height": 64, "width": 96, "num_inference_steps": 3, "output_type": "pt",
                   "generator": torch.Generator().manual_seed(0), **how}).images


@torch.no_grad()
@pytest.mark.parametrize("references", [[], [(4, 4), (2, 6)]], ids=["", "references"])
def test_scores_are_those_of_the_plain_computation(pipe, references):
    model, generator, grids = pipe.transformer, torch.Generator().manual_seed(1), [(4, 6), *references]
    latents = [torch.randn(2, 16, 2 * h, 2 * w, generator=generator) for h, w in grids]
    call = dict(hidden_states=torch.cat([pack(latent) for latent in latents], dim=1), timestep=torch.tensor([0.7, 0.7]),
                encoder_hidden_states=torch.randn(2, 5, 16, generator=generator), img_shapes=[[(1, *grid) for grid in grids]] * 2)
    vectors = {name: torch.randn(1, 16, generator=generator) for name in ("cat", "dog")}
    found = check_scores(model, call, vectors)
    for row in range(2):
        expected = reference("QwenImage").scores(
            model.state_dict(), dict(model.config, num_layers=4), latent=latents[0][row][:, None], text=call["encoder_hidden_states"][row],
            concepts=torch.cat(list(vectors.values())), t=0.7, references=[latent[row][:, None] for latent in latents[1:]])
        check_equal(found, row, expected)
    assert (found.latest.family, found.latest.defaults) == (qwen_image.NAME, qwen_image.DEFAULTS)


@pytest.mark.parametrize("how", [{}, dict(negative_prompt="sand"), dict(num_images_per_prompt=2), dict(prompt=["a cat", "a red dog"])],
                         ids=str)
def test_the_picture_does_not_change(pipe, how):
    check_picture(pipe, draw, how, 4)


@torch.no_grad()
def test_a_phrases_own_tokens_are_found_in_the_template(pipe):
    check_own_tokens(pipe)
    edit = QwenImageEditPipeline(**pipe.components, processor=None)
    assert torch.equal(phrase_encoder(edit)("red dog"), phrase_encoder(pipe)("red dog")), "words are encoded as for drawing"


def test_one_pass_records_what_the_first_step_of_sampling_from_there_records(pipe):
    check_one_pass(pipe, draw, encode, 4, pack, 1e-6)


def test_compiled_code_stays_as_it_is(pipe):
    check_compiled(pipe, draw)


def test_the_model_that_draws_layers_is_refused(pipe):
    layered = QwenImageTransformer2DModel(num_layers=1, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=16,
                                          axes_dims_rope=(4, 4, 8), use_additional_t_cond=True, use_layer3d_rope=True)
    with pytest.raises(ValueError, match="QwenImageTransformer2DModel, which cannot be looked into"):
        with concept_saliency.capture(layered, "cat", encode=pipe):
            pass


def test_the_shell(pipe, tmp_path):
    saved_pipeline_works_in_the_shell(pipe, tmp_path)
