// The latents that the page shows. Panels change them, and are told of changes and of each new picture.

import type { LatentFacts, Manifest, PageFacts } from "./manifest";
import type { Model, Values } from "./model";

export interface Frame {
  x: Values;
  z: number[];
  y: number[];
  milliseconds: number;
}

export interface Examples {
  x: Values;
  count: number;
}

export class Explorer {
  z: number[];
  y: number[];
  readonly scale: number[]; // a standard deviation of each latent: of the codes, or of the standard normal
  readonly center: number[];
  private listeners: (() => void)[] = [];
  private frameListeners: ((frame: Frame) => void)[] = [];
  private running = false;
  private waiting = false;
  onError: (error: unknown) => void = () => undefined;

  constructor(
    readonly model: Model,
    readonly facts: LatentFacts,
    readonly page: PageFacts,
    readonly examples: Examples | null,
  ) {
    [this.center, this.scale] = spread(this.manifest, facts, model.latents);
    // The first example, where there is one: the middle of the prior may be an empty image.
    this.z = [...(facts.z[0] ?? this.center)];
    this.y = facts.y?.[0].map((label) => Math.max(0, label)) ?? this.manifest.data.classes.map(() => 0);
  }

  get manifest(): Manifest {
    return this.model.manifest;
  }

  // Whether latents are real numbers that may be moved along lines.
  get hasLines(): boolean {
    return this.facts.codes === null && this.manifest.graphs.decoder.inputs[0].dtype !== "int64" && this.facts.space === "real";
  }

  set(z: ArrayLike<number>, y?: number[]): void {
    this.z = Array.from(z);
    if (y) this.y = y;
    for (const listener of this.listeners) listener();
    void this.draw();
  }

  onChange(listener: () => void): void {
    this.listeners.push(listener);
  }

  onFrame(listener: (frame: Frame) => void): void {
    this.frameListeners.push(listener);
  }

  // Decodes the newest latents. Those that changed again in the meantime are left out.
  async draw(): Promise<void> {
    this.waiting = true;
    if (this.running) return;
    this.running = true;
    try {
      while (this.waiting) {
        this.waiting = false;
        const [z, y, start] = [this.z, this.y, performance.now()];
        const x = await this.model.decode(z, y);
        const frame = { x, z, y, milliseconds: performance.now() - start };
        for (const listener of this.frameListeners) listener(frame);
      }
    } catch (error) {
      this.onError(error);
    } finally {
      this.running = false;
    }
  }
}

function spread(manifest: Manifest, facts: LatentFacts, latents: number): [number[], number[]] {
  const indices = Array.from({ length: latents }, (_, i) => i);
  if (manifest.prior === "standard-normal" || facts.z.length < 2) return [indices.map(() => 0), indices.map(() => 1)];
  const n = facts.z.length;
  const mean = indices.map((i) => facts.z.reduce((sum, z) => sum + z[i], 0) / n);
  const deviation = indices.map((i) => Math.sqrt(facts.z.reduce((sum, z) => sum + (z[i] - mean[i]) ** 2, 0) / n));
  return [mean, deviation.map((value) => value || 1)];
}

// The order of the latents: by KL, else by how much the codes differ. Those after `active` hold almost nothing.
export function order(explorer: Explorer): { dims: number[]; active: number; kl: (number | null)[] } {
  const { facts, model, scale } = explorer;
  const kl = facts.kl;
  const dims = Array.from({ length: model.latents }, (_, i) => i);
  const weight = (i: number) => kl?.[i] ?? (facts.z.length ? variance(facts.z, i) : scale[i]);
  const weights = dims.map(weight);
  dims.sort((a, b) => weights[b] - weights[a] || a - b);
  const above = kl ? dims.filter((i) => kl[i] > 0.01).length : dims.length;
  return { dims, active: Math.max(1, Math.min(12, above)), kl: dims.map((i) => kl?.[i] ?? null) };
}

function variance(rows: number[][], column: number): number {
  const mean = rows.reduce((sum, row) => sum + row[column], 0) / rows.length;
  return rows.reduce((sum, row) => sum + (row[column] - mean) ** 2, 0) / rows.length;
}

// The name of a latent: its place in the latents' shape, such as z3 or z0,2,1.
export function latentName(index: number, shape: number[]): string {
  const places: number[] = [];
  for (const size of [...shape].reverse()) {
    places.unshift(index % size);
    index = Math.floor(index / size);
  }
  return `z${places.join(",")}`;
}
