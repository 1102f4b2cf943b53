// Image files -> what the encoder takes.

import { UserError } from "./errors";
import type { Manifest } from "./manifest";

const MAX_BYTES = 20 * 2 ** 20;
const MAX_PIXELS = 50_000_000;

export interface Decoded {
  x: number[];
  notes: string[]; // what was changed
}

export async function readImage(file: Blob, manifest: Manifest): Promise<Decoded> {
  if (file.size > MAX_BYTES) throw new UserError("the file is larger than 20 MB", "make the image smaller, then drop it again");
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new UserError("the file is not an image that the browser reads", "drop a PNG, JPEG or WebP file");
  }
  if (bitmap.width * bitmap.height > MAX_PIXELS) {
    throw new UserError("the image has more than 50 million pixels", "make it smaller, then drop it again");
  }
  return fromSource(bitmap, bitmap.width, bitmap.height, manifest);
}

// Draws an image at the model's size and takes its pixels.
export function fromSource(source: CanvasImageSource, width: number, height: number, manifest: Manifest): Decoded {
  const [channels, rows, columns] = manifest.data.shape;
  const canvas = new OffscreenCanvas(columns, rows);
  const context = canvas.getContext("2d", { willReadFrequently: true })!;
  context.imageSmoothingQuality = "high";
  context.fillRect(0, 0, columns, rows); // transparent pixels become black
  context.drawImage(source, 0, 0, columns, rows);
  const { data } = context.getImageData(0, 0, columns, rows);
  const notes = [];
  if (width !== columns || height !== rows) notes.push(`resized from ${width}×${height} to ${columns}×${rows}`);
  if (channels === 1 && !isGrey(data)) notes.push("its colours became grey, because the model knows grey images only");
  if (channels === 3 && isGrey(data)) notes.push("it is grey, and the model was trained on colours");
  return { x: toInput(data, manifest), notes };
}

function isGrey(data: Uint8ClampedArray): boolean {
  for (let i = 0; i < data.length; i += 4) if (data[i] !== data[i + 1] || data[i] !== data[i + 2]) return false;
  return true;
}

// Pixels (H, W, RGBA) -> floats (C, H, W) in 0..1, or bytes (H, W, C).
function toInput(data: Uint8ClampedArray, { data: about, format }: Manifest): number[] {
  const [channels, rows, columns] = about.shape;
  const pixels = rows * columns;
  const x = new Array<number>(channels * pixels);
  for (let i = 0; i < pixels; i++) {
    for (let c = 0; c < channels; c++) {
      const value = channels === 1 ? luma(data, 4 * i) : data[4 * i + c];
      if (format.uint8) x[i * channels + c] = value;
      else x[c * pixels + i] = value / 255;
    }
  }
  return x;
}

// ITU-R 601, in the whole numbers that Pillow uses.
function luma(data: Uint8ClampedArray, at: number): number {
  return (data[at] * 19595 + data[at + 1] * 38470 + data[at + 2] * 7471 + 0x8000) >> 16;
}

export function inverted(x: ArrayLike<number>, manifest: Manifest): number[] {
  const white = manifest.format.uint8 ? 255 : 1;
  return Array.from(x, (value) => white - value);
}
