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
  const text = source(source(node, "saliency"), "recordings")?.widgets?.find((widget) => widget.name === "concepts");
  return typeof text?.value === "string" && text.value.trim() ? parsed(text.value) : null;
}

/** The node that an input comes from, past reroutes. */
function source(node, name) {
  let from = node?.getInputNode?.(node.findInputSlot(name)) ?? null;
  for (let steps = 0; from?.type === "Reroute" && steps < 100; steps++) from = from.getInputNode(0);
  return from;
}
