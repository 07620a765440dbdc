"""A ComfyUI workflow as a program writes it: nodes and their links, groups in columns from left to right, the file.

Every wire leads to the right, or down in its column. One to the next column runs through the gap between the two, one within a
column through the gap above the node it leads to; a longer one is taken over the groups. So no wire passes behind a node.
Source of the format: ComfyUI's docs/specs/workflow_json, version 0.4.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from .workflow_nodes import KINDS, LOOKS, PACK, Kind

GAP, BETWEEN_GROUPS, STACKED = 130, 150, 64  # pixels between columns, between groups, between nodes of a column (with its title bar)
TITLE, PADDING, LANE = 44, 24, 26  # a group's title, its border, and the distance between wires above the groups
INPUT, OUTPUT = -10, -20  # what a subgraph's own inputs and outputs are called in its links
GROUP_COLOUR = "#3f789e"


@dataclass
class Output:
    """One output of a node, as another's input takes it."""

    node: Node
    slot: int


@dataclass
class Link:
    number: int
    source: Output
    target: Node
    slot: int
    kind: str


@dataclass
class Node:
    number: int
    name: str  # of the node in ComfyUI
    kind: Kind
    title: str | None
    widgets: dict
    models: list[dict]
    height: int
    column: int = -1
    x: int = 0
    y: int = 0
    width: int = 0
    links: dict[int, Link] = field(default_factory=dict)  # by input
    exposed: dict[str, int] = field(default_factory=dict)  # widgets that a subgraph shows: name -> link

    def __getitem__(self, name: str) -> Output:
        """The output of that name."""
        return Output(self, list(self.kind.outputs).index(name))


