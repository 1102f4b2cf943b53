// How data look on the page: images, lines of text, rows of a table, and curves of other numbers.

import { element, show } from "./dom";
import { type Manifest, product } from "./manifest";
import { categoriesOf, type Values } from "./model";
import { textOf } from "./texts";

export type Kind = "image" | "text" | "table" | "curve";

export function kindOf({ data }: Manifest): Kind {
  if (data.kind === "tokens" && data.shape.length === 1) return "text";
  if (data.kind === "table") return "table";
  return data.shape.length === 3 && [1, 3].includes(data.shape[0]) && data.kind !== "count" ? "image" : "curve";
}

// One image -> its pixels. Floats are (C, H, W) in 0..1, bytes are (H, W, C).
export function toPixels(x: Values, { data, format }: Manifest, row = 0): ImageData {
  const [channels, height, width] = data.shape;
  const start = row * channels * height * width;
  const image = new ImageData(width, height);
  for (let i = 0; i < height * width; i++) {
    for (let c = 0; c < 3; c++) {
      const channel = Math.min(c, channels - 1);
      const at = format.uint8 ? i * channels + channel : channel * height * width + i;
      const value = x[start + at];
      image.data[4 * i + c] = format.uint8 ? value : Math.round(255 * Math.min(1, Math.max(0, value)));
    }
    image.data[4 * i + 3] = 255;
  }
  return image;
}

// An element that shows one example, and is drawn again for another.
export class Picture {
  readonly node: HTMLElement;
  private readonly kind: Kind | "line";

  constructor(
    private readonly manifest: Manifest,
    private readonly name: string,
    properties: Record<string, string> = {},
    isSmall = false, // a row of a table is then one line
  ) {
    const kind = kindOf(manifest);
    this.kind = isSmall && kind === "table" ? "line" : kind;
    if (this.kind === "text" || this.kind === "line") this.node = element("p", { class: "text", ...properties });
    else if (this.kind === "table") this.node = element("table", properties, element("caption", {}, name));
    else this.node = element("canvas", { role: "img", "aria-label": name, class: this.kind, ...properties });
    if (this.node instanceof HTMLCanvasElement) {
      const [, height, width] = manifest.data.shape;
      [this.node.width, this.node.height] = this.kind === "image" ? [width, height] : [300, 150];
    }
  }

  draw(x: Values, row = 0): void {
    const size = product(this.manifest.data.shape);
    const values = x.slice(row * size, (row + 1) * size);
    if (this.kind === "text") this.node.textContent = textOf(values, this.manifest);
    else if (this.kind === "table") this.drawTable(values);
    else if (this.kind === "line") this.node.textContent = Array.from(values, (value, i) => cellOf(value, i, this.manifest)).join(" · ");
    else if (this.kind === "image") this.context().putImageData(toPixels(values, this.manifest), 0, 0);
    else this.drawCurve(values);
  }

  private context(): CanvasRenderingContext2D {
    return (this.node as HTMLCanvasElement).getContext("2d")!;
  }

  private drawTable(values: Values): void {
    const cells = columnNames(this.manifest).map((name, i) =>
      element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, cellOf(values[i], i, this.manifest))),
    );
    this.node.replaceChildren(element("caption", {}, this.name), element("tbody", {}, ...cells));
  }

  // A curve for each channel of a series, and one for other numbers.
  private drawCurve(values: Values): void {
    const canvas = this.node as HTMLCanvasElement;
    const context = this.context();
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const y = (value: number) => canvas.height - 5 - ((value - low) / (high - low || 1)) * (canvas.height - 10);
    const { shape } = this.manifest.data;
    const channels = shape.length === 2 ? shape[0] : 1;
    const steps = values.length / channels;
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.lineWidth = 2;
    for (let channel = 0; channel < channels; channel++) {
      context.strokeStyle = channels === 1 ? getComputedStyle(canvas).color : `hsl(${(channel * 137.5) % 360} 70% 50%)`;
      context.beginPath();
      for (let i = 0; i < steps; i++) {
        context.lineTo((i / Math.max(1, steps - 1)) * canvas.width, y(values[channel * steps + i]));
      }
      context.stroke();
    }
    canvas.setAttribute("aria-label", `${this.name}: ${values.length} values from ${show(low)} to ${show(high)}`);
  }
}

function columnNames({ data }: Manifest): string[] {
  return data.column_names?.length ? data.column_names : data.columns.map((column) => column.slice(0, column.lastIndexOf(":")));
}

// A cell as the data have it: the name of a category, a date, or a number in the units of the data.
function cellOf(value: number, column: number, { data }: Manifest): string {
  if (Number.isNaN(value)) return "missing";
  if (categoriesOf(data.columns[column])) return data.categories?.[column]?.[value] ?? show(value, 0);
  const [offset, factor] = [data.offset?.[column] ?? 0, data.factor?.[column] ?? 1];
  const [kind, detail] = (data.column_formats?.[column] ?? "").split(/:(.*)/s);
  const number = value * factor + offset;
  if (kind === "date") return dateOf(number, /%[HMS]/.test(detail));
  return show(number, kind === "integer" ? 0 : detail ? Number(detail) : 2);
}

function dateOf(days: number, hasTime: boolean): string {
  const day = { timeZone: "UTC", year: "numeric", month: "2-digit", day: "2-digit" } as const;
  const format = hasTime ? { ...day, hour: "2-digit", minute: "2-digit" } as const : day;
  return new Intl.DateTimeFormat(undefined, format).format((hasTime ? days : Math.round(days)) * 86_400_000);
}
