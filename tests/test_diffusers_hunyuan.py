"""HunyuanVideo (1.5, too) and HunyuanImage in diffusers: a plain second computation of the scores, whole pipelines, pictures that exist."""

import pytest
import torch

diffusers = pytest.importorskip("diffusers")
if not hasattr(diffusers, "HunyuanVideo15Transformer3DModel"):
    pytest.skip("this diffusers has no HunyuanVideo 1.5", allow_module_level=True)

from diffusers import (  # noqa: E402
    AutoencoderKLHunyuanImage,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLHunyuanVideo15,
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    HunyuanImagePipeline,
    HunyuanImageTransformer2DModel,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)
from tiny_diffusers import (  # noqa: E402, F401
    CONCEPTS,
    WORDS,
    check_one_pass,
    check_own_tokens,
    check_scores,
    hooks,
    in_black_forest_labs_names,
    one_thread,
    reference,
    saved_pipeline_works_in_the_shell,
    small_t5,
    tokenizer,
)
from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel, Qwen2Config, Qwen2Model  # noqa: E402

import concept_saliency  # noqa: E402
from concept_saliency.core.families import FAMILIES  # noqa: E402
from concept_saliency.headless.families import family_of  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = dict(attention_head_dim=32, num_attention_heads=2, num_layers=3, rope_axes_dim=(8, 12, 12), text_embed_dim=16)
TEXT = dict(vocab_size=len(WORDS), hidden_size=16, intermediate_size=16, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=1)
TEMPLATE = "{% for m in messages %}{% if m['role'] == 'user' %}{{ 'sand ' * 110 }}{{ m['content'] }} sky{% endif %}{% endfor %} and"


class HunyuanVideo:
    """patch: a token's side in latent values, 16 pixels times `scale`. frames: of a clip's latent. single: single-stream blocks."""

    name, patch, frames, single, scale = "hunyuan_video", 2, 3, 2, 1
    config = dict(num_heads=2, depth=3, guidance_embed=True, vec_in_dim=24, axes_dim=(8, 12, 12), theta=256)

    @staticmethod
    def transformer(**more):
        torch.manual_seed(0)
        model = HunyuanVideoTransformer3DModel(num_single_layers=2, pooled_projection_dim=24, **{**SHAPE, **more}).eval()
        for weight in model.parameters():  # biases and norms are more than 0 and 1
            if weight.ndim == 1:
                torch.nn.init.normal_(weight, weight.mean().item(), 0.05)
        return model

    @classmethod
    def pipe(cls):
        clip = CLIPTextConfig(vocab_size=len(WORDS), hidden_size=24, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                              max_position_embeddings=77, eos_token_id=1, pad_token_id=0)
        vae = AutoencoderKLHunyuanVideo(block_out_channels=(4,) * 4, layers_per_block=1, norm_num_groups=1)
        return HunyuanVideoPipeline(text_encoder=LlamaModel(LlamaConfig(**TEXT)).eval(), tokenizer=tokenizer(), vae=vae.eval(),
                                    transformer=cls.transformer(), scheduler=FlowMatchEulerDiscreteScheduler(),
                                    text_encoder_2=CLIPTextModel(clip).eval(), tokenizer_2=tokenizer())

    told = dict(num_frames=9, prompt_template={"template": "red sand {} sky", "crop_start": 1}, max_sequence_length=8)

    @staticmethod
    def negative(pipe, prompt):
        return dict(negative_prompt=prompt, true_cfg_scale=4.0)

    @staticmethod
    def call(generator):
        mask = torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
        return dict(hidden_states=torch.randn(2, 16, 3, 4, 6, generator=generator), timestep=torch.tensor([700.0, 700.0]),
                    encoder_hidden_states=torch.randn(2, 5, 16, generator=generator), encoder_attention_mask=mask,
                    pooled_projections=torch.randn(2, 24, generator=generator), guidance=torch.tensor([6000.0, 6000.0]))

    @staticmethod
    def inputs(call, row):
        """The same for the reference."""
        return dict(latent=call["hidden_states"][row], text=call["encoder_hidden_states"][row][call["encoder_attention_mask"][row] > 0],
                    t=call["timestep"][row], guidance=call["guidance"][row] / 1000, pooled=call["pooled_projections"][row])


