"""The hard world, and options measured on it against the current one."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy import ndimage

from concept_saliency.cli import evaluate_options
from concept_saliency.cli.map_options import OPTIONS
from concept_saliency.core.metrics import leakage
from concept_saliency.demo.hard_world import KINDS, make_hard_scene


def of_kind(kind):
    return [make_hard_scene(seed) for seed in range(KINDS.index(kind), 20, len(KINDS))]


@pytest.mark.parametrize("kind", KINDS)
def test_a_hard_scene_is_what_its_kind_says(kind):
    for scene in of_kind(kind):
        covered = np.sum(list(scene.masks.values()), axis=0)
        assert scene.kind == kind and (covered == 1).all(), "disjoint, and all of the picture"
        counts = [sum(name == thing for name, _ in scene.instances) for thing in scene.things]
        assert counts == {"twins": [2, 1], "many": [1, 4]}.get(kind, [1, 1])
        assert all(mask.sum() > 60 for _, mask in scene.instances)
        first, second = (scene.masks[thing] for thing in scene.things)
        edges = np.zeros_like(first)
        edges[[0, -1]] = edges[:, [0, -1]] = True
        if kind == "cut":
            assert (first & edges).any() and (second & edges).any()
        if kind == "thin":
            assert all(ndimage.distance_transform_edt(mask).max() < 22 for mask in (first, second))
        if kind == "look-alikes":
            flat = [{tuple(colour) for colour in scene.image[ndimage.binary_erosion(mask, iterations=3)]} for mask in (first, second)]
            distances = np.abs(np.array(list(flat[0]))[:, None].astype(int) - np.array(list(flat[1]))[None]).sum(axis=2)
            assert distances.min() <= 0.25 * 3 * 255 * 0.5, "but for the light, a colour in common"


def test_the_same_seed_is_the_same_scene_and_no_other():
    assert (make_hard_scene(3).image == make_hard_scene(3).image).all() and (make_hard_scene(3).image != make_hard_scene(8).image).any()


def test_leakage_is_the_mass_on_others():
    plane, others = torch.tensor([[1.0, 3.0], [0.0, 4.0]]), torch.tensor([[False, True], [True, False]])
    assert leakage(plane, others) == pytest.approx(3 / 8) and leakage(torch.zeros(2, 2), others) == 0


def scene(ious, presence):
    return {"IoU": ious, "presence": presence}


def test_differences_are_those_of_the_same_scenes():
    """Scenes differ by far more than the options do; drawn together, a gain of a tenth everywhere has no interval at all."""
    plain = [scene([0.1], [(True, 0.9), (False, 0.1)]), scene([0.8, 0.7], [(True, 0.3), (False, 0.2)])]
    better = [scene([v + 0.1 for v in s["IoU"]], s["presence"]) for s in plain]
    assert evaluate_options.estimate(better, "IoU")[0] == pytest.approx(0.6333, abs=1e-3)
    assert evaluate_options.estimate(better, "IoU", plain) == pytest.approx((0.1, 0.1, 0.1), abs=1e-3)
    worse = [scene(s["IoU"], [(there, 1 - value) for there, value in s["presence"]]) for s in plain]
    assert evaluate_options.estimate(worse, "presence AUROC") == (0.0, 0.0, 0.0)
    assert evaluate_options.estimate(worse, "presence AUROC", plain) == (-1.0, -1.0, -1.0)


def test_the_command_compares_what_is_named_with_the_current_way_and_goes_on_from_its_lines(tmp_path, monkeypatch):
    asked = ["equal rivals", "--world", "hard", "--scenes", "2", "--tuning", "--out", str(tmp_path / "lines")]
    done = CliRunner().invoke(evaluate_options.command, asked)
    assert done.exit_code == 0, done.output
    rows = [line for line in done.stdout.splitlines() if line.startswith(tuple(f"| {name} |" for name in OPTIONS))]
    assert [row.split(" | ")[0] for row in rows] == ["| current", "| equal rivals"] * 4, "figures and kinds, in both spaces"
    assert f"seeds {evaluate_options.TUNING} to {evaluate_options.TUNING + 1}" in done.stdout
    assert rows[1].split(" | ")[evaluate_options.MEANS.index("AP") + 1] == "the same", "the same maps"
    monkeypatch.setattr(evaluate_options, "figures", None)  # nothing is measured again
    assert CliRunner().invoke(evaluate_options.command, asked).stdout == done.stdout
    refused = CliRunner().invoke(evaluate_options.command, ["otsu", *asked[1:]])
    assert refused.exit_code == 2 and "another evaluation (options)" in refused.output


def test_an_unknown_option_is_refused_with_the_known_ones():
    done = CliRunner().invoke(evaluate_options.command, ["magic"])
    assert done.exit_code == 2 and "'magic'" in done.output and all(name in done.output for name in OPTIONS)
