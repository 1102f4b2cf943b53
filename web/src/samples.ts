// Samples of the prior, and the export's examples. Each is a button that shows its latents.

import { button, element, panel, show } from "./dom";
import type { Explorer } from "./explorer";
import { className } from "./labels";
import { kindOf, Picture } from "./picture";
import { uniform } from "./random";

const COUNT = 16;
const MAX_NUMBERS = 1 << 20; // of all samples together, so that large images do not hold up the page

export function samples(explorer: Explorer): { node: HTMLElement; draw: () => Promise<void> } {
  const { model, manifest } = explorer;
  if (manifest.prior === null) {
    const text = "The export does not hold the model's prior. Start from an example instead.";
    return { node: panel("Samples", element("p", { class: "note" }, text)), draw: async () => undefined };
  }
  const count = Math.max(1, Math.min(COUNT, Math.floor(MAX_NUMBERS / manifest.data.shape.reduce((a, b) => a * b, 1))));
  const pictures = Array.from({ length: count }, (_, i) => new Picture(manifest, `sample ${i + 1}`, {}, true));
  const [latents, note] = [new Map<number, number[]>(), element("p", { class: "note", role: "status" })];
  const buttons = pictures.map((picture, i) => pick(picture, `show sample ${i + 1}`, () => explorer.set(latents.get(i)!)));
  let seed = 0;
  const draw = async () => {
    try {
      const start = performance.now();
      const z = await model.samplePrior(count, explorer.y, uniform(seed));
      const x = await model.decode(z, explorer.y);
      pictures.forEach((picture, i) => {
        latents.set(i, z.slice(i * model.latents, (i + 1) * model.latents));
        picture.draw(x, i);
      });
      note.textContent = `seed ${show(seed, 0)}, ${show(performance.now() - start, 0)} ms`;
    } catch (error) {
      explorer.onError(error);
    }
  };
  const more = button("New samples", () => {
    seed += 1;
    void draw();
  });
  const labelled = model.takesLabels("decoder", "prior") ? [button("Samples of this label", () => void draw())] : [];
  return { node: panel("Samples", element("div", { class: `grid of-${kindOf(manifest)}` }, ...buttons), note, element("p", { class: "actions" }, more, ...labelled)), draw };
}

// A canvas says nothing, so the button has a name. Texts are names themselves.
export function pick(picture: Picture, name: string, onclick: () => void): HTMLButtonElement {
  const isCanvas = picture.node instanceof HTMLCanvasElement;
  if (isCanvas) picture.node.setAttribute("aria-hidden", "true");
  const made = button("", onclick, { class: "pick", ...(isCanvas ? { "aria-label": name } : { title: name }) });
  made.append(picture.node);
  return made;
}

// The first held-out examples of the export, encoded when they are chosen.
export function exampleButtons(explorer: Explorer, choose: (x: ArrayLike<number>, y?: number[]) => void): HTMLElement | null {
  const { examples, facts, manifest } = explorer;
  if (!examples || !explorer.model.has("encoder")) return null;
  const size = examples.x.length / examples.count;
  const buttons = Array.from({ length: examples.count }, (_, i) => {
    const picture = new Picture(manifest, `example ${i + 1}`, {}, true);
    picture.draw(examples.x, i);
    const y = facts.y?.[i];
    const name = y?.length === 1 ? `, label ${className(explorer, y[0])}` : "";
    return pick(picture, `encode example ${i + 1}${name}`, () => choose(Array.from(examples.x.slice(i * size, (i + 1) * size)), y));
  });
  return element("div", { class: `grid of-${kindOf(manifest)}` }, ...buttons);
}
