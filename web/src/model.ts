// The graphs of an export: encode, decode, sample. Arrays are flat, one row after another.

import type * as Ort from "onnxruntime-web";
import { type Engine, openGraph } from "./engine";
import { firstLine, UserError } from "./errors";
import { type Manifest, product } from "./manifest";
import { drawId, normal, type Uniform } from "./random";

export type Values = Float32Array | Uint8Array | number[];
type Outputs = Record<string, Values>;
const COORDINATES = 3; // x, y and the distance from the middle, of each pixel

export class Model {
  private sessions = new Map<string, Promise<Ort.InferenceSession>>();
  private last: Promise<unknown> = Promise.resolve(); // a session runs one input at a time

  constructor(
    readonly engine: Engine,
    readonly manifest: Manifest,
  ) {}

  get latents(): number {
    return product(this.manifest.latent_shape);
  }

  has(graph: string): boolean {
    return graph in this.manifest.graphs;
  }

  takesLabels(...graphs: string[]): boolean {
    const { graphs: all } = this.manifest;
    return graphs.some((name) => all[name]?.inputs.some((input) => input.name === "y"));
  }

  // Loads a graph, if it is not loaded.
  open(graph: string): Promise<Ort.InferenceSession> {
    const session = this.sessions.get(graph) ?? openGraph(this.engine, this.manifest, graph);
    this.sessions.set(graph, session);
    return session;
  }

  // Examples, as the encoder takes them -> the modes of q(z|x).
  async encode(x: Values, y: number[]): Promise<number[]> {
    const outputs = await this.run("encoder", { x, y: this.repeated(y, x, this.manifest.data.shape) });
    return Array.from(outputs[this.manifest.mode], Number);
  }

  // Latents -> the data of each: means of p(x|z), ids, or the columns of a table.
  async decode(z: Values, y: number[]): Promise<Values> {
    const labels = this.repeated(y, z, this.manifest.latent_shape);
    if (this.manifest.autoregressive) return this.unroll(z, labels);
    const x = await this.decodeOnce({ z, y: labels });
    const { kind, vocabulary, columns } = this.manifest.data;
    if (kind === "table") return tableRows(x, columns);
    return kind === "tokens" ? mostProbable(x, vocabulary) : x;
  }

  // Draws latents from the prior.
  async samplePrior(n: number, y: number[], random: Uniform): Promise<number[]> {
    const { prior, latent_shape } = this.manifest;
    if (prior === "standard-normal") return normal(n * this.latents, random);
    const labels = repeat(y, n);
    if (prior === "autoregressive") return this.sampleIds(n, labels, random);
    if (prior === "graph") {
      const noise = this.manifest.graphs.prior.inputs.find((input) => input.name === "noise");
      const size = product((noise?.shape.slice(1) ?? latent_shape) as number[]);
      const outputs = await this.run("prior", { noise: normal(n * size, random), y: labels });
      return Array.from(Object.values(outputs)[0], Number);
    }
    throw new UserError("the export does not hold the model's prior", "choose an example, or move the latents");
  }

  private async sampleIds(n: number, y: number[], random: Uniform): Promise<number[]> {
    const length = this.latents;
    const ids = new Array<number>(n * length).fill(0);
    for (let position = 0; position < length; position++) {
      const logits = Object.values(await this.run("prior", { z: ids, y }))[0];
      const count = logits.length / (n * length);
      for (let row = 0; row < n; row++) {
        ids[row * length + position] = drawId(logits, (row * length + position) * count, count, random);
      }
    }
    return ids;
  }

  // The most probable ids, one after another.
  private async unroll(z: Values, y: number[]): Promise<number[]> {
    const { length, end_id } = this.manifest.autoregressive!;
    const n = z.length / this.latents;
    const free = typeof this.manifest.graphs.decoder.inputs.find((input) => input.name === "x")?.shape[1] === "string";
    const ids = new Array<number>(n * length).fill(0);
    const ended = new Array<boolean>(n).fill(false);
    for (let position = 0; position < length && !ended.every(Boolean); position++) {
      const seen = free ? position + 1 : length;
      const x = Array.from({ length: n * seen }, (_, i) => ids[Math.floor(i / seen) * length + (i % seen)]);
      const logits = await this.decodeOnce({ z, y, x });
      const count = logits.length / (n * seen);
      for (let row = 0; row < n; row++) {
        const id = argmax(logits, (row * seen + position) * count, count);
        ids[row * length + position] = ended[row] ? 0 : id;
        ended[row] ||= id === end_id;
      }
    }
    return ids;
  }