class HunyuanVideo15(HunyuanVideo):
    name, patch, single = "hunyuan_video15", 1, 0
    config = {**HunyuanVideo.config, "guidance_embed": False, "vec_in_dim": None}
    told = dict(num_frames=9)

    @staticmethod
    def transformer(**more):
        torch.manual_seed(0)
        return HunyuanVideo15Transformer3DModel(text_embed_2_dim=16, image_embed_dim=8, **{**SHAPE, **more}).eval()

    @classmethod
    def pipe(cls):
        words = tokenizer()
        words.chat_template = TEMPLATE
        vae = AutoencoderKLHunyuanVideo15(block_out_channels=(64,) * 5, layers_per_block=1)
        pipe = HunyuanVideo15Pipeline(text_encoder=Qwen2Model(Qwen2Config(**TEXT)).eval(), tokenizer=words, transformer=cls.transformer(),
                                      vae=vae.eval(), scheduler=FlowMatchEulerDiscreteScheduler(), text_encoder_2=small_t5(16),
                                      tokenizer_2=tokenizer(), guider=ClassifierFreeGuidance(guidance_scale=1.0))
        pipe.tokenizer_max_length, pipe.tokenizer_2_max_length = 8, 4
        pipe.vision_num_semantic_tokens = 3
        return pipe

    @staticmethod
    def negative(pipe, prompt):
        pipe.guider = ClassifierFreeGuidance(guidance_scale=4.0)
        return dict(negative_prompt=prompt)

    @staticmethod
    def call(generator):
        mask = torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
        return dict(hidden_states=torch.randn(2, 65, 3, 4, 6, generator=generator), timestep=torch.tensor([700.0, 700.0]),
                    encoder_hidden_states=torch.randn(2, 5, 16, generator=generator), encoder_attention_mask=mask,
                    encoder_hidden_states_2=torch.randn(2, 4, 16, generator=generator),
                    encoder_attention_mask_2=torch.tensor([[1.0, 1, 0, 0], [1, 1, 1, 0]]),
                    image_embeds=torch.randn(2, 3, 8, generator=generator))

    @staticmethod
    def inputs(call, row):
        letters = call["encoder_hidden_states_2"][row][call["encoder_attention_mask_2"][row] > 0]
        return dict(latent=call["hidden_states"][row], text=call["encoder_hidden_states"][row][call["encoder_attention_mask"][row] > 0],
                    t=call["timestep"][row], byt5=letters, vision=call["image_embeds"][row])


class HunyuanImage(HunyuanVideo15):
    name, frames, single, scale = "hunyuan_image", 1, 2, 2
    config = {**HunyuanVideo15.config, "axes_dim": (0, 16, 16)}
    told: dict = {}

    @staticmethod
    def transformer(**more):
        torch.manual_seed(0)
        shape = {**SHAPE, "num_single_layers": 2, "text_embed_2_dim": 16, "rope_axes_dim": (16, 16)}
        return HunyuanImageTransformer2DModel(**{**shape, **more}).eval()

    @classmethod
    def pipe(cls):
        vae = AutoencoderKLHunyuanImage(in_channels=3, out_channels=3, latent_channels=64, block_out_channels=(128,) * 6,
                                        layers_per_block=1, spatial_compression_ratio=32, sample_size=64, scaling_factor=0.75)
        text = Qwen2Model(Qwen2Config(**TEXT)).eval()
        pipe = HunyuanImagePipeline(FlowMatchEulerDiscreteScheduler(), vae.eval(), text, tokenizer(), small_t5(16), tokenizer(),
                                    cls.transformer(), guider=ClassifierFreeGuidance(guidance_scale=1.0))
        pipe.prompt_template_encode, pipe.prompt_template_encode_start_idx = "red sand {} sky", 1
        pipe.tokenizer_max_length, pipe.tokenizer_2_max_length = 8, 4
        return pipe

    @staticmethod
    def call(generator):
        letters = {name: value for name, value in HunyuanVideo15.call(generator).items() if name != "image_embeds"}
        return {**letters, "hidden_states": torch.randn(2, 64, 4, 6, generator=generator)}

    @staticmethod
    def inputs(call, row):
        inputs = HunyuanVideo15.inputs({**call, "image_embeds": [None, None]}, row)
        return {**inputs, "latent": inputs["latent"][:, None]}


