"""How far concept tokens should go, measured: what can be chosen, what is written, and what its tables say."""

import json
import shutil

import pytest
from click.testing import CliRunner

from concept_saliency.cli import evaluate_blocks
from concept_saliency.cli.measure import Setting
from concept_saliency.core.families import BLOCKS, Defaults
from concept_saliency.demo.pipeline import WEIGHTS, load_defaults


@pytest.mark.parametrize("singles", [0, 1, 2])
def test_whatever_can_be_chosen_can_be_said_by_defaults(singles):
    before = Defaults(0.0, 0.0, 0.4, 1.0, True)
    for layers in evaluate_blocks.choices(3, singles):
        made = evaluate_blocks.defaults_of(Setting(0.5, "output", layers, 3.0), 3, before)
        first, last = map(int, layers.split("-"))
        assert made.layers(3 + singles, singles) == list(range(first, last + 1)) and made.singles == singles
        assert (made.first_step, made.temperature) == (0.4, 3.0)


def test_the_command_prints_its_table_and_writes_what_auto_means(tmp_path, monkeypatch):
    weights = shutil.copytree(WEIGHTS, tmp_path / "weights")
    monkeypatch.setattr(evaluate_blocks, "NOISE_LEVELS", (0.45,))
    monkeypatch.setattr(evaluate_blocks, "TEMPERATURES", (3.0,))
    done = CliRunner().invoke(evaluate_blocks.command, ["--weights", str(weights), "--scenes", "2", "--tune", "1", "--write"])
    assert done.exit_code == 0, done.output
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ") and "IoU" not in line]
    assert [tuple(row.split(" | ")[:2]) for row in rows] == [(f"| {blocks}", space) for space in ("output", "cross-attention")
                                                             for blocks in BLOCKS]
    defaults, noise_level = load_defaults(weights)
    stored = json.loads((weights / "defaults.json").read_text())
    assert noise_level == 0.45 and defaults.temperature == 3.0 and stored["defaults"]["singles"] == defaults.singles
    assert defaults.first_step == load_defaults()[0].first_step, "is not measured here and stays"