class Graph:
    """A workflow. add() makes nodes, place() gives them a place, to_json() or to_blueprint() the file's content.

    between: pixels between groups. Wires that rise far swing out by more than 100 before they do.
    """

    def __init__(self, name: str, between: int = BETWEEN_GROUPS):
        self.name, self.nodes, self.links, self.groups, self.columns, self.between = name, [], [], [], [], between

    def add(self, name: str, title: str | None = None, models=(), tall: int | None = None, **given) -> Node:
        """A node. tall: its height in pixels, where not that of its kind. given: Outputs for its inputs; other values for its
        widgets, whose defaults are in KINDS."""
        kind = KINDS[name]
        wires = {key: value for key, value in given.items() if isinstance(value, Output)}
        if unknown := given.keys() - kind.inputs.keys() - kind.widgets.keys() | wires.keys() - kind.inputs.keys():
            raise ValueError(f"{name} has no {', '.join(sorted(unknown))}")
        widgets = {key: given.get(key, default) for key, default in kind.widgets.items()}
        node = Node(len(self.nodes) + 1, name, kind, title, widgets, list(models), tall or kind.height)
        self.nodes.append(node)
        for key, source in wires.items():
            slot = list(kind.inputs).index(key)
            made = list(source.node.kind.outputs.values())[source.slot]
            if made != kind.inputs[key] and kind.inputs[key] != "*":
                raise ValueError(f"{name}.{key} takes {kind.inputs[key]}, not {made}")
            node.links[slot] = Link(len(self.links) + 1, source, node, slot, made)
            self.links.append(node.links[slot])
        return node

    def note(self, text: str) -> Node:
        """A note in Markdown, high enough for its lines."""
        lines = sum(max(1, -(-len(line) // 70)) for line in text.splitlines())
        return self.add("MarkdownNote", "Read me", text=text, tall=50 + 16 * lines)

    def place(self, title: str | None, *columns: list[Node], below: Node | None = None) -> None:
        """The next group: columns of nodes, each from top to bottom, and a note below it. Without a title, no group is drawn."""
        x = left = self.columns[-1][1] + self.between if self.columns else 0
        bottom = 0
        for column in columns:
            y, width = 0, max(node.kind.width for node in [*column, *([below] if below else [])])
            for node in column:
                node.column, node.x, node.y, node.width = len(self.columns), x, y, width
                y += node.height + STACKED
            self.columns.append((x, x + width))
            bottom = max(bottom, y - STACKED)
            x += width + GAP
        if below:
            below.column, below.width = len(self.columns) - 1, self.columns[-1][1] - left
            below.x, below.y = left, bottom + PADDING + STACKED
        if title:
            top = 30 + TITLE
            self.groups.append({"id": len(self.groups) + 1, "title": title, "color": GROUP_COLOUR, "font_size": 24, "flags": {},
                                "bounding": [left - PADDING, -top, self.columns[-1][1] - left + 2 * PADDING, bottom + top + PADDING]})

    def reroutes(self) -> tuple[list[dict], dict[int, int]]:
        """The points that wires pass, and for each such link its last point. Long wires of one output share a lane."""
        points, last, lanes = [], {}, {}

        def point(x: int, y: int, link: Link, before: int | None) -> int:
            points.append({"id": len(points) + 1, "pos": [x, y], "linkIds": [link.number], **({"parentId": before} if before else {})})
            return len(points)

        for link in sorted(self.links, key=lambda one: (one.source.node.number, one.source.slot, one.target.column)):
            source, target = link.source.node, link.target
            (_, right), (left, _) = self.columns[source.column], self.columns[target.column]
            if source.column == target.column and source.y < target.y:
                aside = 6 * (link.slot % 4)  # wires to different inputs lie beside each other
                y = target.y - 38 - aside
                last[link.number] = point(left - 14 - aside, y, link, point(right + 14 + aside, y, link, None))
            elif source.column >= target.column:
                raise ValueError(f"{self.name}: {target.name} has to stand right of {source.name}, or below it")
            elif target.column > source.column + 1:
                lane = lanes.setdefault((source.number, link.source.slot), {"number": len(lanes), "points": {}})
                y, shift = -30 - TITLE - 40 - LANE * lane["number"], 26 + 12 * (lane["number"] % 4)
                for column, x in ((source.column, right + shift), (target.column, left - shift)):
                    if column in lane["points"]:
                        points[lane["points"][column] - 1]["linkIds"].append(link.number)
                    else:
                        lane["points"][column] = point(x, y, link, last_of(lane["points"]))
                for column, number in lane["points"].items():
                    if column < target.column and link.number not in points[number - 1]["linkIds"]:
                        points[number - 1]["linkIds"].append(link.number)
                last[link.number] = lane["points"][target.column]
        return points, last

    def to_json(self) -> dict:
        """The workflow's file."""
        points, last = self.reroutes()
        extra = {"reroutes": points, "linkExtensions": [{"id": link, "parentId": point} for link, point in sorted(last.items())]}
        return {"id": self.uuid(), "revision": 0, "last_node_id": len(self.nodes), "last_link_id": len(self.links),
                "nodes": [self.node(node) for node in self.nodes],
                "links": [[k.number, k.source.node.number, k.source.slot, k.target.number, k.slot, k.kind] for k in self.links],
                "groups": self.groups, "config": {}, "extra": extra, "version": 0.4}

    def uuid(self, of: str = "") -> str:
        """The same name gives the same identifier."""
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{PACK['cnr_id']}/{self.name}{of}"))

    def node(self, node: Node) -> dict:
        """One node of the file."""
        inputs = [{"name": name, "type": kind, "link": node.links[i].number if i in node.links else None}
                  for i, (name, kind) in enumerate(node.kind.inputs.items())]
        inputs += [{"name": name, "type": widget_type(node.widgets[name]), "widget": {"name": name}, "link": link}
                   for name, link in node.exposed.items()]
        outputs = [{"name": name, "type": kind, "slot_index": i,
                    "links": [k.number for k in self.links if k.source.node is node and k.source.slot == i]}
                   for i, (name, kind) in enumerate(node.kind.outputs.items())]
        properties = {"Node name for S&R": node.name, **node.kind.origin}
        if node.models:
            properties["models"] = node.models
        return {"id": node.number, "type": node.name, "pos": [node.x, node.y], "size": [node.width, node.height], "flags": {},
                "order": node.number - 1, "mode": 0, "inputs": inputs, "outputs": outputs, **({"title": node.title} if node.title else {}),
                "properties": properties, "widgets_values": list(node.widgets.values()), **LOOKS.get(node.kind.look, {})}

    def to_blueprint(self, description: str, inputs: dict[str, list[tuple[Node, str]]], outputs: dict[str, Output]) -> dict:
        """The same graph as a subgraph that shows some of its inputs and widgets, and some of its outputs.

        inputs: the subgraph's name -> the nodes' inputs or widgets it stands for.
        """
        definition, number = self.uuid("#subgraph"), len(self.links)
        links = [{"id": k.number, "origin_id": k.source.node.number, "origin_slot": k.source.slot, "target_id": k.target.number,
                  "target_slot": k.slot, "type": k.kind} for k in self.links]
        taken: dict[tuple[int, int], int] = {}
        entries, shown, sockets = [], [], []
        for slot, (name, targets) in enumerate(inputs.items()):
            ids = []
            for node, key in targets:
                number += 1
                ids.append(number)
                if key in node.kind.inputs:
                    place, kind = list(node.kind.inputs).index(key), node.kind.inputs[key]
                    taken[node.number, place] = number
                else:
                    place, kind = len(node.kind.inputs) + len(node.exposed), widget_type(node.widgets[key])
                    node.exposed[key] = number
                links.append({"id": number, "origin_id": INPUT, "origin_slot": slot, "target_id": node.number, "target_slot": place,
                              "type": kind})
            node, key = targets[0]
            widget = key in node.widgets
            if widget:
                shown.append([str(node.number), key])
            entries.append({"id": self.uuid(f"#in/{name}"), "name": name, "type": kind, "linkIds": ids, "label": name,
                            "pos": [-GAP - 80, 20 + 20 * slot]})
            sockets.append({"name": name, "label": name, "type": kind, "link": None, **({"widget": {"name": name}} if widget else {})})
        written = {node.number: self.node(node) for node in self.nodes}
        for (node, place), link in taken.items():
            written[node]["inputs"][place]["link"] = link
        results = []
        for slot, (name, source) in enumerate(outputs.items()):
            number += 1
            kind = list(source.node.kind.outputs.values())[source.slot]
            links.append({"id": number, "origin_id": source.node.number, "origin_slot": source.slot, "target_id": OUTPUT,
                          "target_slot": slot, "type": kind})
            written[source.node.number]["outputs"][source.slot]["links"].append(number)
            results.append({"id": self.uuid(f"#out/{name}"), "name": name, "type": kind, "linkIds": [number], "label": name,
                            "pos": [self.columns[-1][1] + GAP, 20 + 20 * slot]})
        points, last = self.reroutes()
        subgraph = {"id": definition, "version": 1, "state": {"lastGroupId": 0, "lastNodeId": len(self.nodes), "lastLinkId": number,
                                                              "lastRerouteId": len(points)},
                    "revision": 0, "config": {}, "name": self.name,
                    "inputNode": {"id": INPUT, "bounding": [-GAP - 200, 0, 140, 20 * len(inputs) + 40]},
                    "outputNode": {"id": OUTPUT, "bounding": [self.columns[-1][1] + GAP, 0, 120, 20 * len(outputs) + 40]},
                    "inputs": entries, "outputs": results, "widgets": [], "nodes": list(written.values()), "groups": [], "links": links,
                    "reroutes": points, "extra": {}, "category": PACK["category"], "description": description}
        for link in links:
            if link["id"] in last:
                link["parentId"] = last[link["id"]]
        outer = {"id": 1, "type": definition, "pos": [0, 0], "size": [340, max(200, 30 * len(inputs) + 60)], "flags": {}, "order": 0,
                 "mode": 0, "inputs": sockets, "outputs": [{"name": r["name"], "label": r["name"], "type": r["type"], "links": []}
                                                           for r in results],
                 "title": self.name, "properties": {"proxyWidgets": shown, **{k: PACK[k] for k in ("cnr_id", "ver")}}, "widgets_values": []}
        return {"id": self.uuid(), "revision": 0, "last_node_id": 1, "last_link_id": 0, "nodes": [outer], "links": [], "version": 0.4,
                "definitions": {"subgraphs": [subgraph]}, "extra": {}}


def last_of(points: dict[int, int]) -> int | None:
    """The point that was added last."""
    return next(reversed(points.values()), None)


def widget_type(value) -> str:
    """The socket type of a widget with this value."""
    return {bool: "BOOLEAN", int: "INT", float: "FLOAT"}.get(type(value), "STRING")
