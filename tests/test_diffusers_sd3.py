"""SD3 in diffusers: a plain second computation of the scores, whole pipelines, pictures that exist."""

import pytest
import torch

diffusers = pytest.importorskip("diffusers")

from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline  # noqa: E402
from tiny_diffusers import (  # noqa: E402, F401
    WORDS,
    check_equal,
    check_one_pass,
    check_picture,
    check_scores,
    one_thread,
    reference,
    saved_pipeline_works_in_the_shell,
    small_t5,
    small_vae,
    tokenizer,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection  # noqa: E402

import concept_saliency  # noqa: E402
from concept_saliency.core.families import sd3  # noqa: E402
from concept_saliency.core.families.sd3.diffusers import encode  # noqa: E402
from concept_saliency.headless.inputs import phrase_encoder  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
MEDIUM, NEWER = {}, dict(qk_norm="rms_norm", dual_attention_layers=(0, 1))  # SD3 and SD3.5


def transformer(**more):
    torch.manual_seed(0)
    return SD3Transformer2DModel(num_layers=4, attention_head_dim=64, num_attention_heads=2, joint_attention_dim=64, pos_embed_max_size=10,
                                 caption_projection_dim=128, pooled_projection_dim=64, sample_size=12, **more).eval()


@pytest.fixture(scope="module")
def pipe():
    torch.manual_seed(0)
    clips = [CLIPTextModelWithProjection(CLIPTextConfig(
        vocab_size=len(WORDS), hidden_size=32, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, max_position_embeddings=16,
        projection_dim=32, eos_token_id=1, pad_token_id=0, bos_token_id=2)).eval() for _ in range(2)]
    t5 = small_t5(64)
    vae = small_vae()
    pipe = StableDiffusion3Pipeline(transformer(**NEWER), FlowMatchEulerDiscreteScheduler(), vae, clips[0], tokenizer(), clips[1],
                                    tokenizer(), t5, tokenizer())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, **how) -> torch.Tensor:
    return pipe(**{"prompt": "a cat and a dog", "height": 64, "width": 96, "num_inference_steps": 3, "output_type": "pt",
                   "max_sequence_length": 8, "generator": torch.Generator().manual_seed(0), **how}).images


def in_stabilitys_names(model) -> dict:
    """The weights as the reference knows them."""
    w, found = model.state_dict(), {}

    def joined(*names):
        return torch.cat([w[name] for name in names])

    def halves(name):
        """diffusers turned scale and shift of the last text block around."""
        return torch.cat(w[name].chunk(2)[::-1])

    for mine, theirs in {"t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1", "context_embedder": "context_embedder",
                         "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2", "x_embedder.proj": "pos_embed.proj",
                         "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
                         "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2"}.items():
        found |= {f"{mine}.{kind}": w[f"{theirs}.{kind}"] for kind in ("weight", "bias")}
    found["pos_embed"] = w["pos_embed.pos_embed"]
    for i, block in enumerate(model.transformer_blocks):
        theirs, text, image = f"transformer_blocks.{i}", f"joint_blocks.{i}.context_block", f"joint_blocks.{i}.x_block"
        for kind in ("weight", "bias"):
            parts = {f"{text}.attn.qkv": joined(*(f"{theirs}.attn.add_{letter}_proj.{kind}" for letter in "qkv")),
                     f"{image}.attn.qkv": joined(*(f"{theirs}.attn.to_{letter}.{kind}" for letter in "qkv")),
                     f"{image}.attn.proj": w[f"{theirs}.attn.to_out.0.{kind}"],
                     f"{image}.adaLN_modulation.1": w[f"{theirs}.norm1.linear.{kind}"],
                     f"{text}.adaLN_modulation.1": (halves if block.context_pre_only else w.get)(f"{theirs}.norm1_context.linear.{kind}"),
                     f"{image}.mlp.fc1": w[f"{theirs}.ff.net.0.proj.{kind}"], f"{image}.mlp.fc2": w[f"{theirs}.ff.net.2.{kind}"]}
            if not block.context_pre_only:
                parts |= {f"{text}.attn.proj": w[f"{theirs}.attn.to_add_out.{kind}"],
                          f"{text}.mlp.fc1": w[f"{theirs}.ff_context.net.0.proj.{kind}"],
                          f"{text}.mlp.fc2": w[f"{theirs}.ff_context.net.2.{kind}"]}
            if block.attn2 is not None:
                parts |= {f"{image}.attn2.qkv": joined(*(f"{theirs}.attn2.to_{letter}.{kind}" for letter in "qkv")),
                          f"{image}.attn2.proj": w[f"{theirs}.attn2.to_out.0.{kind}"]}
            found |= {f"{name}.{kind}": value for name, value in parts.items()}
        if block.attn.norm_q is not None:
            for letter in "qk":
                found[f"{image}.attn.ln_{letter}.weight"] = w[f"{theirs}.attn.norm_{letter}.weight"]
                found[f"{text}.attn.ln_{letter}.weight"] = w[f"{theirs}.attn.norm_added_{letter}.weight"]
                if block.attn2 is not None:
                    found[f"{image}.attn2.ln_{letter}.weight"] = w[f"{theirs}.attn2.norm_{letter}.weight"]
    return found


