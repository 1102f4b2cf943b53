// The files that describe an export: manifest.json, latents.json, and explore.json, which `vaezoo explore` writes.

import { UserError } from "./errors";
import { read } from "./hash";

export interface Signature {
  name: string;
  dtype: string;
  shape: (number | string)[];
}

export interface Manifest {
  model: string;
  data: {
    name: string;
    shape: number[];
    kind: string;
    classes: number[];
    vocabulary: number;
    columns: string[];
    symbols: string[];
    tokenizer?: string;
    class_names?: string[];
    column_names?: string[];
    column_formats?: string[];
    categories?: string[][];
    offset?: number[];
    factor?: number[];
  };
  latent_shape: number[];
  prior: string | null;
  autoregressive: { length: number; end_id: number | null } | null;
  mode: string;
  format: { uint8: boolean };
  graphs: Record<string, { inputs: Signature[]; outputs: Signature[] }>;
  files: Record<string, { bytes: number; sha256: string }>;
}

export interface Attribute {
  factor: number;
  label: number;
  direction: number[];
}

// What is known of the latents. An export without examples, or of an earlier version, has no latents.json.
export interface LatentFacts {
  space: string;
  codes: number | null;
  kl: number[] | null;
  z: number[][];
  y: number[][] | null;
  attributes: Attribute[];
}

export interface PageFacts {
  name: string;
  runtime: string; // the folder of onnxruntime-web, relative to the page
  webgpu: boolean;
  examples: { dtype: string; count: number; sha256: string; bytes: number } | null;
}

const NOTHING_KNOWN: LatentFacts = { space: "real", codes: null, kl: null, z: [], y: null, attributes: [] };

async function readJson(name: string, expected?: { bytes: number; sha256: string }): Promise<unknown> {
  const data = await read(name, expected);
  try {
    return JSON.parse(new TextDecoder().decode(data));
  } catch {
    throw new UserError(`${name} is damaged: it is not JSON`, "run 'vaezoo explore' again");
  }
}

export async function readManifest(): Promise<Manifest> {
  const manifest = (await readJson("manifest.json")) as Manifest;
  if (!manifest?.graphs?.decoder || !manifest.files || !manifest.data) {
    throw new UserError("manifest.json is not that of an export with a decoder", "run 'vaezoo explore' again");
  }
  return manifest;
}

export async function readPageFacts(): Promise<PageFacts> {
  return (await readJson("explore.json")) as PageFacts;
}

export async function readLatents(manifest: Manifest): Promise<LatentFacts> {
  const entry = manifest.files["latents.json"];
  return entry ? ((await readJson("latents.json", entry)) as LatentFacts) : NOTHING_KNOWN;
}

export function product(sizes: number[]): number {
  return sizes.reduce((a, b) => a * b, 1);
}
