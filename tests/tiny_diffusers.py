"""A Flux pipeline of diffusers with random weights, small and made without a network, and what tests do with it."""

import importlib
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

import concept_saliency
from concept_saliency.cli import shell
from concept_saliency.core.recording import Recording
from concept_saliency.headless.image import record_image
from concept_saliency.headless.inputs import phrase_encoder

capture = concept_saliency.capture
CONCEPTS = "cat, red dog|moon"
WORDS = ["<pad>", "</s>", "<unk>", "a", "and", "cat", "dog", "moon", "red", "sand", "sky"]
PICTURES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def one_thread():
    """Such small models are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tokenizer(*more: str) -> PreTrainedTokenizerFast:
    """more: words that it knows besides."""
    numbers = {word: i for i, word in enumerate((*WORDS, *more))}
    inner = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", numbers["</s>"])])
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=16,
                                   pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def small_vae() -> AutoencoderKL:
    return AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
                         block_out_channels=(4,) * 4, layers_per_block=1, latent_channels=16, norm_num_groups=1, use_quant_conv=False,
                         use_post_quant_conv=False, shift_factor=0.1, scaling_factor=0.4).eval()


def small_t5(width: int = 32) -> T5EncoderModel:
    return T5EncoderModel(T5Config(vocab_size=len(WORDS), d_model=width, d_ff=32, d_kv=8, num_layers=1, num_heads=4)).eval()


def tiny(kind=FluxPipeline, in_channels: int = 64, guidance: bool = True, **parts):
    """A pipeline of that kind: 3 double and 2 single blocks, 2 heads."""
    torch.manual_seed(0)
    clip = CLIPTextConfig(vocab_size=len(WORDS), hidden_size=32, intermediate_size=32, num_hidden_layers=1,
                          num_attention_heads=2, max_position_embeddings=16, eos_token_id=1, pad_token_id=0)
    transformer = dict(in_channels=in_channels, out_channels=64, num_layers=3, num_single_layers=2, attention_head_dim=16,
                       num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
                       guidance_embeds=guidance)
    parts = dict(scheduler=FlowMatchEulerDiscreteScheduler(), tokenizer=tokenizer(), tokenizer_2=tokenizer(),
                 text_encoder=CLIPTextModel(clip), vae=small_vae(), transformer=FluxTransformer2DModel(**transformer),
                 text_encoder_2=small_t5()) | parts
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    pipe = kind(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, seed: int = 0, **how) -> torch.Tensor:
    """Pictures B x 3 x H x W."""
    how = {"prompt": "a cat and a dog", "height": 64, "width": 96, "num_inference_steps": 3, "max_sequence_length": 8, **how}
    return pipe(**how, generator=torch.Generator().manual_seed(seed), output_type="pt").images


def hooks(model) -> int:
    """How many forward hooks there are."""
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())


def check_same(pipe, **how) -> Recording:
    """The picture is the same with capture and without, and nothing is left; returns what was recorded."""
    plain, before = draw(pipe, **how), hooks(pipe.transformer)
    with capture(pipe, CONCEPTS) as recordings:
        watched = draw(pipe, **how)
    assert torch.equal(plain, watched) and hooks(pipe.transformer) == before
    assert len(recordings) == 1
    recording, (height, width) = recordings.latest, plain.shape[-2:]
    assert recording.scores.shape[1:] == (3, len(plain), 8, height // 16, width // 16)
    assert recording.image_size == (height, width) and recording.progress[0] == 0
    return recording


def reference(name: str, file: str = "reference_joint", **how):
    """A plain second computation, from tests/host."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent / "host")
        return getattr(importlib.import_module(file), name)(**how)


