// Sliders: the most active latents first, the others folded away, and attribute vectors.

import { button, element, panel, show } from "./dom";
import { type Explorer, latentName, order } from "./explorer";

const LIMIT = 3; // standard deviations
const ATTRIBUTE_LIMIT = 2; // times the attribute's vector
const SHOWN = 12; // attributes that are not folded away

interface Slider {
  node: HTMLElement;
  set(value: number): void;
}

function slider(name: string, note: string, low: number, high: number, oninput: (value: number) => void): Slider {
  const step = (high - low) / 600;
  const input = element("input", { type: "range", min: low, max: high, step: "any", "aria-label": name });
  const output = element("output", { class: "value" });
  const set = (value: number) => {
    input.min = String(Math.min(low, value)); // an encoded image may lie further out
    input.max = String(Math.max(high, value));
    input.value = String(value);
    output.textContent = show(value);
    input.setAttribute("aria-valuetext", `${show(value)}${note && `, ${note}`}`);
  };
  input.addEventListener("input", () => {
    set(Number(input.value));
    oninput(Number(input.value));
  });
  input.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -10, ArrowDown: -10, ArrowRight: 10, ArrowUp: 10, PageDown: -100, PageUp: 100 }[event.key];
    if (!steps) return; // "any" leaves the size of a step to the browser
    event.preventDefault();
    const value = Math.min(Number(input.max), Math.max(Number(input.min), Number(input.value) + steps * step));
    set(value);
    oninput(value);
  });
  const label = element("span", { class: "name", "aria-hidden": "true" }, name);
  return { node: element("div", { class: "slider", title: note }, label, input, output), set };
}

export function sliders(explorer: Explorer, onmoved: (dim: number) => void): HTMLElement {
  const { dims, active, kl } = order(explorer);
  const shown = new Map<number, Slider>();
  const make = (dim: number, place: number): HTMLElement => {
    const note = kl[place] === null ? "" : `${show(kl[place]!)} nats`;
    const [center, reach] = [explorer.center[dim], LIMIT * explorer.scale[dim]];
    const made = slider(latentName(dim, explorer.manifest.latent_shape), note, center - reach, center + reach, (value) => {
      onmoved(dim);
      explorer.set(explorer.z.with(dim, value));
    });
    made.set(explorer.z[dim]);
    shown.set(dim, made);
    return made.node;
  };
  const first = element("div", { class: "sliders" }, ...dims.slice(0, active).map(make));
  explorer.onChange(() => shown.forEach((made, dim) => made.set(explorer.z[dim])));
  const reset = button("To the middle", () => explorer.set(explorer.center));
  const by = kl[0] === null ? "The latents that vary most come first." : "Latents with the largest KL come first.";
  const node = panel("Latents", element("p", { class: "note" }, by), first);
  if (dims.length > active) node.append(others(dims.slice(active), (dim, i) => make(dim, active + i), kl[active] !== null));
  node.append(element("p", { class: "actions" }, reset));
  return node;
}

// The sliders of the other latents are made when they are unfolded: there may be thousands.
function others(dims: number[], make: (dim: number, place: number) => HTMLElement, hasKl: boolean): HTMLElement {
  const title = `${show(dims.length, 0)} more latents${hasKl ? ", with a smaller KL" : ""}`;
  const list = element("div", { class: "sliders" });
  const details = element("details", {}, element("summary", {}, title), list);
  details.addEventListener("toggle", () => {
    if (details.open && !list.childElementCount) list.append(...dims.slice(0, 500).map(make));
  });
  return details;
}

export function attributes(explorer: Explorer): HTMLElement | null {
  const { attributes: known } = explorer.facts;
  if (!known.length || !explorer.hasLines) return null;
  const { class_names, classes } = explorer.manifest.data;
  const amounts = known.map(() => 0);
  let own = false; // whether this panel makes the change
  const made = known.map(({ factor, label, direction }, i) => {
    const name = class_names?.[label] ?? (classes.length > 1 ? `factor ${factor}: ${label}` : `label ${label}`);
    return slider(name, "", -ATTRIBUTE_LIMIT, ATTRIBUTE_LIMIT, (value) => {
      const change = value - amounts[i];
      amounts[i] = value;
      own = true;
      explorer.set(explorer.z.map((z, dim) => z + change * direction[dim]));
      own = false;
    });
  });
  const reset = () => {
    amounts.fill(0);
    made.forEach((item) => item.set(0));
  };
  explorer.onChange(() => own || reset());
  reset();
  const note = element("p", { class: "note" }, "Each adds the mean code of examples with a label minus that of the others.");
  const list = (items: Slider[]) => element("div", { class: "sliders" }, ...items.map((item) => item.node));
  const node = panel("Attributes", note, list(made.slice(0, SHOWN)));
  if (made.length > SHOWN) {
    const title = element("summary", {}, `${show(made.length - SHOWN, 0)} more attributes`);
    node.append(element("details", {}, title, list(made.slice(SHOWN))));
  }
  return node;
}
