// A grid of codes to paint: choose a code, then set cells to it with the pointer or the keyboard.

import { button, element, panel, show } from "./dom";
import type { Explorer } from "./explorer";

const MAX_CELLS = 1024;

// Rows and columns of each grid: the last two sizes of the latents, or a square for codes in a row.
export function grids(shape: number[]): { count: number; rows: number; columns: number } {
  const latents = shape.reduce((a, b) => a * b, 1);
  if (shape.length >= 2) {
    const [rows, columns] = shape.slice(-2);
    return { count: latents / (rows * columns), rows, columns };
  }
  const columns = Math.ceil(Math.sqrt(latents));
  return { count: 1, rows: Math.ceil(latents / columns), columns };
}

export function paint(explorer: Explorer): HTMLElement | null {
  const { manifest, facts, model } = explorer;
  const isCodes = manifest.graphs.decoder.inputs.find((input) => input.name === "z")?.dtype === "int64";
  if (!isCodes) return null;
  if (model.latents > MAX_CELLS) {
    return panel("Codes", element("p", { class: "note" }, `There are ${show(model.latents, 0)} codes, too many to paint.`));
  }
  const largest = facts.codes === null ? Math.max(1, ...facts.z.flat()) : facts.codes - 1;
  const chosen = element("input", { type: "number", min: 0, max: largest, step: 1, value: 0, id: "code" });
  const swatch = element("span", { class: "swatch", "aria-hidden": "true" });
  const recolor = () => (swatch.style.backgroundColor = colorOf(code()));
  const code = () => Math.min(largest, Math.max(0, Math.round(Number(chosen.value)) || 0));
  chosen.addEventListener("input", recolor);
  recolor();
  const set = (index: number) => explorer.z[index] !== code() && explorer.set(explorer.z.with(index, code()));
  const pick = (index: number) => {
    chosen.value = String(explorer.z[index]);
    recolor();
  };
  const { count, rows, columns } = grids(manifest.latent_shape);
  const tables = Array.from({ length: count }, (_, i) => grid(explorer, i * rows * columns, rows, columns, set, pick));
  const one = button("Fill with the code", () => explorer.set(explorer.z.map(code)));
  const note = "Press or drag on cells, or use the arrow keys and Enter. The right button, or P, takes the code of a cell.";
  const choice = element("p", { class: "actions" }, element("label", { for: "code" }, `Code, 0 to ${show(largest, 0)}`), chosen, swatch, one);
  return panel("Codes", element("p", { class: "note" }, note), choice, ...tables);
}

function colorOf(code: number): string {
  return `hsl(${(code * 137.5) % 360} 65% ${35 + ((code * 7) % 4) * 12}%)`;
}

function grid(explorer: Explorer, start: number, rows: number, columns: number, set: (i: number) => void, pick: (i: number) => void): HTMLElement {
  const cells: HTMLElement[] = [];
  const lines = Array.from({ length: rows }, (_, row) => {
    const line = element("div", { role: "row" });
    for (let column = 0; column < columns && start + row * columns + column < explorer.model.latents; column++) {
      const cell = element("button", { type: "button", role: "gridcell", tabindex: cells.length ? -1 : 0 });
      cells.push(cell);
      line.append(cell);
    }
    return line;
  });
  const node = element("div", { role: "grid", "aria-label": "codes", class: "codes" }, ...lines);
  node.style.setProperty("--columns", String(columns));
  const indexOf = (target: EventTarget | null) => cells.indexOf(target as HTMLElement);
  const color = () =>
    cells.forEach((cell, i) => {
      const code = explorer.z[start + i];
      cell.style.backgroundColor = colorOf(code);
      cell.setAttribute("aria-label", `row ${Math.floor(i / columns)}, column ${i % columns}: code ${code}`);
      cell.title = String(code);
    });
  const paintAt = (i: number) => i >= 0 && set(start + i);
  node.addEventListener("pointerdown", (event) => event.button === 0 && paintAt(indexOf(event.target)));
  node.addEventListener("pointerover", (event) => event.buttons === 1 && paintAt(indexOf(event.target)));
  node.addEventListener("contextmenu", (event) => {
    event.preventDefault();
    if (indexOf(event.target) >= 0) pick(start + indexOf(event.target));
  });
  node.addEventListener("keydown", (event) => {
    const at = indexOf(event.target);
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    if (step && cells[at + step]) {
      cells[at].tabIndex = -1;
      cells[at + step].tabIndex = 0;
      cells[at + step].focus();
    } else if (event.key === "Enter" || event.key === " ") paintAt(at);
    else if (event.key === "p" || event.key === "P") pick(start + at);
    else return;
    event.preventDefault();
  });
  explorer.onChange(color);
  color();
  return node;
}
