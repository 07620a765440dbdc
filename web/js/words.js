/** Concepts by their names, as core/concepts.py reads them. */

/** The names in a text of concepts: separated by commas or lines; of synonyms the first. */
export function parsed(text) {
  const tidy = (part) => part.trim().split(/\s+/).join(" ");
  return text.split(/[,\n]/).map((entry) => entry.split("|").map(tidy).find(Boolean)).filter(Boolean);
}

/** Which of `names` a text means: names or numbers from 1, several joined by "+", empty for the first; null for an unknown one. */
export function rowsOf(text, names) {
  const known = names.map((name) => name.toLowerCase());
  const row = (one) => {
    const wanted = one.trim().toLowerCase();
    if (known.includes(wanted)) return known.indexOf(wanted);
    if (!wanted) return 0;
    return /^\d{1,3}$/.test(wanted) && wanted >= 1 && wanted <= names.length ? Number(wanted) - 1 : -1;
  };
  const rows = known.includes(text.trim().toLowerCase()) ? [row(text)] : text.split("+").map(row);
  return names.length && rows.every((one) => one >= 0) ? rows : null;
}

/** How a concept is written so that it is found again: its name, or its number where the name would be read otherwise. */
export function label(row, names) {
  return names[row].includes("+") ? String(row + 1) : names[row];
}

/** The concepts typed in the Concept Attention that a node's saliency comes from; null where they do not stand in the graph. */
export function typedConcepts(node) {
  const texts = sources(node, "saliency").flatMap((maps) => sources(maps.node, "recordings")).map(({ node: from }) => textOf(from, "concepts"));
  const [text] = texts;
  return typeof text === "string" && text.trim() && texts.every((other) => other === text) ? parsed(text) : null;
}

/** Where an input of a node comes from: [{node, slot}], its output; several, where a subgraph is used several times. */
function sources(node, name) {
  return begin(node?.graph, node?.inputs?.find((input) => input.name === name)?.link);
}

/**
 * The same of a link, past reroutes and through the borders of subgraphs, inwards and outwards. Where nothing is connected to a subgraph's
 * input from outside, the subgraph's own node and {input} stand for it: a widget may be there.
 */
function begin(graph, id, steps = 100) {
  const link = id == null ? null : (graph.getLink?.(id) ?? graph.links?.get?.(id) ?? graph.links?.[id]);
  if (!link || !steps) return [];
  if (link.origin_id === graph.inputNode?.id) {
    return holders(graph).flatMap((holder) => {
      const input = holder.inputs[link.origin_slot];
      return input?.link == null ? [{ node: holder, input }] : begin(holder.graph, input.link, steps - 1);
    });
  }
  const node = graph.getNodeById(link.origin_id);
  if (node?.subgraph) return begin(node.subgraph, node.subgraph.outputs[link.origin_slot]?.linkIds?.[0], steps - 1);
  if (node?.type === "Reroute") return begin(graph, node.inputs[0]?.link, steps - 1);
  return node ? [{ node, slot: link.origin_slot }] : [];
}

/** The nodes that stand for a subgraph, wherever they are. */
function holders(graph) {
  const root = graph.rootGraph ?? graph;
  return [root, ...(root.subgraphs?.values() ?? [])].flatMap((one) => one.nodes.filter((node) => node.subgraph === graph));
}

/** The text of a node's widget, or of the subgraph's that stands for it; undefined where another node makes it. */
function textOf(node, name) {
  const input = node.inputs?.find((one) => one.name === name && one.link != null);
  const valueOf = (holder, wanted) => holder.widgets?.find((widget) => widget.name === wanted)?.value;
  if (!input) return valueOf(node, name);
  const texts = begin(node.graph, input.link).map((from) => from.input && valueOf(from.node, from.input.widget?.name ?? from.input.name));
  return texts.every((text) => text === texts[0]) ? texts[0] : undefined;
}