def in_tencents_names(model) -> dict[str, torch.Tensor]:
    """The weights as the reference knows them."""
    w, found = model.state_dict(), in_black_forest_labs_names(model)
    two = (("in_layer", "linear_1"), ("out_layer", "linear_2"))
    same = {"img_in.proj": "x_embedder.proj", "txt_in.input_embedder": "context_embedder.proj_in", "byt5_in.layernorm":
            "context_embedder_2.norm", "vision_in.proj.0": "image_embedder.norm_in", "vision_in.proj.4": "image_embedder.norm_out"}
    same |= {f"byt5_in.fc{i}": f"context_embedder_2.linear_{i}" for i in (1, 2, 3)}
    same |= {"vision_in.proj.1": "image_embedder.linear_1", "vision_in.proj.3": "image_embedder.linear_2"}
    for mine, theirs in two:
        for name, other in (("time_in", "time_text_embed.timestep_embedder"), ("guidance_in", "time_text_embed.guidance_embedder"),
                            ("vector_in", "time_text_embed.text_embedder"), ("time_in", "time_embed.timestep_embedder"),
                            ("time_in", "time_guidance_embed.timestep_embedder"),
                            ("txt_in.t_embedder", "context_embedder.time_text_embed.timestep_embedder"),
                            ("txt_in.c_embedder", "context_embedder.time_text_embed.text_embedder")):
            if f"{other}.{theirs}.weight" in w:
                same[f"{name}.{mine}"] = f"{other}.{theirs}"
    for i in range(2):
        mine, theirs = f"txt_in.individual_token_refiner.blocks.{i}", f"context_embedder.token_refiner.refiner_blocks.{i}"
        same |= {f"{mine}.{name}": f"{theirs}.{other}" for name, other in (
            ("norm1", "norm1"), ("norm2", "norm2"), ("adaLN_modulation.1", "norm_out.linear"), ("self_attn.proj", "attn.to_out.0"),
            ("mlp.0", "ff.net.0.proj"), ("mlp.2", "ff.net.2"))}
        for kind in ("weight", "bias"):
            found[f"{mine}.self_attn.qkv.{kind}"] = torch.cat([w[f"{theirs}.attn.to_{q}.{kind}"] for q in "qkv"])
    found |= {"cond_type_embedding.weight": w["cond_type_embed.weight"]} if "cond_type_embed.weight" in w else {}
    return found | {f"{name}.{kind}": w[f"{other}.{kind}"] for name, other in same.items() for kind in ("weight", "bias")
                    if f"{other}.{kind}" in w}


@pytest.fixture(scope="module", params=[HunyuanVideo, HunyuanVideo15, HunyuanImage])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def whole(kind):
    torch.manual_seed(0)
    pipe = kind.pipe()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipe(whole):
    guider = getattr(whole, "guider", None)
    yield whole
    if guider is not None:
        whole.guider = guider


def draw(kind, pipe, **how) -> torch.Tensor:
    """Latents of pictures, or of clips of 9 frames, 3 in the latent; the VAE has no part in what is tested."""
    drawn = pipe(**{"prompt": "a cat and a dog", "height": 64 * kind.scale, "width": 96 * kind.scale, "num_inference_steps": 3,
                    "output_type": "latent", "generator": torch.Generator().manual_seed(0), **kind.told, **how})
    return drawn.images if kind is HunyuanImage else drawn.frames


@torch.no_grad()
@pytest.mark.parametrize("blocks", ["auto", "all"])
def test_scores_are_those_of_the_plain_computation(kind, blocks):
    if blocks == "all" and not kind.single:
        pytest.skip("has no single-stream blocks")
    model, generator = kind.transformer(), torch.Generator().manual_seed(1)
    call, weights = kind.call(generator), in_tencents_names(model)
    vectors = {name: torch.randn(1, 16, generator=generator) for name in ("cat", "dog")}
    found, singles = check_scores(model, call, vectors, blocks=blocks), kind.single if blocks == "all" else 0
    recording, computed = found.latest, reference("HunyuanVideo", "reference_video", patch=kind.patch)
    compression = getattr(FAMILIES[kind.name], "COMPRESSION", 1)
    assert (recording.frames, recording.compression, len(recording.scores[0, 0])) == (kind.frames, compression, 2 * kind.frames)
    for row in range(2):
        expected = computed.scores(weights, kind.config, concepts=torch.cat(list(vectors.values())), singles=singles,
                                   **kind.inputs(call, row))
        for space, scores in expected.items():
            clip = found.in_space(space).latest.scores[0].unflatten(1, (2, kind.frames))[:, row]  # L x frames x C x h x w
            mine = clip.movedim(1, 2).flatten(2)
            assert mine.shape == scores.shape
            assert (mine - scores).abs().max() <= 2e-4 * scores.abs().max(), space
    assert (recording.family, recording.defaults, recording.singles) == (kind.name, FAMILIES[kind.name].DEFAULTS, singles)


