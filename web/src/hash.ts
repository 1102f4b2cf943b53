// SHA-256. Browsers offer it on https and localhost only. Elsewhere, as on an intranet, `digest` computes it itself.

import { UserError } from "./errors";

export async function sha256(data: Uint8Array<ArrayBuffer>): Promise<string> {
  const bytes = crypto.subtle ? new Uint8Array(await crypto.subtle.digest("SHA-256", data)) : digest(data);
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// A file of the page, which must be the one that was exported.
export async function read(name: string, expected?: { bytes: number; sha256: string }): Promise<Uint8Array<ArrayBuffer>> {
  let response: Response;
  try {
    response = await fetch(name);
  } catch {
    throw new UserError(`${name} cannot be read`, "check that the server still runs, and load the page again");
  }
  if (!response.ok) throw new UserError(`${name} is missing`, "run 'vaezoo explore' again");
  const data = new Uint8Array(await response.arrayBuffer());
  if (expected && (data.length !== expected.bytes || (await sha256(data)) !== expected.sha256)) {
    throw new UserError(`${name} is damaged: it is not the file that was exported`, "run 'vaezoo explore' again");
  }
  return data;
}

// FIPS 180-4. The constants are the fractions of the roots of the first primes.
export function digest(data: Uint8Array): Uint8Array {
  const primes = firstPrimes(64);
  const fraction = (x: number) => Math.floor((x - Math.floor(x)) * 2 ** 32) | 0;
  const k = primes.map((p) => fraction(Math.cbrt(p)));
  const state = primes.slice(0, 8).map((p) => fraction(Math.sqrt(p)));
  const length = Math.ceil((data.length + 9) / 64) * 64;
  const padded = new Uint8Array(length);
  padded.set(data);
  padded[data.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(length - 8, Math.floor(data.length / 2 ** 29));
  view.setUint32(length - 4, (data.length << 3) >>> 0);
  const w = new Int32Array(64);
  for (let start = 0; start < length; start += 64) compress(state, k, w, view, start);
  const out = new DataView(new ArrayBuffer(32));
  state.forEach((word, i) => out.setInt32(4 * i, word));
  return new Uint8Array(out.buffer);
}

function firstPrimes(count: number): number[] {
  const primes: number[] = [];
  for (let n = 2; primes.length < count; n++) if (primes.every((p) => n % p)) primes.push(n);
  return primes;
}

function compress(state: number[], k: number[], w: Int32Array, view: DataView, start: number): void {
  const turn = (x: number, n: number) => (x >>> n) | (x << (32 - n));
  for (let i = 0; i < 16; i++) w[i] = view.getInt32(start + 4 * i);
  for (let i = 16; i < 64; i++) {
    const [a, b] = [w[i - 15], w[i - 2]];
    w[i] = w[i - 16] + (turn(a, 7) ^ turn(a, 18) ^ (a >>> 3)) + w[i - 7] + (turn(b, 17) ^ turn(b, 19) ^ (b >>> 10));
  }
  let [a, b, c, d, e, f, g, h] = state;
  for (let i = 0; i < 64; i++) {
    const first = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + k[i] + w[i]) | 0;
    const second = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + first) | 0, c, b, a, (first + second) | 0];
  }
  [a, b, c, d, e, f, g, h].forEach((word, i) => (state[i] = (state[i] + word) | 0));
}