def in_black_forest_labs_names(model) -> dict[str, torch.Tensor]:
    """The weights of a transformer of Flux.1's build, as reference.py of tests/host knows them."""
    w, found = model.state_dict(), {}
    same = {"txt_in": "context_embedder", "img_in": "x_embedder", "txt_norm": "context_embedder_norm"}
    for mine, theirs in (("in_layer", "linear_1"), ("out_layer", "linear_2")):
        same |= {f"time_in.{mine}": f"timestep_embedder.{theirs}"} if "timestep_embedder.linear_1.weight" in w else {
            f"time_in.{mine}": f"time_embed.timestep_embedder.{theirs}"}
        for i in range(getattr(model.config, "approximator_layers", 0)):
            same[f"distilled_guidance_layer.layers.{i}.{mine}"] = f"distilled_guidance_layer.layers.{i}.{theirs}"
    same |= {name.rpartition(".")[0]: name.rpartition(".")[0] for name in w if name.startswith("distilled_guidance_layer")}
    for i in range(model.config.num_layers):
        mine, theirs = f"double_blocks.{i}", f"transformer_blocks.{i}"
        for stream, mod, out, mlp, first, norm in (("img", "norm1", "to_out.0", "ff", "to_{}", "norm_{}"),
                                                   ("txt", "norm1_context", "to_add_out", "ff_context", "add_{}_proj", "norm_added_{}")):
            same |= {f"{mine}.{stream}_attn.proj": f"{theirs}.attn.{out}", f"{mine}.{stream}_mlp.0": f"{theirs}.{mlp}.net.0.proj",
                     f"{mine}.{stream}_mlp.2": f"{theirs}.{mlp}.net.2", f"{mine}.{stream}_mod.lin": f"{theirs}.{mod}.linear",
                     f"{mine}.{stream}_mlp.down_proj": f"{theirs}.{mlp}.net.2"}
            same |= {f"{mine}.{stream}_attn.norm.{name}_norm": f"{theirs}.attn.{norm.format(name[0])}" for name in ("query", "key")}
            for kind in ("weight", "bias"):
                found[f"{mine}.{stream}_attn.qkv.{kind}"] = torch.cat([w[f"{theirs}.attn.{first.format(q)}.{kind}"] for q in "qkv"])
                into = w[f"{theirs}.{mlp}.net.0.proj.{kind}"]
                if len(into) > len(w[f"{theirs}.{mlp}.net.2.weight"].T):  # gated
                    found[f"{mine}.{stream}_mlp.up_proj.{kind}"], found[f"{mine}.{stream}_mlp.gate_proj.{kind}"] = into.chunk(2)
    for i in range(getattr(model.config, "num_single_layers", 0)):
        mine, theirs = f"single_blocks.{i}", f"single_transformer_blocks.{i}"
        same |= {f"{mine}.linear2": f"{theirs}.proj_out", f"{mine}.modulation.lin": f"{theirs}.norm.linear",
                 f"{mine}.norm.query_norm": f"{theirs}.attn.norm_q", f"{mine}.norm.key_norm": f"{theirs}.attn.norm_k"}
        for kind in ("weight", "bias"):
            found[f"{mine}.linear1.{kind}"] = torch.cat([w[f"{theirs}.{name}.{kind}"] for name in (
                "attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")])
    return found | {f"{name}.{kind}": w[f"{other}.{kind}"] for name, other in same.items() for kind in ("weight", "bias")
                    if f"{other}.{kind}" in w}


def check_scores(model, call: dict, vectors: dict, **told):
    """What one call of a transformer records of concepts with these vectors, 1 x D each, in both spaces; it draws the same."""
    plain, before = model(**call).sample, hooks(model)
    with capture(model, list(vectors), encode=vectors.__getitem__, contrast="", cross_attention=True, **told) as recordings:
        assert torch.equal(model(**call).sample, plain)
    assert hooks(model) == before and len(recordings) == 1
    return recordings


def check_equal(found, row: int, expected: dict) -> None:
    """What was recorded of a picture is what the plain computation found, by space L x C x N."""
    for space, scores in expected.items():
        mine = found.in_space(space).latest.scores[0, :, row].flatten(-2)
        assert mine.shape == scores.shape
        assert (mine - scores).abs().max() <= 2e-4 * scores.abs().max(), space


