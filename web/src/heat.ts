// Which pixels move with a latent: the difference between one standard deviation above and below, over the channels.

import { element, show } from "./dom";
import { type Explorer, type Frame, latentName, order } from "./explorer";
import { kindOf } from "./picture";

const MAX_CHOICES = 64;

export function heat(explorer: Explorer): { node: HTMLElement | null; choose: (dim: number) => void } {
  const { manifest } = explorer;
  if (!explorer.hasLines || kindOf(manifest) !== "image") return { node: null, choose: () => undefined };
  const [, height, width] = manifest.data.shape;
  const canvas = element("canvas", { width, height, class: "image heat", role: "img", "aria-label": "no latent is chosen" });
  const select = element("select", { id: "heat-latent" });
  const { dims } = order(explorer);
  for (const dim of dims.slice(0, MAX_CHOICES)) {
    select.append(element("option", { value: dim }, latentName(dim, manifest.latent_shape)));
  }
  const note = element("p", { class: "note" });
  const details = element("details", { class: "panel" }, element("summary", {}, "Which pixels move with a latent"));
  details.append(element("p", { class: "actions" }, element("label", { for: "heat-latent" }, "Latent"), select), canvas, note);
  let newest = 0;
  const draw = async (frame: Pick<Frame, "z" | "y">) => {
    if (!details.open) return;
    const [dim, mine] = [Number(select.value), ++newest];
    const above = frame.z.with(dim, frame.z[dim] + explorer.scale[dim]);
    const below = frame.z.with(dim, frame.z[dim] - explorer.scale[dim]);
    const x = await explorer.model.decode([...above, ...below], frame.y);
    if (mine !== newest) return;
    const differences = pixelDifferences(Array.from(x), manifest.data.shape, manifest.format.uint8);
    const largest = Math.max(...differences);
    canvas.getContext("2d")!.putImageData(colored(differences, largest, width, height), 0, 0);
    const name = latentName(dim, manifest.latent_shape);
    canvas.setAttribute("aria-label", `pixels that move with ${name}, at most by ${show(100 * largest, 0)} % of the range`);
    note.textContent = `Yellow pixels move by up to ${show(100 * largest, 0)} % of the range, between ${name} one standard deviation up and down.`;
  };
  const redraw = () => void draw(explorer).catch(explorer.onError);
  select.addEventListener("change", redraw);
  details.addEventListener("toggle", redraw);
  explorer.onFrame((frame) => void draw(frame).catch(explorer.onError));
  return { node: details, choose: (dim) => (select.value = String(dim)) };
}

// Two images -> the mean absolute difference of each pixel over the channels, in 0..1.
function pixelDifferences(x: number[], [channels, height, width]: number[], uint8: boolean): number[] {
  const [pixels, size] = [height * width, channels * height * width];
  return Array.from({ length: pixels }, (_, i) => {
    let sum = 0;
    for (let c = 0; c < channels; c++) {
      const at = uint8 ? i * channels + c : c * pixels + i;
      sum += Math.abs(x[at] - x[size + at]);
    }
    return sum / channels / (uint8 ? 255 : 1);
  });
}

// From dark blue over purple and orange to yellow.
function colored(values: number[], largest: number, width: number, height: number): ImageData {
  const image = new ImageData(width, height);
  const stops = [[13, 8, 80], [126, 3, 168], [240, 110, 70], [250, 240, 60]];
  values.forEach((value, i) => {
    const place = largest > 0 ? (value / largest) * (stops.length - 1) : 0;
    const [low, high] = [stops[Math.floor(place)], stops[Math.ceil(place)]];
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = low[c] + (place % 1) * (high[c] - low[c]);
    image.data[4 * i + 3] = 255;
  });
  return image;
}