@pytest.mark.parametrize("how", [{}, "several", dict(prompt=["a cat", "a red dog"]), "negative"], ids=str)
def test_the_picture_or_video_does_not_change(kind, pipe, how):
    if how == "several":
        if kind is HunyuanVideo15:
            pytest.skip("this pipeline gives its transformer too few first pictures for several clips of a prompt")
        how = {"num_images_per_prompt" if kind is HunyuanImage else "num_videos_per_prompt": 2}
    how = kind.negative(pipe, "sand") if how == "negative" else how
    plain = draw(kind, pipe, **how)
    before = hooks(pipe.transformer), hooks(pipe.text_encoder)
    with concept_saliency.capture(pipe, CONCEPTS, contrast="sky") as recordings:
        watched = draw(kind, pipe, **how)
    assert torch.equal(plain, watched) and (hooks(pipe.transformer), hooks(pipe.text_encoder)) == before
    rows, columns = (side // kind.patch for side in plain.shape[-2:])
    assert len(recordings) == 1 and recordings.latest.scores.shape == (3, 3, kind.frames * len(plain), 3, rows, columns)
    shown = recordings.latest.saliency()
    frames = 1 if kind is HunyuanImage else 9
    assert recordings.latest.image_size == (64 * kind.scale, 96 * kind.scale)
    assert shown.frames == frames and shown.maps.shape[:2] == (frames * len(plain), 2)


def test_of_both_prompts_the_positive_one_is_recorded(kind, pipe):
    def first_step(**how):
        with concept_saliency.capture(pipe, "cat, dog", contrast="") as recordings:
            draw(kind, pipe, num_inference_steps=1, **how)
        return recordings.latest.scores

    plain, other = first_step(), first_step(prompt="sand")
    torch.testing.assert_close(first_step(**kind.negative(pipe, "sand")), plain, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(other, plain, rtol=1e-3)


def test_a_phrases_own_tokens_are_found_in_the_template(pipe):
    check_own_tokens(pipe)


def test_one_pass_records_what_the_first_step_of_sampling_from_there_records(kind, pipe):
    """Pictures are videos of one frame."""
    def draw_one(pipe, num_images_per_prompt, prompt, **how):
        prompts = [prompt] * num_images_per_prompt
        return pipe(prompts, height=64, width=96, output_type="latent", generator=torch.Generator().manual_seed(0), **one_frame, **how)

    one_frame = {} if kind is HunyuanImage else {"num_frames": 1}

    told = {"guidance_scale": 3.5} if kind is HunyuanVideo else {}
    check_one_pass(pipe, draw_one, family_of(pipe.transformer).encode, 3, tolerance=2e-5, **told)


def test_a_transformer_of_which_a_part_is_compiled_draws_what_it_drew(kind, pipe):
    """A part, for compiling all of it takes long; it is looked into in a pass of its own all the same."""
    def scores():
        with concept_saliency.capture(pipe, "cat, dog", contrast="") as recordings:
            drawn.append(draw(kind, pipe, num_inference_steps=1))
        return recordings.latest.scores

    drawn, part = [], pipe.transformer.transformer_blocks[1].ff
    plain = scores()
    part.compile(backend="eager")
    try:
        drawn.append(draw(kind, pipe, num_inference_steps=1))
        torch.testing.assert_close(scores(), plain, rtol=1e-5, atol=1e-5)
    finally:
        part._compiled_call_impl = None
        torch.compiler.reset()
    assert torch.equal(drawn[1], drawn[2])


def test_models_that_go_on_from_a_picture_or_are_told_a_second_time_are_refused():
    refused = "HunyuanVideoTransformer3DModel, which cannot be looked into.*HunyuanImage 2.1, HunyuanVideo, "
    for more in (dict(image_condition_type="token_replace"), dict(image_condition_type="latent_concat"), dict(in_channels=32)):
        with pytest.raises(ValueError, match=refused):
            with concept_saliency.capture(HunyuanVideo.transformer(**more, out_channels=16), "cat", encode=torch.zeros):
                pass
    for kind, name in ((HunyuanVideo15, "HunyuanVideo15Transformer3DModel"), (HunyuanImage, "HunyuanImageTransformer2DModel")):
        with pytest.raises(ValueError, match=f"{name}, which cannot be looked into"):
            with concept_saliency.capture(kind.transformer(use_meanflow=True), "cat", encode=torch.zeros):
                pass


def test_the_shell_draws_one_frame_and_reads_pictures(kind, pipe, tmp_path):
    if kind is not HunyuanVideo:
        pytest.skip("its prompts of a thousand tokens take long here")
    saved_pipeline_works_in_the_shell(pipe, tmp_path)
