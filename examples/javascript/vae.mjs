// An export of vaezoo in JavaScript, for Node and for the web: encode, decode, sample.
//
// `ort` is onnxruntime-node or onnxruntime-web. `read(name)` returns a file of the export as a Uint8Array.

export async function loadVAE(ort, read) {
  const manifest = JSON.parse(new TextDecoder().decode(await read("manifest.json")));
  if (manifest.format.uint8) throw new Error("the graphs take and give bytes: export without --uint8");
  const sessions = {};
  for (const name of Object.keys(manifest.graphs)) {
    sessions[name] = await ort.InferenceSession.create(await read(`${name}.onnx`));
  }
  return new VAE(ort, manifest, sessions);
}

export class VAE {
  constructor(ort, manifest, sessions) {
    Object.assign(this, { ort, manifest, sessions });
  }

  // The shape of one example and of one latent.
  get shape() {
    const { encoder, decoder } = this.manifest.graphs;
    const x = encoder?.inputs.find((tensor) => tensor.name === "x") ?? decoder.outputs[0];
    return x.shape.slice(1);
  }
  get latentShape() {
    return this.manifest.latent_shape;
  }

  // Runs a graph. The inputs are flat arrays, one row after another. Returns the outputs by name, likewise.
  async run(graph, inputs) {
    const feeds = {};
    for (const { name, dtype, shape } of this.manifest.graphs[graph].inputs) {
      if (inputs[name] === undefined) throw new Error(`the ${graph} needs ${name}`);
      const sizes = shape.slice(1);
      const rows = inputs[name].length / sizes.reduce((a, b) => a * b, 1);
      if (!Number.isInteger(rows)) throw new Error(`${name} does not consist of rows of shape ${sizes}`);
      feeds[name] = new this.ort.Tensor(dtype, arrayOf(dtype, inputs[name]), [rows, ...sizes]);
    }
    const outputs = await this.sessions[graph].run(feeds);
    return Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, tensor.data]));
  }

  // Examples -> the fields of q(z|x) by name, such as mu and logvar.
  encode(x, y) {
    return this.run("encoder", { x, y });
  }

  // Latents -> the mean of p(x|z).
  async decode(z, y) {
    const outputs = await this.run("decoder", { z, y });
    return outputs[this.manifest.graphs.decoder.outputs[0].name];
  }

  // n examples of the prior. The seed fixes the result, which is not that of the same seed in Python.
  async sample(n, seed = 0, y = undefined) {
    if (this.manifest.prior === "graph") {
      const sizes = this.manifest.graphs.prior.inputs[0].shape.slice(1);
      const noise = normal(n * sizes.reduce((a, b) => a * b, 1), seed);
      return this.decode((await this.run("prior", { noise, y })).z, y);
    }
    if (this.manifest.prior !== "standard-normal") throw new Error("the prior is not part of this export");
    return this.decode(normal(n * this.latentShape.reduce((a, b) => a * b, 1), seed), y);
  }
}

function arrayOf(dtype, values) {
  if (dtype === "int64") return BigInt64Array.from(values, BigInt);
  return dtype === "uint8" ? Uint8Array.from(values) : Float32Array.from(values);
}

// Standard normal noise: the generator mulberry32 and the Box-Muller transform.
export function normal(count, seed) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return Float32Array.from({ length: count }, () =>
    Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()),
  );
}
