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
            self.tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no dict)  # noqa: SIM118  (no dict)

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
