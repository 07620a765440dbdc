"""Z-Image, Lumina 2 and Krea 2 in diffusers: a plain second computation of the scores, whole pipelines, pictures that exist."""

import copy

import pytest
import torch

diffusers = pytest.importorskip("diffusers")
if not hasattr(diffusers, "ZImageTransformer2DModel") or not hasattr(diffusers, "Krea2Transformer2DModel"):
    pytest.skip("this diffusers has no Z-Image or no Krea 2", allow_module_level=True)

from diffusers import (  # noqa: E402
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    Krea2Pipeline,
    Krea2Transformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tiny_diffusers import (  # noqa: E402, F401
    check_compiled,
    check_equal,
    check_one_pass,
    check_own_tokens,
    check_picture,
    check_scores,
    hooks,
    one_thread,
    reference,
    saved_pipeline_works_in_the_shell,
    small_vae,
    tokenizer,
)
from transformers import Gemma2Config, Gemma2Model, Qwen3Config, Qwen3ForCausalLM, Qwen3VLConfig, Qwen3VLModel  # noqa: E402

import concept_saliency  # noqa: E402
from concept_saliency.core.families import FAMILIES  # noqa: E402
from concept_saliency.core.families.flux1.diffusers import pack  # noqa: E402
from concept_saliency.headless.families import family_of  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
TEMPLATE = "{% for m in messages %}red sand {{ m.content }} sky{% endfor %}{% if add_generation_prompt %} and moon{% endif %}"


def z_image():
    words = tokenizer()
    words.chat_template = TEMPLATE
    text = Qwen3Config(vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2,
                       num_key_value_heads=1, head_dim=8)
    vae = small_vae()
    transformer = ZImageTransformer2DModel(dim=256, n_layers=3, n_refiner_layers=2, n_heads=2, n_kv_heads=2, cap_feat_dim=16)
    for name, weight in transformer.named_parameters():
        if name.endswith("pad_token"):
            torch.nn.init.normal_(weight)
    return ZImagePipeline(scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae.eval(), text_encoder=Qwen3ForCausalLM(text).eval(),
                          tokenizer=words, transformer=transformer.eval())


def krea2():
    words, small = tokenizer(), dict(hidden_size=16, intermediate_size=16)
    text = Qwen3VLConfig(vision_config=dict(depth=1, num_heads=2, out_hidden_size=16, deepstack_visual_indexes=[0], **small),
                         text_config=dict(vocab_size=len(words), num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1,
                                          head_dim=8, rope_scaling=dict(rope_type="default", mrope_section=[2, 1, 1]), **small))
    vae = AutoencoderKLQwenImage(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    transformer = Krea2Transformer2DModel(num_layers=3, attention_head_dim=64, num_attention_heads=4, num_key_value_heads=2,
                                          intermediate_size=64, text_hidden_dim=16, num_text_layers=3, text_num_attention_heads=2,
                                          text_num_key_value_heads=1, text_intermediate_size=32, axes_dims_rope=(16, 24, 24))
    for name, weight in transformer.named_parameters():
        if name.endswith("scale_shift_table"):
            torch.nn.init.normal_(weight)
        elif "norm" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return Krea2Pipeline(scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae.eval(), text_encoder=Qwen3VLModel(text).eval(),
                         tokenizer=words, transformer=transformer.eval(), text_encoder_select_layers=(1, 2, 3))


def lumina2():
    words = tokenizer()
    text = Gemma2Config(vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2,
                        num_key_value_heads=1, head_dim=8)
    transformer = Lumina2Transformer2DModel(hidden_size=64, num_layers=3, num_refiner_layers=2, num_attention_heads=4, num_kv_heads=2,
                                            multiple_of=16, axes_dim_rope=(4, 6, 6), cap_feat_dim=16)
    pipe = Lumina2Pipeline(transformer=transformer.eval(), scheduler=FlowMatchEulerDiscreteScheduler(), vae=small_vae(),
                           text_encoder=Gemma2Model(text).eval(), tokenizer=words)
    pipe.system_prompt = "red sand"
    return pipe


KINDS = {"z_image": z_image, "lumina2": lumina2, "krea2": krea2}
LENGTH = {"z_image": {"max_sequence_length": 16}, "lumina2": {"max_sequence_length": 16}, "krea2": {"max_sequence_length": 24}}


@pytest.fixture(scope="module", params=KINDS)
def pipe(request):
    torch.manual_seed(0)
    pipe = KINDS[request.param]()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def kind(pipe) -> str:
    return {ZImagePipeline: "z_image", Lumina2Pipeline: "lumina2", Krea2Pipeline: "krea2"}[type(pipe)]


def draw(pipe, **how) -> torch.Tensor:
    return pipe(**{"prompt": "a cat and a dog", "height": 64, "width": 96, "num_inference_steps": 3, "output_type": "pt",
                   "generator": torch.Generator().manual_seed(0), **LENGTH[kind(pipe)],
                   **copy.deepcopy(how)}).images  # Z-Image's writes its template into a list of prompts


NAMES = (
    ("attention.to_out.0", "attention.out"), ("attention.norm_", "attention."), ("all_x_embedder.2-1", "x_embedder"),
    ("text_fusion", "txtfusion"), ("transformer_blocks", "blocks"), ("scale_shift_table", "mod.lin"), ("to_gate", "gate"),
    ("norm1.weight", "prenorm.scale"), ("norm2.weight", "postnorm.scale"), ("attn.norm_q.weight", "attn.qknorm.qnorm.scale"),
    ("attn.norm_k.weight", "attn.qknorm.knorm.scale"), (".ff.", ".mlp."), ("to_out.0", "wo"), ("to_q", "wq"), ("to_k", "wk"),
    ("to_v", "wv"), ("txt_in.norm.weight", "txtmlp.0.scale"), ("txt_in.linear_1", "txtmlp.1"), ("txt_in.linear_2", "txtmlp.3"),
    ("img_in", "first"), ("time_embed.linear_1", "tmlp.0"), ("time_embed.linear_2", "tmlp.2"), ("time_mod_proj", "tproj.1"))


def as_comfyui_names_them(weights: dict) -> dict:
    """The reference knows ComfyUI's names of Z-Image's weights, and Krea's own."""
    renamed = {}
    for name, value in weights.items():
        if ".attention.to_q." in name:
            parts = [weights[name.replace("to_q", part)] for part in ("to_q", "to_k", "to_v")]
            renamed[name.replace("to_q", "qkv")] = torch.cat(parts)
        for old, new in NAMES:
            if not name.split(old)[0].endswith(("attention_", "ffn_")):
                name = name.replace(old, new)
        name = name.replace("attention.q.", "attention.q_norm.").replace("attention.k.", "attention.k_norm.")
        renamed[name] = value.flatten() if name.endswith("mod.lin") else value
    return renamed


LUMINA = (("attn.norm_q", "attention.q_norm"), ("attn.norm_k", "attention.k_norm"), ("attn.to_out.0", "attention.out"),
          (".norm1.linear", ".adaLN_modulation.1"), (".norm1.norm.", ".attention_norm1."), (".norm1.weight", ".attention_norm1.weight"),
          (".norm2.", ".attention_norm2."), ("linear_", "w"), ("time_caption_embed.timestep_embedder.w1", "t_embedder.mlp.0"),
          ("time_caption_embed.timestep_embedder.w2", "t_embedder.mlp.2"), ("time_caption_embed.caption_", "cap_"))


def luminas_as_comfyui_names_them(weights: dict) -> dict:
    renamed = {}
    for name, value in weights.items():
        if ".to_q." in name:
            value = torch.cat([weights[name.replace("to_q", part)] for part in ("to_q", "to_k", "to_v")])
            name = name.replace("attn.to_q", "attention.qkv")
        for old, new in LUMINA:
            name = name.replace(old, new)
        renamed[name] = value
    return renamed


@torch.no_grad()
def test_scores_are_those_of_the_plain_computation(pipe):
    model, generator = pipe.transformer, torch.Generator().manual_seed(1)
    latents, config = torch.randn(2, 16, 8, 12, generator=generator), dict(model.config)
    if kind(pipe) == "z_image":
        texts = [torch.randn(count, 16, generator=generator) for count in (5, 40)]
        call = dict(x=list(latents[:, :, None]), t=torch.tensor([0.3, 0.3]), cap_feats=texts)
        plain, config["n_kv_heads"] = reference("NextDiT", "reference_single", concept_at=4), 2
    elif kind(pipe) == "lumina2":
        texts = torch.randn(2, 5, 16, generator=generator)
        mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])  # the second picture's tokens begin earlier
        call = dict(hidden_states=latents, timestep=torch.tensor([0.3, 0.3]), encoder_hidden_states=texts, encoder_attention_mask=mask)
        texts = [texts[0], texts[1, :3]]
        plain = reference("NextDiT", "reference_single", concept_at=2, multiple=1, modulation="adaLN_modulation.1", silu=True,
                          from_1000=False)
        config |= dict(dim=64, n_layers=3, n_refiner_layers=2, n_heads=4, n_kv_heads=2, axes_dims=(4, 6, 6), rope_theta=10_000.0)
    else:
        texts = torch.randn(2, 5, 3, 16, generator=generator)
        places = torch.cat((torch.zeros(5, 3), torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(6.0))))
        call = dict(hidden_states=pack(latents), encoder_hidden_states=texts, timestep=torch.tensor([0.7, 0.7]), position_ids=places)
        plain = reference("Krea2", "reference_single")
        config |= dict(features=256, heads=4, kvheads=2, layers=3, txtlayers=3, txtheads=2, txtkvheads=1)
        latents, texts = latents[:, :, None], texts.flatten(2)
    vectors = {name: torch.randn(1, texts[0].shape[-1], generator=generator) for name in ("cat", "dog")}
    before = hooks(model)
    with concept_saliency.capture(model, list(vectors), encode=vectors.__getitem__, contrast="", cross_attention=True) as found:
        drawn = model(**call).sample
    assert all(map(torch.equal, drawn, model(**call).sample)) and hooks(model) == before and len(found) == 1
    named = luminas_as_comfyui_names_them if kind(pipe) == "lumina2" else as_comfyui_names_them
    for row in range(2):
        expected = plain.scores(named(model.state_dict()), config, latent=latents[row], text=texts[row],
                                concepts=torch.cat(list(vectors.values())), t=torch.tensor(0.7))
        check_equal(found, row, expected)
    assert (found.latest.family, found.latest.defaults) == (kind(pipe), FAMILIES[kind(pipe)].DEFAULTS)


