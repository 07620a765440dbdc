"""Golden values of the authors' implementation, as fixtures (see tests/golden/README.md)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

collect_ignore = ["host"]  # runs under ComfyUI's own interpreter: python3 tests/host
GOLDEN = Path(__file__).parent / "golden"


class Golden:
    """One golden file: tensors by name, its description, and the weights made from its seed."""

    def __init__(self, name: str):
        with safe_open(GOLDEN / f"{name}.safetensors", framework="pt") as file:
            self.about = json.loads(file.metadata()["golden"])
            self.tensors = {key: file.get_tensor(key) for key in file.keys()}

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.tensors[name]

    def weights(self) -> dict[str, torch.Tensor]:
        rng, weights = np.random.RandomState(self.about["weight_seed"]), {}
        for name in sorted(self.about["shapes"]):
            shape = self.about["shapes"][name]
            a = rng.standard_normal(shape)
            if name.endswith(".scale"):
                a = 1 + 0.1 * a
            elif name.endswith(".bias"):
                a = 0.02 * a
            else:
                a = a / np.sqrt(shape[-1])
            weights[name] = torch.from_numpy(np.float32(a))
        return weights

    def assert_close(self, mine: torch.Tensor, name: str) -> None:
        expected = self[name]
        assert mine.shape == expected.shape, f"{name}: {tuple(mine.shape)} instead of {tuple(expected.shape)}"
        error = (mine - expected).abs().max() / expected.abs().max()
        assert error <= 2e-4, f"{name}: relative error {error:.2e}"


@pytest.fixture
def golden():
    return Golden


@pytest.fixture(scope="session")
def tiny_components():
    """The parts of a Flux pipeline of diffusers with random weights, small and made without a network."""
    pytest.importorskip("diffusers", reason="diffusers is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

    words = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", "a", "and", "cat", "dog", "moon", "red", "sand", "sky"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", words["</s>"])])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=16)
    torch.manual_seed(0)
    clip = CLIPTextModel(CLIPTextConfig(vocab_size=len(words), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                                        max_position_embeddings=16, eos_token_id=1, bos_token_id=1, pad_token_id=0))
    t5 = T5EncoderModel(T5Config(vocab_size=len(words), d_model=32, d_ff=32, d_kv=8, num_layers=1, num_heads=4))
    vae = AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, block_out_channels=(4,) * 4,
                        layers_per_block=1, latent_channels=16, norm_num_groups=1, use_quant_conv=False, use_post_quant_conv=False,
                        shift_factor=0.1, scaling_factor=0.4)

    def make(in_channels: int = 64, guidance: bool = True, transformer=None) -> dict:
        torch.manual_seed(1)
        transformer = transformer or FluxTransformer2DModel(
            in_channels=in_channels, out_channels=64, num_layers=3, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8), guidance_embeds=guidance)
        for module in (transformer, clip, t5, vae):
            module.eval().requires_grad_(False)
        return dict(scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae, text_encoder=clip, tokenizer=tokenizer, text_encoder_2=t5,
                    tokenizer_2=tokenizer, transformer=transformer)

    return make
