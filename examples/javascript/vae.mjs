// An export of vaezoo in JavaScript, for Node and for the web: encode, decode, sample.
//
// `ort` is onnxruntime-node or onnxruntime-web. `read(name)` returns a file of the export as a Uint8Array, or undefined
// if there is none. Graphs whose files are not there are left out: a decoder works without the encoder.

export async function loadVAE(ort, read) {
  const file = await read("manifest.json");
  if (!file) throw new Error("there is no manifest.json: give the folder of an export");
  const manifest = parse(file);
  if (manifest.format.uint8) throw new Error("the graphs take and give bytes: export without --uint8");
  const sessions = {};
  for (const name of Object.keys(manifest.graphs)) {
    const graph = await read(`${name}.onnx`);
    if (!graph) continue;
    try {
      sessions[name] = await ort.InferenceSession.create(graph);
    } catch (error) {
      throw new Error(`${name}.onnx cannot be loaded: ${firstLine(error)}`);
    }
  }
  if (!Object.keys(sessions).length) throw new Error("the export has no .onnx file: copy it, or export again");
  return new VAE(ort, manifest, sessions);
}

function parse(file) {
  let manifest;
  try {
    manifest = JSON.parse(new TextDecoder().decode(file));
  } catch {}
  if (!manifest?.graphs || !manifest.format || !manifest.data) throw new Error("manifest.json is not that of an export");
  return manifest;
}

export function firstLine(error) {
  return String(error?.message ?? error).split("\n")[0];
}

export class VAE {
  constructor(ort, manifest, sessions) {
    Object.assign(this, { ort, manifest, sessions });
  }

  // The shape of one example and of one latent.
  get shape() {
    return this.manifest.data.shape;
  }
  get latentShape() {
    return this.manifest.latent_shape;
  }

  // Runs a graph. The inputs are flat arrays, one row after another. Returns the outputs by name, likewise.
  async run(graph, inputs) {
    if (!this.sessions[graph]) throw new Error(`the ${graph} is not there: copy ${graph}.onnx, or export it too`);
    const feeds = {};
    for (const { name, dtype, shape } of this.manifest.graphs[graph].inputs) {
      if (inputs[name] === undefined) throw new Error(`the ${graph} needs ${name}, which is not given`);
      const sizes = shape.slice(1);
      if (name === "y") this.checkLabels(inputs.y);
      const rows = inputs[name].length / sizes.reduce((a, b) => a * b, 1);
      if (!Number.isInteger(rows)) throw new Error(`${name} does not consist of rows of shape ${sizes}`);
      feeds[name] = new this.ort.Tensor(dtype, arrayOf(dtype, inputs[name]), [rows, ...sizes]);
    }
    let outputs;
    try {
      outputs = await this.sessions[graph].run(feeds);
    } catch (error) {
      throw new Error(`the ${graph} cannot run: ${firstLine(error)}`);
    }
    return Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, tensor.data]));
  }

  get takesLabels() {
    return Object.values(this.manifest.graphs).some(({ inputs }) => inputs.some(({ name }) => name === "y"));
  }

  // Labels are whole numbers, for each of the model's factors below its number of classes.
  checkLabels(y) {
    const { classes } = this.manifest.data;
    for (let i = 0; i < y.length; i++) {
      const k = classes[i % classes.length];
      if (!Number.isInteger(Number(y[i])) || y[i] < 0 || y[i] >= k) throw new Error(`label ${y[i]} is not one of 0 to ${k - 1}`);
    }
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
    if (!Number.isInteger(n) || n < 1) throw new Error(`the count is ${n}, not a whole number of at least 1`);
    if (!Number.isInteger(seed)) throw new Error(`the seed is ${seed}, not a whole number`);
    if (y !== undefined && !this.takesLabels) throw new Error("the model takes no labels");
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