@pytest.mark.parametrize("how", [{}, dict(negative_prompt="sand"), dict(num_images_per_prompt=2), dict(prompt=["a cat", "a red dog"]),
                                 dict(guidance_scale=0.0)], ids=str)
def test_the_picture_does_not_change(pipe, how):
    check_picture(pipe, draw, how, 3)


def test_the_same_noise_twice_is_no_negative_prompt(pipe):
    noise = torch.randn(1, 16, 8, 12, generator=torch.Generator().manual_seed(1)).expand(2, -1, -1, -1)
    noise = pack(noise) if kind(pipe) == "krea2" else noise
    with concept_saliency.capture(pipe, "cat, dog") as recordings:
        draw(pipe, prompt=["a cat", "a red dog"], latents=noise, guidance_scale=0.0)
    both = recordings.latest.scores
    assert both.shape[2] == 2
    for row, prompt in enumerate(("a cat", "a red dog")):
        with concept_saliency.capture(pipe, "cat, dog") as recordings:
            draw(pipe, prompt=prompt, latents=noise[:1], guidance_scale=5.0)
        torch.testing.assert_close(recordings.latest.scores[:1, :, 0], both[:1, :, row], rtol=1e-4, atol=1e-4)


def test_a_phrases_own_tokens_are_found_in_the_template(pipe):
    check_own_tokens(pipe)


def test_one_pass_records_what_the_first_step_of_sampling_from_there_records(pipe):
    family = family_of(pipe.transformer)
    if kind(pipe) != "krea2":
        check_one_pass(pipe, draw, family.encode, 3, max_sequence_length={"z_image": 16, "lumina2": 256}[kind(pipe)])
    else:
        check_one_pass(pipe, draw, family.encode, 3, pack, max_sequence_length=512)


def test_compiled_code_stays_as_it_is(pipe):
    check_compiled(pipe, draw)


def test_the_shell(pipe, tmp_path):
    saved_pipeline_works_in_the_shell(pipe, tmp_path)
