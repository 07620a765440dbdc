"""Would the tests notice? Changes core/ in one place at a time and runs the tests of what was changed.

    python tests/mutate.py core/masks.py core/metrics.py      (needs: pip install cosmic-ray; POSIX)

The changes are cosmic-ray's. Of its replacements of an operator those are made that a person would make by mistake: the opposite
one, for < and its like the neighbour, and for a sign none. Changes in annotations change nothing and are left out. Libraries are
imported once; each change is tested in a fork, in a copy of the tree. The tests run quickest first, and those that take more than
SLOW seconds not at all: what they alone would notice counts as a survivor. So a change takes a second of the processor's. Printed
are the survivors as they come, and the score. .ci/run does not call this.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import gc
import importlib.util
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis  # noqa: F401  (these libraries are imported before the forks, so that each finds them there)
import kornia.color
import kornia.filters  # noqa: F401
import PIL.ImageFont  # noqa: F401
import pytest
import safetensors.torch  # noqa: F401
import scipy.ndimage  # noqa: F401
import sklearn.metrics  # noqa: F401
import torch
import tqdm  # noqa: F401
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).parents[1]
TESTS = {  # what to run when a module is changed; of the masks not those of large pictures, which alone take a minute
    "concepts": ["tests/test_concepts.py"],
    "erase": ["tests/test_erase.py"],
    "explore": ["tests/test_explore.py"],
    "files": ["tests/test_files.py"],
    "live": ["tests/test_live.py", "tests/test_frames.py"],
    "live_region": ["tests/test_live_region.py"],
    "masks": ["tests/test_maps.py", "tests/test_masks.py", "tests/test_mask_edges.py",
              "-k", "not every_size and not larger_than and not even_size"],
    "metrics": ["tests/test_metrics.py", "tests/test_metrics_protocols.py", "tests/test_golden.py", "tests/test_evaluate_options.py"],
    "paper_metrics": ["tests/test_metrics_protocols.py"],
    "pictures": ["tests/test_pictures.py"],
    "recording": ["tests/test_maps.py", "tests/test_saliency.py", "tests/test_recording.py", "tests/test_files.py", "tests/test_frames.py"],
    "regions": ["tests/test_regions.py"],
    "render": ["tests/test_captions.py", "tests/test_render.py"],
    "saliency": ["tests/test_maps.py", "tests/test_saliency.py", "tests/test_files.py", "tests/test_frames.py"],
    "stream": ["tests/test_equations.py", "tests/test_stream.py", "tests/test_golden.py"]}
LIKELY = {("Add", "Sub"), ("Sub", "Add"), ("Mul", "Div"), ("Div", "Mul"), ("FloorDiv", "Mul"), ("Mod", "Mul"), ("Pow", "Mul"),
          ("BitOr", "BitAnd"), ("BitAnd", "BitOr"), ("Lt", "LtE"), ("Lt", "Gt"), ("LtE", "Lt"), ("LtE", "Gt"), ("Gt", "GtE"), ("Gt", "Lt"),
          ("GtE", "Gt"), ("GtE", "Lt"), ("Eq", "NotEq"), ("NotEq", "Eq"), ("Is", "IsNot"), ("IsNot", "Is")}
QUIETLY = ["-x", "-q", "--tb=no", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:unraisableexception"]
SLOW = 1.0  # seconds a test
PATIENCE = 5  # times the processor's time that the tests take when nothing is changed; a change that makes them hang is noticed
MEMORY = 6 * 2**30  # bytes, for a change may ask for any number of pixels


def likely(name: str) -> bool:
    """Whether an operator of cosmic-ray's makes changes that are worth a test run."""
    kind, *pair = name.rpartition("/")[2].split("_")
    if kind == "ReplaceUnaryOperator":
        return pair[0] == "Delete"
    return kind not in ("ReplaceBinaryOperator", "ReplaceComparisonOperator") or tuple(pair) in LIKELY


