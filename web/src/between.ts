// Interpolation: a straight line between two latents, with a button that plays it.

import { button, element, panel, show } from "./dom";
import type { Explorer } from "./explorer";
import { Picture } from "./picture";
import { uniform } from "./random";

const SECONDS = 2; // of one way

interface End {
  node: HTMLElement;
  z: number[];
  take: () => Promise<void>;
}

export function interpolation(explorer: Explorer): { node: HTMLElement | null; prepare: () => Promise<void> } {
  if (!explorer.hasLines) return { node: null, prepare: async () => undefined };
  const ends = [end(explorer, "A"), end(explorer, "B")];
  const range = element("input", { type: "range", min: 0, max: 1, step: 0.01, value: 0, "aria-label": "from A to B" });
  const output = element("output", { class: "value" }, show(0));
  const move = (t: number) => {
    range.value = String(t);
    output.textContent = show(t);
    range.setAttribute("aria-valuetext", show(t));
    explorer.set(ends[0].z.map((a, i) => a + t * (ends[1].z[i] - a)));
  };
  range.addEventListener("input", () => move(Number(range.value)));
  let playing = 0; // number of the request for the next frame; 0: it does not play
  const play = button("Play", () => {
    if (playing) stop();
    else start();
  });
  const stop = () => {
    cancelAnimationFrame(playing);
    playing = 0;
    play.textContent = "Play";
  };
  const start = () => {
    const begin = performance.now() - Number(range.value) * SECONDS * 1000;
    play.textContent = "Pause";
    const step = (now: number) => {
      const t = Math.max(0, now - begin) / (SECONDS * 1000);
      move(1 - Math.abs(1 - (t % 2)));
      playing = requestAnimationFrame(step);
    };
    playing = requestAnimationFrame(step);
  };
  const prepare = async () => {
    const { facts, model } = explorer;
    const random = uniform(7);
    const known = facts.z.length > 1 ? [facts.z[0], facts.z[1]] : null;
    const drawn = known ?? (explorer.manifest.prior === null ? null : await pairOf(explorer, random));
    for (const [i, item] of ends.entries()) {
      item.z = drawn?.[i] ?? new Array<number>(model.latents).fill(0);
      await item.take();
    }
  };
  const line = element("div", { class: "slider" }, element("span", { class: "name", "aria-hidden": "true" }, "A to B"), range, output);
  const node = panel("Interpolation", element("div", { class: "pair" }, ...ends.map((item) => item.node)), line, element("p", { class: "actions" }, play));
  return { node, prepare };
}

async function pairOf(explorer: Explorer, random: () => number): Promise<number[][]> {
  const z = await explorer.model.samplePrior(2, explorer.y, random);
  return [z.slice(0, explorer.model.latents), z.slice(explorer.model.latents)];
}

function end(explorer: Explorer, name: string): End {
  const picture = new Picture(explorer.manifest, `end ${name}`, {}, true);
  const made: End = {
    node: element("figure", {}),
    z: [],
    take: async () => picture.draw(await explorer.model.decode(made.z, explorer.y)),
  };
  const set = button(`Take the current one as ${name}`, () => {
    made.z = [...explorer.z];
    made.take().catch(explorer.onError);
  });
  made.node.append(picture.node, element("figcaption", {}, name), set);
  return made;
}
