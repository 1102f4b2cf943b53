// The latent explorer: loads an export, and puts the panels together that its content allows.

import { interpolation } from "./between";
import { element, panel, say, show } from "./dom";
import { openEngine } from "./engine";
import { firstLine, UserError } from "./errors";
import { Explorer, type Examples } from "./explorer";
import { read } from "./hash";
import { heat } from "./heat";
import { input } from "./input";
import { labels } from "./labels";
import { map } from "./map";
import { type Manifest, type PageFacts, readLatents, readManifest, readPageFacts } from "./manifest";
import { Model } from "./model";
import { paint } from "./paint";
import { kindOf, Picture } from "./picture";
import { samples } from "./samples";
import { attributes, sliders } from "./sliders";
import { snippets } from "./snippets";

async function main(): Promise<void> {
  if (location.protocol === "file:") {
    throw new UserError("browsers do not run models of a page that is opened as a file", "serve the folder: vaezoo explore EXPORT --serve");
  }
  if (typeof WebAssembly === "undefined") throw new UserError("this browser has no WebAssembly", "use a current browser");
  const [manifest, page] = await Promise.all([readManifest(), readPageFacts()]);
  describe(manifest, page);
  const [facts, engine, examples] = await Promise.all([readLatents(manifest), openEngine(page), readExamples(page)]);
  const model = new Model(engine, manifest);
  await model.open("decoder");
  const explorer = new Explorer(model, facts, page, examples);
  explorer.onError = fail;
  await build(explorer);
}

function describe({ model, data, latent_shape }: Manifest, page: PageFacts): void {
  document.title = `${page.name} · latent explorer`;
  const name = model.slice(model.lastIndexOf("/") + 1);
  const about = document.getElementById("about");
  if (about) about.textContent = `${page.name}: ${name}, trained on ${data.name}. Latents: ${latent_shape.join(" × ")}.`;
}

async function readExamples({ examples }: PageFacts): Promise<Examples | null> {
  if (!examples) return null;
  const data = await read("examples.bin", examples);
  const { dtype, count } = examples;
  if (dtype === "int64") return { x: Array.from(new BigInt64Array(data.buffer), Number), count };
  return { x: dtype === "uint8" ? data : new Float32Array(data.buffer), count };
}

async function build(explorer: Explorer): Promise<void> {
  const moved = heat(explorer);
  const [drawn, line, plane] = [samples(explorer), interpolation(explorer), map(explorer)];
  const picture = current(explorer);
  const latents = explorer.hasLines ? sliders(explorer, moved.choose) : noLines(explorer);
  const left = [picture, labels(explorer), moved.node];
  const right = [plane.node, latents, paint(explorer), attributes(explorer), input(explorer), line.node, drawn.node];
  const columns = element("div", { class: "columns" }, column("first", left), column("second", right));
  document.querySelector("main")?.append(columns);
  await explorer.draw();
  say("");
  document.body.dataset.ready = "true";
  await drawn.draw();
  await line.prepare();
  await plane.prepare();
  if (explorer.model.has("encoder")) await explorer.model.open("encoder");
  document.body.dataset.complete = "true";
}

function column(name: string, nodes: (HTMLElement | null)[]): HTMLElement {
  return element("div", { class: `column ${name}` }, ...nodes.filter((node) => node !== null));
}

// The picture of the latents, with the time of its frame.
function current(explorer: Explorer): HTMLElement {
  const title = { image: "Image", text: "Text", table: "Row", curve: "Curve" }[kindOf(explorer.manifest)];
  const picture = new Picture(explorer.manifest, `${title.toLowerCase()} of the latents`, { id: "picture" });
  const time = element("p", { class: "note", id: "frame" });
  let frames = 0; // tells programs that the picture is new
  explorer.onFrame(({ x, milliseconds }) => {
    picture.draw(x);
    picture.node.dataset.frames = String(++frames);
    time.textContent = `${show(milliseconds, 1)} ms, ${explorer.model.engine.label}`;
  });
  const about = element("div", {}, time, snippets(explorer));
  const node = panel(title, element("div", { class: "shown" }, element("div", { class: "large" }, picture.node), about));
  node.classList.add("current");
  return node;
}

function noLines({ facts, manifest }: Explorer): HTMLElement | null {
  if (facts.codes !== null || manifest.graphs.decoder.inputs[0].dtype === "int64") return null;
  const text = `The latents lie in the space '${facts.space}'. Sliders would leave it, so choose samples and examples.`;
  return panel("Latents", element("p", { class: "note" }, text));
}

function fail(error: unknown): void {
  const [message, hint] = error instanceof UserError ? [error.message, error.hint] : [firstLine(error), "load the page again, and report this if it stays"];
  say("");
  document.querySelector("main > .error")?.remove();
  document.querySelector("main")?.prepend(element("div", { class: "error", role: "alert" }, element("p", {}, element("strong", {}, message)), element("p", {}, hint)));
}

main().catch(fail);
