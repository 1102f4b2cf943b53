// Two latents: images over the plane, the codes of examples with their labels, and the place of the picture.

import { element, panel, show } from "./dom";
import type { Explorer } from "./explorer";
import { className } from "./labels";
import { kindOf, toPixels } from "./picture";

const SIDE = 420; // pixels
const TILES = 11; // images a side
const LIMIT = 3; // standard deviations
const STEP = 0.05; // of a side, for a key
const KEYS: Record<string, [number, number]> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

export function map(explorer: Explorer): { node: HTMLElement | null; prepare: () => Promise<void> } {
  const { manifest } = explorer;
  if (manifest.latent_shape.length !== 1 || explorer.model.latents !== 2 || !explorer.hasLines) {
    return { node: null, prepare: async () => undefined };
  }
  const canvas = element("canvas", { width: SIDE, height: SIDE, class: "map", tabindex: 0, role: "application", "aria-roledescription": "map" });
  const background = new OffscreenCanvas(SIDE, SIDE);
  const toPlace = (z: number[]): [number, number] => {
    const [u, v] = z.map((value, i) => (value - explorer.center[i]) / (2 * LIMIT * explorer.scale[i]) + 0.5);
    return [u * SIDE, (1 - v) * SIDE];
  };
  const toLatents = (x: number, y: number) =>
    [x / SIDE, 1 - y / SIDE].map((u, i) => explorer.center[i] + (u - 0.5) * 2 * LIMIT * explorer.scale[i]);
  const draw = () => drawMap(canvas, background, explorer, toPlace);
  explorer.onChange(draw);
  const follow = (event: PointerEvent) =>
    explorer.set(toLatents((event.offsetX / canvas.clientWidth) * SIDE, (event.offsetY / canvas.clientHeight) * SIDE));
  canvas.addEventListener("pointermove", (event) => (event.pointerType === "mouse" || event.buttons) && follow(event));
  canvas.addEventListener("pointerdown", follow);
  canvas.addEventListener("keydown", (event) => {
    const step = KEYS[event.key];
    if (!step) return;
    event.preventDefault();
    explorer.set(explorer.z.map((z, i) => z + step[i] * STEP * 2 * LIMIT * explorer.scale[i]));
  });
  const prepare = async () => {
    if (kindOf(manifest) === "image") await drawTiles(background, explorer, toLatents);
    draw();
  };
  const codes = explorer.facts.z.length ? ` The numbers are the labels at the codes of ${show(explorer.facts.z.length, 0)} examples.` : "";
  const note = `Move the pointer, or use the arrow keys. z0 grows to the right, z1 upwards, to ${LIMIT} standard deviations.${explorer.facts.y ? codes : ""}`;
  return { node: panel("Map", element("p", { class: "note" }, note), canvas), prepare };
}

// Decodes the middle of each tile, a row at a time, so that the page stays responsive.
async function drawTiles(background: OffscreenCanvas, explorer: Explorer, toLatents: (x: number, y: number) => number[]): Promise<void> {
  const { manifest } = explorer;
  const [, height, width] = manifest.data.shape;
  const [context, tile] = [background.getContext("2d")!, new OffscreenCanvas(width, height)];
  const side = SIDE / TILES;
  for (let row = 0; row < TILES; row++) {
    const z = Array.from({ length: TILES }, (_, i) => toLatents((i + 0.5) * side, (row + 0.5) * side)).flat();
    const x = await explorer.model.decode(z, explorer.y);
    for (let column = 0; column < TILES; column++) {
      tile.getContext("2d")!.putImageData(toPixels(x, manifest, column), 0, 0);
      context.drawImage(tile, column * side, row * side, side, side);
    }
  }
}

function drawMap(canvas: HTMLCanvasElement, background: OffscreenCanvas, explorer: Explorer, toPlace: (z: number[]) => [number, number]): void {
  const context = canvas.getContext("2d")!;
  const { z: codes, y } = explorer.facts;
  context.globalAlpha = 1;
  context.fillStyle = "black";
  context.fillRect(0, 0, SIDE, SIDE);
  context.globalAlpha = codes.length ? 0.55 : 1; // so that the codes stand out
  context.drawImage(background, 0, 0);
  context.globalAlpha = 1;
  context.font = "bold 13px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  codes.forEach((code, i) => {
    const label = y?.[i][0];
    const hue = label === undefined ? 200 : (label * 137.5) % 360; // neighbours get distant hues
    context.lineWidth = 3;
    context.strokeStyle = "black";
    context.fillStyle = `hsl(${hue} 95% 70%)`;
    const text = label === undefined ? "•" : className(explorer, label).slice(0, 3);
    context.strokeText(text, ...toPlace(code));
    context.fillText(text, ...toPlace(code));
  });
  const [x, yy] = toPlace(explorer.z);
  for (const [color, width] of [["black", 5], ["white", 2]] as const) {
    context.strokeStyle = color;
    context.lineWidth = width;
    context.beginPath();
    context.arc(x, yy, 9, 0, 2 * Math.PI);
    context.stroke();
  }
  canvas.setAttribute("aria-label", `map of the latents: z0 ${show(explorer.z[0])}, z1 ${show(explorer.z[1])}; move with the arrow keys`);
}
