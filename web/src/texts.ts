// Texts as ids and back, as vaezoo.data.text does it: id 0 is padding, id 1 ends a text of letters.

import { UserError } from "./errors";
import type { Manifest } from "./manifest";
import type { Values } from "./model";

const [PADDING, END] = [0, 1];

// Whether ids are letters. Other ids, such as words, stand apart.
export function isLetters({ data }: Manifest): boolean {
  return data.symbols[END] === "\n" && data.symbols.slice(END + 1).every((symbol) => [...symbol].length === 1);
}

export function textOf(ids: Values, manifest: Manifest): string {
  const { symbols } = manifest.data;
  const end = isLetters(manifest) ? END : (manifest.autoregressive?.end_id ?? null);
  const until = end === null ? -1 : Array.from(ids).indexOf(end);
  const shown = Array.from(ids.slice(0, until < 0 ? ids.length : until)).filter((id) => id !== PADDING);
  return shown.map((id) => symbols[id] ?? String(id)).join(isLetters(manifest) ? "" : " ") || "(empty)";
}

export function toIds(text: string, manifest: Manifest): number[] {
  const { symbols, shape } = manifest.data;
  const letters = [...text];
  const unknown = letters.find((letter) => symbols.indexOf(letter) <= END);
  if (unknown !== undefined) {
    throw new UserError(`the letter '${unknown}' has no id`, `use letters of ${symbols.slice(END + 1).join("")}`);
  }
  if (letters.length >= shape[0]) throw new UserError(`there are ${letters.length} letters`, `give at most ${shape[0] - 1}`);
  const ids = [...letters.map((letter) => symbols.indexOf(letter)), END];
  return [...ids, ...new Array<number>(shape[0] - ids.length).fill(PADDING)];
}