def check_picture(pipe, draw, how: dict, layers: int, **told) -> None:
    """A pipeline of another family than Flux.1: the picture of 64 x 96 is the same with capture and without, and nothing is left."""
    plain = draw(pipe, **how)
    before = hooks(pipe.transformer), hooks(pipe.text_encoder)
    with capture(pipe, CONCEPTS, contrast="sky", **told) as recordings:
        watched = draw(pipe, **how)
    assert torch.equal(plain, watched) and (hooks(pipe.transformer), hooks(pipe.text_encoder)) == before
    assert len(recordings) == 1 and recordings.latest.scores.shape == (3, layers, len(plain), 3, 4, 6)
    assert recordings.latest.image_size == (64, 96) and recordings.latest.saliency().maps.shape == (len(plain), 2, 4, 6)


@torch.no_grad()
def check_own_tokens(pipe) -> None:
    """A phrase's own tokens are found in the template: those in which prompts of other words differ."""
    encode = phrase_encoder(pipe)
    whole = {phrase: pipe.encode_prompt(phrase)[0][0].flatten(1) for phrase in ("cat", "dog")}
    before = next(i for i, (a, b) in enumerate(zip(*whole.values())) if not torch.equal(a, b))
    for phrase, vectors in whole.items():
        assert torch.equal(encode(phrase), vectors[before:before + 1].float())
        assert encode(f"red {phrase}").shape == (2, vectors.shape[1])
    assert not torch.allclose(encode("cat"), encode("dog"), rtol=1e-2)


@torch.no_grad()
def check_one_pass(pipe, draw, encode, layers: int, tokens=lambda latents: latents, tolerance: float = 1e-5, **how) -> None:
    """One pass over PICTURES records what the first step of sampling from there records. tokens: latents as the pipeline takes them."""
    latents = encode(pipe, PICTURES)
    noisy = 0.7 * latents + 0.3 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(4))
    scheduler, pipe.scheduler = pipe.scheduler, FlowMatchEulerDiscreteScheduler(shift=1.0)
    with capture(pipe, "cat, dog") as recordings:
        draw(pipe, prompt="a dog", num_images_per_prompt=2, sigmas=[0.3], num_inference_steps=1, latents=tokens(noisy), **how)
    pipe.scheduler = scheduler
    mine = record_image(pipe, PICTURES, "cat, dog", prompt="a dog", noise_level=0.3, seed=4)["output"]
    torch.testing.assert_close(mine.scores, recordings.latest.scores, rtol=tolerance, atol=tolerance)
    assert mine.scores.shape[:3] == (1, layers, 2) and mine.image_size == (64, 96)


def check_compiled(pipe, draw) -> None:
    """A compiled transformer draws what it drew, and the scores are those of the plain one."""
    transformer = pipe.transformer
    pipe.transformer = torch.compile(transformer, backend="eager")
    try:
        plain = draw(pipe)
        with capture(pipe, "cat, dog") as recordings:
            assert torch.equal(draw(pipe), plain)
        compiled = recordings.latest.scores
    finally:
        pipe.transformer = transformer
        torch.compiler.reset()
    with capture(pipe, "cat, dog") as recordings:
        draw(pipe)
    torch.testing.assert_close(compiled, recordings.latest.scores, rtol=1e-5, atol=1e-5)


def saved_pipeline_works_in_the_shell(pipe, folder: Path) -> None:
    """`concept-saliency generate` and `image` with --model."""
    pipe.save_pretrained(folder / "model")
    told = ["--model", str(folder / "model"), "--concepts", "cat, dog", "--layers", "all"]
    drawn, seen = str(folder / "drawn"), str(folder / "seen")
    for command in (["generate", "--prompt", "a cat", "--size", "96x64", "--steps", "2", "--out", drawn],
                    ["image", str(folder / "drawn" / "picture.png"), "--out", seen]):
        run = CliRunner().invoke(shell, command + told)
        assert run.exit_code == 0, run.output
    for place in (folder / "drawn", folder / "seen" / "picture.png"):
        assert {"mask_1_cat.png", "heatmap_2_dog.png"} <= {file.name for file in place.iterdir()}, list(place.iterdir())
