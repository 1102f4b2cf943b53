// onnxruntime-web: WebGPU where the browser and this copy of the runtime have it, else WASM with SIMD.

import type * as Ort from "onnxruntime-web";
import { firstLine, UserError } from "./errors";
import { read } from "./hash";
import type { Manifest, PageFacts } from "./manifest";

export type Runtime = typeof Ort;
const MAX_THREADS = 4; // the graphs are small, and more threads wait for each other

export interface Engine {
  ort: Runtime;
  providers: string[];
  label: string;
}

interface Adapter {
  info?: { isFallbackAdapter?: boolean };
}

// A GPU, or null. An adapter that computes on the CPU is slower than WASM.
async function gpuAdapter(): Promise<Adapter | null> {
  const gpu = (navigator as { gpu?: { requestAdapter(): Promise<Adapter | null> } }).gpu;
  const adapter = gpu ? await gpu.requestAdapter().catch(() => null) : null;
  return adapter?.info?.isFallbackAdapter ? null : adapter;
}

export async function openEngine({ runtime, webgpu }: PageFacts): Promise<Engine> {
  const adapter = webgpu ? await gpuAdapter() : null;
  const folder = new URL(runtime, document.baseURI).href;
  let ort: Runtime;
  try {
    ort = (await import(`${folder}${adapter ? "ort.webgpu.min.mjs" : "ort.wasm.min.mjs"}`)) as Runtime;
  } catch (error) {
    throw new UserError(`onnxruntime-web cannot be loaded: ${firstLine(error)}`, "run 'vaezoo explore' again");
  }
  ort.env.wasm.wasmPaths = folder;
  ort.env.logLevel = "error";
  const threads = crossOriginIsolated ? Math.min(MAX_THREADS, navigator.hardwareConcurrency || 1) : 1;
  ort.env.wasm.numThreads = threads;
  const wasm = `WASM with SIMD, ${threads} ${threads === 1 ? "thread" : "threads"}`;
  return { ort, providers: adapter ? ["webgpu", "wasm"] : ["wasm"], label: adapter ? "WebGPU" : wasm };
}

export async function openGraph(engine: Engine, manifest: Manifest, name: string): Promise<Ort.InferenceSession> {
  const file = `${name}.onnx`;
  const data = await read(file, manifest.files[file]);
  try {
    return await engine.ort.InferenceSession.create(data, { executionProviders: engine.providers, logSeverityLevel: 3 });
  } catch (error) {
    throw cannotRun(file, error);
  }
}

// The errors of ONNX Runtime name the operator in one of three forms.
function cannotRun(file: string, error: unknown): UserError {
  const text = String(error instanceof Error ? error.message : error);
  const operator = /(?:implementation|No Op registered) for ([\w.:]+)|([\w.:]+)(?:\(-?\d+\))? is not a registered/.exec(text);
  const name = operator?.[1] ?? operator?.[2];
  if (name) {
    return new UserError(
      `${file} has the operator ${name}, which a browser cannot run`,
      "use 'vaezoo sample' or vaezoo.runtime, which run it",
    );
  }
  if (/memory|allocat/i.test(text)) {
    return new UserError(`${file} needs more memory than the browser gives`, "close other pages, or export with --dtype fp16");
  }
  return new UserError(`${file} cannot be loaded: ${firstLine(text.replace(/.*ERROR_MESSAGE: /s, ""))}`, "check it with 'vaezoo verify'");
}