@torch.no_grad()
@pytest.mark.parametrize("more, fused", [(MEDIUM, False), (MEDIUM, True), (NEWER, False)], ids=["medium", "medium, fused", "3.5"])
def test_scores_are_those_of_the_plain_computation(more, fused):
    model, generator = transformer(**more), torch.Generator().manual_seed(1)
    weights = in_stabilitys_names(model)
    if fused:
        model.fuse_qkv_projections()
    call = dict(hidden_states=torch.randn(2, 16, 8, 12, generator=generator), timestep=torch.tensor([700.0, 700.0]),
                encoder_hidden_states=torch.randn(2, 5, 64, generator=generator),
                pooled_projections=torch.randn(2, 64, generator=generator))
    vectors = {name: torch.randn(1, 64, generator=generator) for name in ("cat", "dog")}
    found = check_scores(model, call, vectors)
    for row in range(2):
        expected = reference("SD3").scores(weights, dict(num_heads=2, num_blocks=4), latent=call["hidden_states"][row], t=700.0,
                                           text=call["encoder_hidden_states"][row], concepts=torch.cat(list(vectors.values())),
                                           pooled=call["pooled_projections"][row])
        check_equal(found, row, expected)
    assert (found.latest.family, found.latest.defaults) == (sd3.NAME, sd3.DEFAULTS)


@pytest.mark.parametrize("how", [{}, dict(guidance_scale=1.0), dict(num_images_per_prompt=2), dict(skip_guidance_layers=[1]),
                                 dict(prompt=["a cat", "a red dog"], negative_prompt=["sand", "sky"])], ids=str)
def test_the_picture_does_not_change(pipe, how):
    check_picture(pipe, draw, how, 4)


def test_of_both_prompts_in_one_call_the_positive_one_is_recorded(pipe):
    def first_step(**how):
        with concept_saliency.capture(pipe, "cat, dog") as recordings:
            draw(pipe, num_inference_steps=1, **how)
        return recordings.latest.scores

    torch.testing.assert_close(first_step(guidance_scale=4.0, negative_prompt="sand"), first_step(guidance_scale=1.0), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(first_step(guidance_scale=1.0, prompt="sand"), first_step(guidance_scale=1.0), rtol=1e-2)


@torch.no_grad()
def test_a_phrases_own_tokens_are_clips(pipe):
    encode_phrase = phrase_encoder(pipe)
    for phrase, count in (("cat", 1), ("red dog", 2)):
        whole = pipe.encode_prompt(phrase, phrase, phrase, do_classifier_free_guidance=False)[0][0]
        assert torch.equal(encode_phrase(phrase), whole[:count].float())  # this tokenizer has no start token
    assert not torch.allclose(encode_phrase("cat"), encode_phrase("dog"), rtol=1e-2)
    without = StableDiffusion3Pipeline(**(pipe.components | {"text_encoder_3": None, "tokenizer_3": None}))
    assert torch.equal(phrase_encoder(without)("red dog")[:, :64], encode_phrase("red dog"))


def test_one_pass_records_what_the_first_step_of_sampling_from_there_records(pipe):
    check_one_pass(pipe, draw, encode, 4, guidance_scale=1.0, max_sequence_length=256)


def test_the_shell(pipe, tmp_path):
    saved_pipeline_works_in_the_shell(pipe, tmp_path)
