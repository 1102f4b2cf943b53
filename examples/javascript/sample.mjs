// Draws images from an export in Node and writes them side by side, as a PGM file or, in colour, a PPM file.
//
//     npm install
//     node sample.mjs ../../exports/mine 8 samples.pgm

import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { firstLine, loadVAE } from "./vae.mjs";

// A file of the export, or undefined if there is none.
async function read(folder, name) {
  try {
    return await readFile(join(folder, name));
  } catch (error) {
    if (error.code !== "ENOENT" && error.code !== "ENOTDIR") throw error;
  }
}

// n images, (channels, height, width) each, in 0..1 -> a file of them side by side.
function picture(x, n, [channels, height, width]) {
  const pixels = Buffer.alloc(n * channels * height * width);
  for (let i = 0; i < n; i++) {
    for (let c = 0; c < channels; c++) {
      for (let row = 0; row < height; row++) {
        for (let column = 0; column < width; column++) {
          const value = x[((i * channels + c) * height + row) * width + column];
          pixels[(row * n * width + i * width + column) * channels + c] = Math.round(255 * Math.min(1, Math.max(0, value)));
        }
      }
    }
  }
  const header = `P${channels === 1 ? 5 : 6}\n${n * width} ${height}\n255\n`;
  return Buffer.concat([Buffer.from(header), pixels]);
}

async function main([folder, count = "8", out = "samples.pgm", seed = "0", label]) {
  if (!folder) throw new Error("usage: node sample.mjs EXPORT [COUNT] [IMAGE] [SEED] [LABEL]");
  const vae = await loadVAE(ort, (name) => read(folder, name));
  const { shape } = vae;
  if (shape.length !== 3 || ![1, 3].includes(shape[0])) {
    throw new Error(`the model makes data of shape ${shape.join("x")}, which are not images`);
  }
  const suffix = shape[0] === 1 ? ".pgm" : ".ppm";
  if (!out.endsWith(suffix)) throw new Error(`cannot write '${out}': give a name that ends in ${suffix}`);
  const n = Number(count);
  const y = label === undefined ? undefined : Array.from({ length: n }, () => Number(label));
  await writeFile(out, picture(await vae.sample(n, Number(seed), y), n, shape));
  console.log(`written ${out}`);
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  console.error(`error: ${firstLine(error)}`);
  process.exitCode = 1;
}
