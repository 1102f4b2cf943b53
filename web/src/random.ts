// Random numbers that a seed fixes: the generator mulberry32 and the Box-Muller transform. Python's are others.

export type Uniform = () => number;

export function uniform(seed: number): Uniform {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function normal(count: number, random: Uniform): number[] {
  return Array.from({ length: count }, () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()));
}

// One id from logits: the largest of logit + Gumbel noise has the odds of the softmax.
export function drawId(logits: ArrayLike<number>, start: number, count: number, random: Uniform): number {
  let best = 0;
  let largest = -Infinity;
  for (let i = 0; i < count; i++) {
    const value = logits[start + i] - Math.log(-Math.log(random() || 1e-12));
    if (value > largest) [best, largest] = [i, value];
  }
  return best;
}
