// Draws images from an export in Node and writes them side by side, as a PGM file or, in colour, a PPM file.
//
//     npm install
//     node sample.mjs ../../exports/mine 8 samples.pgm

import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { loadVAE } from "./vae.mjs";

const [folder, count = "8", out = "samples.pgm", seed = "0"] = process.argv.slice(2);
if (!folder) {
  console.error("usage: node sample.mjs EXPORT [COUNT] [IMAGE] [SEED]");
  process.exit(2);
}
const vae = await loadVAE(ort, (name) => readFile(join(folder, name)));
const n = Number(count);
const x = await vae.sample(n, Number(seed)); // n images, (channels, height, width) each, in 0..1
const [channels, height, width] = vae.shape;
const pixels = Buffer.alloc(n * channels * height * width);
for (let i = 0; i < n; i++) {
  for (let c = 0; c < channels; c++) {
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        const value = x[((i * channels + c) * height + row) * width + column];
        pixels[(row * n * width + i * width + column) * channels + c] = Math.round(255 * value);
      }
    }
  }
}
await writeFile(out, Buffer.concat([Buffer.from(`P${channels === 1 ? 5 : 6}\n${n * width} ${height}\n255\n`), pixels]));
console.log(`written ${out}`);
