// The Python and the JavaScript that make the picture that is shown.

import { button, element } from "./dom";
import type { Explorer } from "./explorer";
import { product } from "./manifest";

// Numbers as programs write them, in any language of the reader. float32 has nine digits at most.
function numbers(values: number[]): string {
  return values.map((value) => (Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(9))))).join(", ");
}

export function python({ manifest, page, z, y, model }: Explorer): string {
  const type = manifest.graphs.decoder.inputs.find((input) => input.name === "z")!.dtype;
  const labelled = model.takesLabels("decoder");
  const label = y.length === 1 ? `[${y[0]}]` : `[[${y.join(", ")}]]`;
  return [
    "import numpy as np",
    "from vaezoo import runtime",
    "",
    `model = runtime.load(${JSON.stringify(page.name)})  # the folder of the export`,
    `z = np.array([${numbers(z)}], np.${type}).reshape(1, ${manifest.latent_shape.join(", ")})`,
    `x = model.decode_latents(z${labelled ? `, y=np.array(${label})` : ""})`,
    "",
  ].join("\n");
}

export function javascript({ manifest, z, y, model }: Explorer): string {
  const { inputs, outputs } = manifest.graphs.decoder;
  const type = inputs.find((input) => input.name === "z")!.dtype;
  const array = type === "int64" ? `BigInt64Array.of(${z.map((value) => `${value}n`).join(", ")})` : `Float32Array.of(${numbers(z)})`;
  const labels = `BigInt64Array.of(${y.map((value) => `${value}n`).join(", ")})`;
  const sizes = y.length === 1 ? "[1]" : `[1, ${y.length}]`;
  return [
    'import * as ort from "onnxruntime-web"; // or onnxruntime-node',
    "",
    'const decoder = await ort.InferenceSession.create("decoder.onnx");',
    `const z = new ort.Tensor("${type}", ${array}, [1, ${manifest.latent_shape.join(", ")}]);`,
    ...(model.takesLabels("decoder") ? [`const y = new ort.Tensor("int64", ${labels}, ${sizes});`] : []),
    `const { ${outputs[0].name}: x } = await decoder.run({ z${model.takesLabels("decoder") ? ", y" : ""} });`,
    `// x.data holds ${product(manifest.data.shape)} values of shape ${manifest.data.shape.join(" x ")}`,
    "",
  ].join("\n");
}

export function snippets(explorer: Explorer): HTMLElement {
  const makers = [["Python", python], ["JavaScript", javascript]] as const;
  const note = element("span", { role: "status" });
  const listing = element("pre", { tabindex: 0, "aria-label": "code that makes this image", hidden: true });
  const isPossible = (name: string) => name === "Python" || explorer.manifest.graphs.decoder.inputs.every(({ name: input }) => input === "z" || input === "y");
  const buttons = makers
    .filter(([name]) => isPossible(name))
    .map(([name, make]) =>
      button(`Copy ${name}`, () => {
        listing.textContent = make(explorer);
        listing.hidden = false;
        // Browsers give the clipboard to secure pages only. The code can be selected below in any case.
        const copied = navigator.clipboard?.writeText(listing.textContent) ?? Promise.reject(new Error("no clipboard"));
        copied.then(
          () => (note.textContent = "copied"),
          () => (note.textContent = "select the code below, and copy it"),
        );
      }),
    );
  explorer.onChange(() => {
    listing.hidden = true;
    note.textContent = "";
  });
  return element("div", {}, element("p", { class: "actions" }, ...buttons, note), listing);
}