def changes(source: str) -> Iterator[tuple[str, int, str]]:
    """Operator, line and changed source of every change to a module's source that changes what it does."""
    tree, same = get_ast(source), meaning(source)
    for name in filter(likely, operator_names()):
        if get_operator(name).arguments():
            continue
        operator = get_operator(name)()
        places = [start for node in ast_nodes(tree) for start, _ in operator.mutation_positions(node)]
        for occurrence, (line, _) in enumerate(places):
            try:
                changed = mutate_code(source.encode(), operator, occurrence)
            except AttributeError:  # cosmic-ray replaces no exception whose name has a dot
                continue
            if changed is not None and meaning(changed) not in (same, None):
                yield name.rpartition("/")[2], line, changed


def meaning(source: str) -> str | None:
    """A module's source without what is not run: annotations. None for what is no Python."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
        for field in ("returns", "annotation"):
            if hasattr(node, field):
                setattr(node, field, None)
    return ast.dump(tree)


class Watch:
    """A pytest plugin: how much of the processor's time each test took."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        start = time.process_time()
        done = yield
        self.seconds[item.nodeid] = time.process_time() - start
        return done


def outcome(tests: list[str], limit: float = 600.0, times: Path | None = None) -> str:
    """Whether the tests "passed", "failed" or "hung", in a fork that has so many seconds of the processor. times: a file for each
    test's."""
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 1))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            watch = Watch()
            code = pytest.main([*QUIETLY, *tests], plugins=[watch])
            if times is not None:
                times.write_text(json.dumps(watch.seconds))
            os._exit(int(code != 0))
    _, status = os.waitpid(child, 0)
    return "hung" if os.WIFSIGNALED(status) else "failed" if status else "passed"


def quick(given: list[str], times: Path) -> tuple[list[str], float]:
    """The tests among these that take no more than SLOW seconds, the quickest first, and the processor's seconds for all of them."""
    spent = 0.0
    tests = given
    for _ in range(2):  # once more without the slow ones: what a test finds loaded depends on those before it
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        if outcome(tests, times=times) != "passed":
            raise SystemExit(f"The tests {' '.join(given)} fail as they are.")
        spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
        seconds: dict[str, float] = json.loads(times.read_text())
        tests = sorted((test for test in seconds if seconds[test] <= SLOW), key=seconds.__getitem__)
    return tests, spent


def main(modules: list[str]) -> None:
    torch.set_num_threads(1)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # loading those that nobody asked for takes as long as many a test
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "concept_saliency"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", "*.png", "host"))
        sys.path.insert(0, folder)
        os.chdir(copy)
        pytest.main(["--version"])  # loads its plugins
        torch.testing.assert_close(torch.ones(1), torch.ones(1))  # loads much of torch when it is first called
        gc.freeze()  # else every fork looks through all of torch for garbage
        total = survivors = 0
        for module in modules:
            file = copy / module
            source = file.read_text("utf-8")
            tests, spent = quick(TESTS[file.stem], Path(folder) / "times")
            limit, found, lived, hung = max(5.0, PATIENCE * spent), 0, 0, 0
            print(f"{module}: {len(tests)} tests, {spent:.1f} s", flush=True)
            for operator, line, changed in changes(source):
                file.write_text(changed, "utf-8")
                Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
                found += 1
                how = outcome(tests, limit)
                if how != "failed":
                    after = [text[1:].strip() for text in difflib.ndiff(source.splitlines(), changed.splitlines()) if text[0] == "+"]
                    print(f"{module}:{line}: {operator}: {' / '.join(after) or 'a line less'}{' (hung)' * (how == 'hung')}", flush=True)
                hung += how == "hung"
                lived += how == "passed"
            file.write_text(source, "utf-8")
            print(f"{module}: {found - lived} of {found} changes noticed, {(found - lived) / max(1, found):.1%}; {hung} of them because "
                  f"the tests took more than {limit:.0f} s or too much memory", flush=True)
            total, survivors = total + found, survivors + lived
        print(f"all: {total - survivors} of {total}, {(total - survivors) / max(1, total):.1%}")


if __name__ == "__main__":
    main(sys.argv[1:])
