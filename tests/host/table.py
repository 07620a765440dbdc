"""The matrix as one table: rows are cells, columns are hosts. Reads what pytest wrote as JUnit XML."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def outcomes(report: Path) -> dict[tuple[str, str], str]:
    """(group, cell) -> pass, refused, skipped or FAILED, with the reason; for one host."""
    found = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        group = case.get("classname").split(".")[-1].removeprefix("test_matrix_").removeprefix("test_")
        cell = re.sub(r"_", " ", case.get("name").removeprefix("test_").split("[")[0]) + \
            (f": {case.get('name').split('[', 1)[1][:-1]}" if "[" in case.get("name") else "")
        said = {p.get("name"): p.get("value") for p in case.iter("property")}
        skipped, failed = case.find("skipped"), case.find("failure") if case.find("failure") is not None else case.find("error")
        if failed is not None:
            outcome = f"FAILED: {failed.get('message', '')[:80]}"
        elif skipped is not None:
            outcome = f"skipped: {skipped.get('message')}"
        elif "refused" in said:
            outcome = f"refused: {said['refused']}"
        else:
            outcome = "pass" + (f" ({said['figures']})" if "figures" in said else "")
        found[group, cell] = outcome.replace("\n", " ").replace("|", "/")
    return found


def table(hosts: dict[str, dict[tuple[str, str], str]]) -> str:
    """Markdown."""
    rows = [f"| group | cell | {' | '.join(hosts)} |", "|---|---|" + "---|" * len(hosts)]
    for group, cell in dict.fromkeys(key for found in hosts.values() for key in found):
        rows.append(f"| {group} | {cell} | {' | '.join(found.get((group, cell), 'did not run') for found in hosts.values())} |")
    counts = {name: {word: sum(o.startswith(word) for o in found.values()) for word in ("pass", "refused", "skipped", "FAILED")}
              for name, found in hosts.items()}
    return "\n".join(rows + [""] + [f"{name}: " + ", ".join(f"{n} {word}" for word, n in c.items()) for name, c in counts.items()])
