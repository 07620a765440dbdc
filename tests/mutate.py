"""Would the tests notice? Changes core/ in one place at a time and runs the tests of what was changed.

    python tests/mutate.py core/masks.py core/metrics.py      (needs: pip install cosmic-ray; POSIX)

The changes are cosmic-ray's. Of its replacements of an operator those are made that a person would make by mistake: the opposite
one, and for < and its like the neighbour. Changes in annotations change nothing and are left out. Libraries are imported
once; each change is tested in a fork, in a copy of the tree, so that one takes a second or two instead of ten. Printed are
the survivors as they come, and the score. This takes long; .ci/run does not call it.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import os
import shutil
import signal
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
TESTS = {  # what to run when a module is changed, the quickest first
    "concepts": ["test_concepts.py"],
    "files": ["test_hostile_files.py"],
    "masks": ["test_maps.py", "test_masks.py"],
    "metrics": ["test_metrics.py", "test_metrics_protocols.py", "test_golden.py"],
    "paper_metrics": ["test_metrics_protocols.py"],
    "pictures": ["test_pictures.py"],
    "recording": ["test_maps.py", "test_saliency.py", "test_hostile_files.py"],
    "regions": ["test_regions.py"],
    "render": ["test_render.py"],
    "saliency": ["test_maps.py", "test_saliency.py", "test_hostile_files.py"],
    "stream": ["test_stream.py", "test_golden.py"]}
LIKELY = {("Add", "Sub"), ("Sub", "Add"), ("Mul", "Div"), ("Div", "Mul"), ("FloorDiv", "Mul"), ("Mod", "Mul"), ("Pow", "Mul"),
          ("BitOr", "BitAnd"), ("BitAnd", "BitOr"), ("Lt", "LtE"), ("Lt", "Gt"), ("LtE", "Lt"), ("LtE", "Gt"), ("Gt", "GtE"), ("Gt", "Lt"),
          ("GtE", "Gt"), ("GtE", "Lt"), ("Eq", "NotEq"), ("NotEq", "Eq"), ("Is", "IsNot"), ("IsNot", "Is")}
PATIENCE = 8  # times what the tests take when nothing is changed; a change that makes them hang is noticed


def likely(name: str) -> bool:
    """Whether an operator of cosmic-ray's makes changes that are worth a test run."""
    kind, *pair = name.rpartition("/")[2].split("_")
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
            changed = mutate_code(source.encode(), operator, occurrence)
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


def outcome(tests: list[Path], patience: float) -> str:
    """Whether the tests "passed", "failed" or "hung", in a fork."""
    child = os.fork()
    if not child:
        os.setpgrp()
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *map(str, tests)]) != 0))
    end = time.monotonic() + patience
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "failed" if status else "passed"
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hung"


def main(modules: list[str]) -> None:
    torch.set_num_threads(1)
    sys.dont_write_bytecode = True
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "concept_saliency"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", "*.png", "host"))
        sys.path.insert(0, folder)
        os.chdir(copy)
        total = survivors = 0
        for module in modules:
            file, tests = copy / module, [copy / "tests" / name for name in TESTS[Path(module).stem]]
            source, started = file.read_text("utf-8"), time.monotonic()
            if outcome(tests, 600) != "passed":
                raise SystemExit(f"The tests of {module} fail as they are.")
            patience, found, lived, hung = max(20.0, PATIENCE * (time.monotonic() - started)), 0, 0, 0
            for operator, line, changed in changes(source):
                file.write_text(changed, "utf-8")
                found += 1
                how = outcome(tests, patience)
                hung += how == "hung"
                if how == "passed":
                    lived += 1
                    after = [text[1:].strip() for text in difflib.ndiff(source.splitlines(), changed.splitlines()) if text[0] == "+"]
                    print(f"{module}:{line}: {operator}: {' / '.join(after) or 'a line less'}", flush=True)
            file.write_text(source, "utf-8")
            print(f"{module}: {found - lived} of {found} changes noticed, {(found - lived) / max(1, found):.1%}; {hung} of them because "
                  f"the tests took more than {patience:.0f} s", flush=True)
            total, survivors = total + found, survivors + lived
        print(f"all: {total - survivors} of {total}, {(total - survivors) / max(1, total):.1%}")


if __name__ == "__main__":
    main(sys.argv[1:])
