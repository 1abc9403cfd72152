// Linear rules on ½(uv − 1)², as descent.theory.drift.uv_path walks them: its minima are uv = 1, of sharpness u² + v².
import { normals } from "./explorer.mjs";
import { delay } from "./valley.mjs";

// Weights of the gradients of ages 0, 1, … over the step; after the last they go on geometrically.
function memory({ kind, momentum }) {
  if (kind === 2) return [[...Array(delay(momentum)).fill(0), 1], 0];
  return kind === 1 ? [[1 - momentum ** 2, momentum ** 2 * (1 - momentum)], momentum] : [[1 - momentum], momentum];
}

export const [STEPS, DRAWS] = [4000, 32];
const GONE = 1e3;
const SETTLED = 1e-12;

// A path on ½(uv − 1)² from rest, with a batch's weight at every step; it ends where it settles or leaves.
export function path(rule, start, step, steps = STEPS, weight = () => 1) {
  const [[...heads], tail] = memory(rule);
  const [last, lag] = [heads.pop(), heads.length];
  let [u, v] = start;
  let [pu, pv, quiet] = [0, 0, 0];
  const [us, vs, gu, gv] = [[u], [v], [], []];
  for (let t = 0; t < steps && inside(u, v) && quiet <= lag; t += 1) {
    const r = (u * v - 1) * weight(t);
    gu.push(r * v);
    gv.push(r * u);
    pu = tail * pu + last * (t < lag ? 0 : gu[t - lag]);
    pv = tail * pv + last * (t < lag ? 0 : gv[t - lag]);
    let [du, dv] = [pu, pv];
    for (let age = 0; age < Math.min(lag, t + 1); age += 1) {
      if (!heads[age]) continue;
      du += heads[age] * gu[t - age];
      dv += heads[age] * gv[t - age];
    }
    u -= step * du;
    v -= step * dv;
    us.push(u);
    vs.push(v);
    quiet = Math.abs(u * v - 1) + Math.abs(du) + Math.abs(dv) < SETTLED ? quiet + 1 : 0;
  }
  return { us, vs, left: !inside(u, v), settled: Math.abs(u * v - 1) < 1e-3, sharpness: u * u + v * v };
}

const inside = (u, v) => Math.abs(u) < GONE && Math.abs(v) < GONE;

// Sharpness of the minimum that gradient flow finds: it conserves u² − v².
export const flow = ([u, v]) => Math.hypot(u * u - v * v, 2);

// Both rules on the same draws of batches, every [rule, step] of them, and the mean of log sharpness where runs settle.
let known = {};
export function runs(rules, start, batch) {
  const key = JSON.stringify([rules, start, batch]);
  if (known.key === key) return known.arms;
  const random = normals(1);
  const pairs = Array.from({ length: batch < Infinity ? DRAWS : 1 }, () => {
    const drawn = [];
    const weight = batch < Infinity ? (t) => (drawn[t] ??= gamma(random, batch / 2) / (batch / 2)) : undefined;
    return rules.map(([rule, step]) => path(rule, start, step, STEPS, weight));
  });
  const arms = rules.map((_, arm) => {
    const all = pairs.map((pair) => pair[arm]);
    const ends = all.filter((run) => run.settled).map((run) => run.sharpness);
    return { all, ends, mean: Math.exp(ends.reduce((total, value) => total + Math.log(value), 0) / ends.length) };
  });
  known = { key, arms };
  return arms;
}

// Marsaglia and Tsang's rejection for a gamma number; a batch of B squared normals has the shape B/2.
function gamma(random, shape) {
  if (shape < 1) return gamma(random, shape + 1) * random.uniform() ** (1 / shape);
  const d = shape - 1 / 3;
  for (;;) {
    const x = random();
    const v = (1 + x / Math.sqrt(9 * d)) ** 3;
    if (v > 0 && Math.log(1 - random.uniform()) < x * x / 2 + d * (1 - v + Math.log(v))) return d * v;
  }
}
