// Texts as ids and back, as vaezoo.core.tokenizer does it: id 0 is padding, id 1 ends a text, id 2 may be "unknown".

import { UserError } from "./errors";
import type { Manifest } from "./manifest";
import type { Values } from "./model";

const [PADDING, END, UNKNOWN] = [0, 1, 2];
const PIECES = / ?[!-/:-@[-`{-~]+| ?[^ !-/:-@[-`{-~]+| +/gu; // of a text; byte pairs are merged inside a piece

// Whether a text can be written for the model.
export function takesTexts({ data }: Manifest): boolean {
  return ["characters", "words", "subwords"].includes(data.tokenizer ?? "");
}

export function textOf(ids: Values, { data, autoregressive }: Manifest): string {
  const { symbols, tokenizer } = data;
  const end = symbols[END] === "\n" ? END : (autoregressive?.end_id ?? -1);
  const all = Array.from(ids);
  const until = all.includes(end) ? all.indexOf(end) : all.length;
  const shown = all.slice(0, until).filter((id) => id !== PADDING || symbols[PADDING]);
  const parts = shown.map((id) => symbols[id] ?? String(id));
  if (tokenizer === "subwords") return new TextDecoder().decode(bytesOf(parts.join(""))) || "(empty)";
  return parts.join(tokenizer === "characters" ? "" : " ") || "(empty)";
}

export function toIds(text: string, { data }: Manifest): number[] {
  const { symbols, shape } = data;
  const idOf = new Map(symbols.map((symbol, id) => [symbol, id] as const).filter(([symbol, id]) => symbol && id > END));
  const parts = split(text, data.tokenizer ?? "", idOf);
  const unknown = parts.find((part) => !idOf.has(part));
  if (unknown !== undefined && symbols[UNKNOWN] !== "\ufffd") {
    throw new UserError(`the symbol '${unknown}' has no id`, `use ${[...idOf.keys()].slice(0, 60).join(" ")}`);
  }
  const ids = [...parts.map((part) => idOf.get(part) ?? UNKNOWN), END];
  if (ids.length > shape[0]) throw new UserError(`the text has ${ids.length} ids with its end`, `give at most ${shape[0]}`);
  return [...ids, ...new Array<number>(shape[0] - ids.length).fill(PADDING)];
}

function split(text: string, tokenizer: string, idOf: Map<string, number>): string[] {
  if (tokenizer === "words") return text.split(/[ \t]+/).filter(Boolean);
  if (tokenizer === "subwords") return (text.match(PIECES) ?? []).flatMap((piece) => merged(piece, idOf));
  return [...text];
}

// Merges the neighbours whose union has the smallest id, until no union has one.
function merged(piece: string, idOf: Map<string, number>): string[] {
  const parts = [...new TextEncoder().encode(piece)].map((byte) => BYTE_SYMBOLS[byte]);
  for (;;) {
    const ranks = parts.slice(1).map((part, i) => idOf.get(parts[i] + part) ?? Infinity);
    const best = Math.min(...ranks);
    if (best === Infinity) return parts;
    const at = ranks.indexOf(best);
    parts.splice(at, 2, parts[at] + parts[at + 1]);
  }
}

// A printable character for each byte, those of GPT-2: others than those of Latin-1 are the characters from U+0100 on.
const BYTE_SYMBOLS = byteSymbols();

function byteSymbols(): string[] {
  const isPrintable = (byte: number) => (byte >= 0x21 && byte < 0x7f) || (byte >= 0xa1 && byte < 0xad) || byte >= 0xae;
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : next++));
}

function bytesOf(symbols: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from([...symbols].map((symbol) => BYTE_SYMBOLS.indexOf(symbol)));
}
