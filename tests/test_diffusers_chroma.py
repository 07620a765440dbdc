"""Chroma in diffusers: a plain second computation of the scores, whole pipelines, pictures that exist."""

import pytest
import torch

diffusers = pytest.importorskip("diffusers")

from diffusers import AutoencoderKL, ChromaPipeline, ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler  # noqa: E402
from tiny_diffusers import WORDS, check_scores, hooks, one_thread, reference, saved_pipeline_works_in_the_shell, tokenizer  # noqa: E402, F401
from transformers import T5Config, T5EncoderModel  # noqa: E402

import concept_saliency  # noqa: E402
from concept_saliency.core.families import chroma  # noqa: E402
from concept_saliency.core.families.flux1.diffusers import encode, pack, positions  # noqa: E402
from concept_saliency.headless.image import record_image  # noqa: E402
from concept_saliency.headless.inputs import phrase_encoder  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
PICTURES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def pipe():
    torch.manual_seed(0)
    t5 = T5EncoderModel(T5Config(vocab_size=len(WORDS), d_model=32, d_ff=32, d_kv=8, num_layers=1, num_heads=4)).eval()
    vae = AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, block_out_channels=(4,) * 4,
                        layers_per_block=1, latent_channels=16, norm_num_groups=1, use_quant_conv=False, use_post_quant_conv=False,
                        shift_factor=0.1, scaling_factor=0.4).eval()
    transformer = ChromaTransformer2DModel(num_layers=3, num_single_layers=2, attention_head_dim=32, num_attention_heads=2,
                                           joint_attention_dim=32, axes_dims_rope=(8, 12, 12), approximator_hidden_dim=32,
                                           approximator_layers=2).eval()
    pipe = ChromaPipeline(FlowMatchEulerDiscreteScheduler(), vae, t5, tokenizer(), transformer)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, **how) -> torch.Tensor:
    return pipe(**{"prompt": "a cat and a dog", "height": 64, "width": 96, "num_inference_steps": 3, "output_type": "pt",
                   "max_sequence_length": 8, "generator": torch.Generator().manual_seed(0), **how}).images


def in_black_forest_labs_names(model) -> dict:
    """The weights of what comes before the single-stream blocks, as the reference knows them."""
    w, found = model.state_dict(), {}
    same = {"txt_in": "context_embedder", "img_in": "x_embedder"} | {
        f"distilled_guidance_layer.{name}": f"distilled_guidance_layer.{name}" for name in ("in_proj", "out_proj")}
    for i in range(model.config.approximator_layers):
        name = "distilled_guidance_layer"
        same |= {f"{name}.layers.{i}.{mine}_layer": f"{name}.layers.{i}.{theirs}" for mine, theirs in (("in", "linear_1"),
                                                                                                      ("out", "linear_2"))}
        found[f"{name}.norms.{i}.scale"] = w[f"{name}.norms.{i}.weight"]
    for i in range(model.config.num_layers):
        mine, theirs = f"double_blocks.{i}", f"transformer_blocks.{i}"
        for stream, out, mlp, first, norm in (("img", "to_out.0", "ff", "to_{}", "norm_{}"),
                                              ("txt", "to_add_out", "ff_context", "add_{}_proj", "norm_added_{}")):
            same |= {f"{mine}.{stream}_attn.proj": f"{theirs}.attn.{out}", f"{mine}.{stream}_mlp.0": f"{theirs}.{mlp}.net.0.proj",
                     f"{mine}.{stream}_mlp.2": f"{theirs}.{mlp}.net.2"}
            for kind in ("weight", "bias"):
                found[f"{mine}.{stream}_attn.qkv.{kind}"] = torch.cat([w[f"{theirs}.attn.{first.format(q)}.{kind}"] for q in "qkv"])
            for name in ("query", "key"):
                found[f"{mine}.{stream}_attn.norm.{name}_norm.scale"] = w[f"{theirs}.attn.{norm.format(name[0])}.weight"]
    return found | {f"{name}.{kind}": w[f"{other}.{kind}"] for name, other in same.items() for kind in ("weight", "bias")}


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
        for space, scores in expected.items():
            mine = found.in_space(space).latest.scores[0, :, row].flatten(-2)
            assert (mine - scores[:3]).abs().max() <= 2e-4 * scores.abs().max(), space
    assert (found.latest.family, found.latest.defaults) == (chroma.NAME, chroma.DEFAULTS)


@pytest.mark.parametrize("blocks, layers", [("auto", 3), ("all", 5)])
@pytest.mark.parametrize("how", [{}, dict(guidance_scale=0.0), dict(num_images_per_prompt=2)], ids=str)
def test_the_picture_does_not_change(pipe, how, blocks, layers):
    plain = draw(pipe, **how)
    before = hooks(pipe.transformer), hooks(pipe.text_encoder)
    with concept_saliency.capture(pipe, "cat, red dog|moon", contrast="sky", blocks=blocks) as recordings:
        watched = draw(pipe, **how)
    assert torch.equal(plain, watched) and (hooks(pipe.transformer), hooks(pipe.text_encoder)) == before
    assert len(recordings) == 1 and recordings.latest.scores.shape == (3, layers, len(plain), 3, 4, 6)
    assert recordings.latest.image_size == (64, 96) and recordings.latest.saliency().maps.shape == (len(plain), 2, 4, 6)


@torch.no_grad()
def test_a_phrases_own_tokens(pipe):
    encode_phrase = phrase_encoder(pipe)
    for phrase, count in (("cat", 1), ("red dog", 2)):
        assert torch.equal(encode_phrase(phrase), pipe.encode_prompt(phrase, do_classifier_free_guidance=False)[0][0, :count].float())
    assert not torch.allclose(encode_phrase("cat"), encode_phrase("dog"), rtol=1e-2)


def test_one_pass_records_what_the_first_step_of_sampling_from_there_records(pipe):
    with torch.no_grad():
        latents = encode(pipe, PICTURES)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(4))
    scheduler, pipe.scheduler = pipe.scheduler, FlowMatchEulerDiscreteScheduler(shift=1.0)
    with concept_saliency.capture(pipe, "cat, dog") as recordings:
        draw(pipe, prompt="a dog", num_images_per_prompt=2, sigmas=[0.3], num_inference_steps=1, guidance_scale=0.0,
             latents=pack(0.7 * latents + 0.3 * noise), max_sequence_length=512)
    pipe.scheduler = scheduler
    mine = record_image(pipe, PICTURES, "cat, dog", prompt="a dog", noise_level=0.3, seed=4)["output"]
    torch.testing.assert_close(mine.scores, recordings.latest.scores, rtol=1e-5, atol=1e-5)
    assert mine.scores.shape[:3] == (1, 3, 2) and mine.image_size == (64, 96)


def test_the_shell(pipe, tmp_path):
    saved_pipeline_works_in_the_shell(pipe, tmp_path)
