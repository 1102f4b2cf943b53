// Labels of a conditional model as buttons.

import { element, panel } from "./dom";
import type { Explorer } from "./explorer";

export function className(explorer: Explorer, label: number): string {
  return explorer.manifest.data.class_names?.[label] ?? String(label);
}

export function labels(explorer: Explorer): HTMLElement | null {
  const { classes } = explorer.manifest.data;
  if (!classes.length || !explorer.model.takesLabels("decoder", "encoder", "prior")) return null;
  const groups = classes.map((count, factor) => {
    const legend = element("legend", {}, classes.length > 1 ? `Factor ${factor}` : "The model is given this label");
    const choices = Array.from({ length: count }, (_, label) => choice(explorer, factor, label));
    return element("fieldset", { class: "labels" }, legend, ...choices);
  });
  return panel("Label", ...groups);
}

function choice(explorer: Explorer, factor: number, label: number): HTMLElement {
  const input = element("input", { type: "radio", name: `factor-${factor}`, value: label });
  input.checked = explorer.y[factor] === label;
  input.addEventListener("change", () => explorer.set(explorer.z, explorer.y.with(factor, label)));
  explorer.onChange(() => (input.checked = explorer.y[factor] === label));
  return element("label", {}, input, element("span", {}, className(explorer, label)));
}
