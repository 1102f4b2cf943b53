// An image of the user's own: dropped, chosen, drawn, or one of the export's examples. It is encoded and reconstructed.

import { button, element, panel } from "./dom";
import { firstLine, UserError } from "./errors";
import type { Explorer } from "./explorer";
import { type Decoded, fromSource, inverted, readImage } from "./files";
import { kindOf, Picture } from "./picture";
import { exampleButtons } from "./samples";
import { takesTexts, toIds } from "./texts";

const MAX_DRAWN = 64; // pixels a side of an image that can be drawn by hand
const PAD = 280; // pixels a side of the pad

export function input(explorer: Explorer): HTMLElement | null {
  const { manifest, model } = explorer;
  if (!model.has("encoder")) return null;
  const isImage = kindOf(manifest) === "image";
  const isText = kindOf(manifest) === "text" && takesTexts(manifest);
  const [original, reconstruction] = ["input", "reconstruction"].map((name) => new Picture(manifest, name, { id: name }, true));
  const note = element("p", { class: "note", role: "status", id: "input-note" });
  let current: number[] | null = null;
  const invertNow = async () => {
    if (current) await encode(inverted(current, manifest), undefined, []);
  };
  const invert = button("Invert", () => void attempt(invertNow));
  const figures = [figure(original, "input"), figure(reconstruction, "reconstruction")];
  const pair = element("div", { class: "pair", hidden: true }, ...figures, ...(isImage ? [invert] : []));
  const encode = async (x: ArrayLike<number>, y: number[] | undefined, notes: string[]) => {
    current = Array.from(x);
    const label = y ?? explorer.y;
    const z = await model.encode(current, label);
    original.draw(current);
    reconstruction.draw(await model.decode(z, label));
    pair.hidden = false;
    note.textContent = notes.length ? `${notes.join("; ")}.` : "";
    explorer.set(z, label);
  };
  const attempt = async (work: () => Promise<void>) => {
    try {
      await work();
    } catch (error) {
      note.textContent = error instanceof UserError ? `${error.message}: ${error.hint}` : firstLine(error);
    }
  };
  const accept = ({ x, notes }: Decoded) => encode(x, undefined, notes);
  const examples = exampleButtons(explorer, (x, y) => void attempt(() => encode(x, y, [])));
  const take = (work: () => Promise<Decoded>) => void attempt(async () => accept(await work()));
  const own = isImage ? ownImages(explorer, take) : isText ? [ownText(explorer, take)] : [];
  const parts = [element("div", { class: "sources" }, ...own), ...(examples ? [element("p", { class: "note" }, "Examples that the model has not seen:"), examples] : []), note, pair];
  if (!own.length && !examples) return null;
  return panel(isImage ? "Your image" : isText ? "Your text" : "Examples", ...parts);
}

function figure(picture: Picture, caption: string): HTMLElement {
  return element("figure", {}, picture.node, element("figcaption", {}, caption));
}

function ownText({ manifest }: Explorer, accept: (work: () => Promise<Decoded>) => void): HTMLElement {
  const field = element("input", { type: "text", id: "own-text", maxlength: 1000, autocomplete: "off" });
  const encode = (event: Event) => {
    event.preventDefault();
    accept(async () => ({ x: toIds(field.value, manifest), notes: [] }));
  };
  const send = element("button", { type: "submit" }, "Encode");
  const form = element("form", { class: "actions" }, element("label", { for: "own-text" }, "Text"), field, send);
  form.addEventListener("submit", encode);
  return form;
}

// A place to drop a file on, a button that chooses one, and a pad to draw on for small grey images.
function ownImages(explorer: Explorer, accept: (work: () => Promise<Decoded>) => void): HTMLElement[] {
  const { manifest } = explorer;
  const chooser = element("input", { type: "file", accept: "image/*", id: "chosen-image" });
  const read = (file: File | undefined) => file && accept(() => readImage(file, manifest));
  chooser.addEventListener("change", () => read(chooser.files?.[0]));
  const zone = element("div", { class: "drop", id: "drop" }, element("label", { for: "chosen-image" }, "Drop an image here, or choose a file"), chooser);
  // Beside the place a browser would leave the page and open the file.
  for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
  for (const kind of ["dragenter", "dragover"]) {
    zone.addEventListener(kind, (event) => {
      event.preventDefault();
      zone.classList.add("over");
    });
  }
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    const file = event.dataTransfer?.files[0];
    if (file) read(file);
    else accept(() => Promise.reject(new UserError("what was dropped is not a file", "drop an image file")));
  });
  const [channels, height, width] = manifest.data.shape;
  if (channels !== 1 || Math.max(height, width) > MAX_DRAWN) return [zone];
  return [zone, pad((canvas) => accept(async () => ({ ...fromSource(canvas, width, height, manifest), notes: [] })))];
}

// A pad for the pointer. The file chooser does the same for those who use a keyboard.
function pad(changed: (canvas: HTMLCanvasElement) => void): HTMLElement {
  const canvas = element("canvas", { width: PAD, height: PAD, class: "pad", role: "img", "aria-label": "pad to draw on with the pointer" });
  const context = canvas.getContext("2d", { willReadFrequently: true })!;
  const clear = () => {
    context.fillStyle = "black";
    context.fillRect(0, 0, PAD, PAD);
  };
  clear();
  Object.assign(context, { strokeStyle: "white", lineWidth: PAD / 12, lineCap: "round", lineJoin: "round" });
  const place = (event: PointerEvent): [number, number] => [
    (event.offsetX / canvas.clientWidth) * PAD,
    (event.offsetY / canvas.clientHeight) * PAD,
  ];
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    context.beginPath();
    context.moveTo(...place(event));
    context.lineTo(...place(event));
    context.stroke();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!event.buttons) return;
    context.lineTo(...place(event));
    context.stroke();
  });
  canvas.addEventListener("pointerup", () => changed(canvas));
  return element("div", { class: "draw" }, element("span", { class: "note" }, "Or draw:"), canvas, button("Clear", clear));
}