  private async decodeOnce(inputs: Record<string, Values>): Promise<Values> {
    const { inputs: declared, outputs } = this.manifest.graphs.decoder;
    const z = inputs.z.length / this.latents;
    const coordinates = declared.some((input) => input.name === "coordinates") ? this.coordinates(z) : [];
    return (await this.run("decoder", { ...inputs, coordinates }))[outputs[0].name];
  }

  // Of the middle of each pixel of n images; see `vaezoo.core.coordinates`.
  private coordinates(n: number): Float32Array {
    const [, height, width] = this.manifest.data.shape;
    const pixels = height * width;
    const places = new Float32Array(COORDINATES * pixels);
    for (let i = 0; i < pixels; i++) {
      const x = (((i % width) + 0.5) / width) * 2 - 1;
      const y = ((Math.floor(i / width) + 0.5) / height) * 2 - 1;
      [places[i], places[pixels + i], places[2 * pixels + i]] = [x, y, Math.hypot(x, y)];
    }
    const all = new Float32Array(n * places.length);
    for (let row = 0; row < n; row++) all.set(places, row * places.length);
    return all;
  }

  private repeated(y: number[], rows: Values, shape: number[]): number[] {
    return repeat(y, rows.length / product(shape));
  }

  private run(graph: string, given: Record<string, Values>): Promise<Outputs> {
    const done = this.last.catch(() => undefined).then(() => this.runNow(graph, given));
    this.last = done;
    return done;
  }

  private async runNow(graph: string, given: Record<string, Values>): Promise<Outputs> {
    const session = await this.open(graph);
    const feeds: Record<string, Ort.Tensor> = {};
    for (const { name, dtype, shape } of this.manifest.graphs[graph].inputs) {
      const sizes = this.sizes(name, shape, given);
      const rows = given[name].length / product(sizes);
      feeds[name] = new this.engine.ort.Tensor(dtype as "float32", arrayOf(dtype, given[name]), [rows, ...sizes]);
    }
    try {
      const outputs = await session.run(feeds);
      return Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, plain(tensor.data)]));
    } catch (error) {
      throw new UserError(`${graph}.onnx cannot run here: ${firstLine(error)}`, "check it with 'vaezoo verify'");
    }
  }

  // The sizes of one row of an input. A free size is that of the data, or of the ids so far.
  private sizes(name: string, shape: (number | string)[], given: Record<string, Values>): number[] {
    const own = shape.slice(1);
    if (own.every((size) => typeof size === "number")) return own as number[];
    const { data, latent_shape } = this.manifest;
    if (name === "z") return latent_shape;
    if (name === "x" && given.z) return [given.x.length / (given.z.length / this.latents)];
    if (name === "coordinates") return [COORDINATES, data.shape[1], data.shape[2]];
    const [channels, height, width] = data.shape;
    return data.shape.length === 3 && this.manifest.format.uint8 ? [height, width, channels] : data.shape;
  }
}

function repeat(y: number[], n: number): number[] {
  return Array.from({ length: n }, () => y).flat();
}

function arrayOf(dtype: string, values: Values): Float32Array {
  if (dtype === "int64") return BigInt64Array.from(Array.from(values, BigInt)) as unknown as Float32Array;
  if (dtype === "uint8") return Uint8Array.from(values) as unknown as Float32Array;
  return Float32Array.from(values);
}

function plain(data: Ort.Tensor.DataType): Values {
  return data instanceof BigInt64Array ? Array.from(data, Number) : (data as Float32Array);
}

function argmax(values: Values, start: number, count: number): number {
  let best = 0;
  for (let i = 1; i < count; i++) if (values[start + i] > values[start + best]) best = i;
  return best;
}

function mostProbable(logits: Values, count: number): number[] {
  return Array.from({ length: logits.length / count }, (_, i) => argmax(logits, i * count, count));
}

// How many categories a column `name:k` has. 0: it is real. A `?` at the end says that cells may be missing.
export function categoriesOf(column: string): number {
  return Number(/:(\d+)\??$/.exec(column)?.[1] ?? 0);
}

// Rows of columns, from a decoder's output in which a category has k probabilities side by side.
export function tableRows(output: Values, columns: string[]): number[] {
  const widths = columns.map(categoriesOf);
  const width = widths.reduce((a, k) => a + Math.max(1, k), 0);
  const rows: number[] = [];
  for (let start = 0; start < output.length; start += width) {
    let place = start;
    for (const k of widths) {
      rows.push(k ? argmax(output, place, k) : output[place]);
      place += Math.max(1, k);
    }
  }
  return rows;
}
