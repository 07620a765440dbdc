"""Ovis-Image and LongCat-Image in diffusers: a plain second computation of the scores, whole pipelines, pictures that exist."""

import pytest
import torch

diffusers = pytest.importorskip("diffusers")
if not hasattr(diffusers, "OvisImageTransformer2DModel") or not hasattr(diffusers, "LongCatImageTransformer2DModel"):
    pytest.skip("this diffusers has no Ovis-Image or no LongCat-Image", allow_module_level=True)

from diffusers import FlowMatchEulerDiscreteScheduler  # noqa: E402
from tiny_diffusers import (  # noqa: E402, F401
    check_equal,
    check_one_pass,
    check_own_tokens,
    check_picture,
    check_scores,
    in_black_forest_labs_names,
    one_thread,
    reference,
    saved_pipeline_works_in_the_shell,
    small_vae,
    tokenizer,
)
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen3Config, Qwen3Model  # noqa: E402

from concept_saliency.core.families import FAMILIES  # noqa: E402
from concept_saliency.core.families.flux1.diffusers import encode, pack, positions  # noqa: E402
from concept_saliency.headless.inputs import phrase_encoder  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = dict(num_layers=3, num_single_layers=2, attention_head_dim=32, num_attention_heads=2, joint_attention_dim=16,
             axes_dims_rope=(8, 12, 12))


def ovis_image():
    words = tokenizer()
    words.chat_template = "{% for m in messages %}{{ m.content }} sky{% endfor %}{% if add_generation_prompt %} and moon{% endif %}"
    text = Qwen3Config(vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
                       num_key_value_heads=1, head_dim=8)
    pipe = diffusers.OvisImagePipeline(FlowMatchEulerDiscreteScheduler(), small_vae(), Qwen3Model(text).eval(), words,
                                       diffusers.OvisImageTransformer2DModel(**SMALL).eval())
    pipe.user_prompt_begin_id = len(words(pipe.system_prompt, add_special_tokens=False).input_ids)
    return pipe


def longcat_image():
    words, small = tokenizer("<|", "|>"), dict(hidden_size=16, intermediate_size=16)
    text = Qwen2_5_VLConfig(vision_config=dict(depth=1, num_heads=2, out_hidden_size=16, **small), text_config=dict(
        vocab_size=len(words), num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, rope_theta=10_000.0,
        rope_scaling=dict(type="mrope", rope_type="default", rope_theta=10_000.0, mrope_section=[1, 1, 2]), **small))
    return diffusers.LongCatImagePipeline(FlowMatchEulerDiscreteScheduler(), small_vae(), Qwen2_5_VLForConditionalGeneration(text).eval(),
                                          words, words, diffusers.LongCatImageTransformer2DModel(**SMALL).eval())


KINDS = {"ovis_image": (ovis_image, dict(text_axes=(1, 2), gated=True)),
         "longcat_image": (longcat_image, dict(text_axes=(1, 2), behind_text=True))}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def pipe(kind):
    torch.manual_seed(0)
    pipe = KINDS[kind][0]()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, **how) -> torch.Tensor:
    more = dict(enable_prompt_rewrite=False) if type(pipe).__name__.startswith("LongCat") else dict(max_sequence_length=24)
    return pipe(**{"prompt": "a cat and a dog", "height": 64, "width": 96, "num_inference_steps": 3, "output_type": "pt",
                   "generator": torch.Generator().manual_seed(0), **more, **how}).images


@torch.no_grad()
@pytest.mark.parametrize("blocks, singles", [("auto", 0), ("all", 2)])
@pytest.mark.parametrize("references", [[], [(4, 4), (2, 6)]], ids=["", "references"])
def test_scores_are_those_of_the_plain_computation(pipe, kind, references, blocks, singles):
    model, generator = pipe.transformer, torch.Generator().manual_seed(1)
    latents = [torch.randn(2, 16, 2 * h, 2 * w, generator=generator) for h, w in [(4, 6), *references]]
    start = torch.tensor([1, 5, 5]) * (kind == "longcat_image")
    places = [positions(latent) + torch.tensor([number, 0, 0]) + start for number, latent in enumerate(latents)]
    text_places = torch.stack((torch.zeros(5), torch.arange(5), torch.arange(5)), dim=1)
    call = dict(hidden_states=torch.cat([pack(latent) for latent in latents], dim=1), timestep=torch.tensor([0.7, 0.7]),
                encoder_hidden_states=torch.randn(2, 5, 16, generator=generator), img_ids=torch.cat(places), txt_ids=text_places)
    vectors = {name: torch.randn(1, 16, generator=generator) for name in ("cat", "dog")}
    found = check_scores(model, call, vectors, blocks=blocks)
    config = dict(num_heads=2, depth=3, depth_single_blocks=2, axes_dim=[8, 12, 12], theta=10_000)
    for row in range(2):
        expected = reference("DoubleStream", "reference", patch=2, **KINDS[kind][1]).scores(
            in_black_forest_labs_names(model), config, latent=latents[0][row], text=call["encoder_hidden_states"][row],
            concepts=torch.cat(list(vectors.values())), t=0.7, references=[latent[row] for latent in latents[1:]], singles=singles)
        check_equal(found, row, expected)
    assert (found.latest.family, found.latest.defaults) == (kind, FAMILIES[kind].DEFAULTS)


@pytest.mark.parametrize("how", [{}, dict(negative_prompt="sand"), dict(guidance_scale=1.0), dict(num_images_per_prompt=2)], ids=str)
def test_the_picture_does_not_change(pipe, how):
    check_picture(pipe, draw, how, 3)


def test_a_phrases_own_tokens_are_found_in_the_template(pipe):
    check_own_tokens(pipe)


def test_one_pass_records_what_the_first_step_of_sampling_from_there_records(pipe, kind):
    more = dict(max_sequence_length=256) if kind == "ovis_image" else {}
    check_one_pass(pipe, draw, encode, 3, pack, guidance_scale=1.0, **more)


def test_the_shell(pipe, tmp_path):
    saved_pipeline_works_in_the_shell(pipe, tmp_path)


@torch.no_grad()
def test_longcats_editing_pipeline_takes_words_as_they_are_encoded_for_drawing():
    pipe = longcat_image()
    class Eyes:
        """Stands for what prepares pictures for the text encoder; words need none."""

        image_processor, image_token = None, "<unk>"

    edit = diffusers.LongCatImageEditPipeline(**{**pipe.components, "text_processor": Eyes()})
    assert torch.equal(phrase_encoder(edit)("red dog"), phrase_encoder(pipe)("red dog"))
