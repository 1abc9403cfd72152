// What is left of momentum when the step is matched: descent.theory.matched, in heavy-ball units; σ², s₁² of one example.
import { edge, outside } from "./geometry.mjs";
import { race } from "./margins.mjs";
import { growth, hovering, variances } from "./mode.mjs";

const SPECTRUM = Array.from({ length: 20 }, (_, i) => (i + 1) ** -0.5);
const [RACE_STEPS, SOUND] = [2000, 2];

// The rule with momentum and the plain SGD it is compared with.
export function arms({ lr, momentum, batch, held }) {
  const way = Math.round(held);
  const share = way === 2 ? (1 - momentum) / (1 + momentum) : 1;
  return [{ lr: way ? lr * (1 - momentum) : lr, momentum, batch: batch * share }, { lr, momentum: 0, batch }];
}

// The mean-square load s²/K(h, h) of the sharp direction; without noise the mode hovers at 1/K.
const load = (arm, state) => (state.multiplicative / arm.batch) * hovering(state.curvature, arm.lr, arm.momentum);

export function badges(state) {
  const [own] = arms(state);
  const step = (own.lr / (1 - own.momentum)) * state.curvature;
  const crossover = (state.multiplicative / state.curvature ** 2) * ((1 + own.momentum) / (1 - own.momentum));
  return [step, step / (1 - own.momentum), own.batch / crossover, load(own, state)];
}

// Logarithms of the seven quantities of one rule: infinite where it diverges, NaN where a law does not hold.
function quantities(arm, state, raw) {
  const [limit, flat] = [logEdge(arm, state, raw), logFlat(arm)];
  const filled = load(arm, state);
  if (!(filled < 1)) return [Infinity, limit, Infinity, Infinity, Infinity, flat, Infinity];
  const noise = state.sigma ** 2 / arm.batch;
  const floor = (noise * hovering(state.curvature, arm.lr, arm.momentum)) / (1 - filled);
  const power = (noise + (state.multiplicative / arm.batch) * floor) * directionNoise(arm, state.curvature, raw);
  return [Math.log(power), limit, logEscape(arm, state.instability, noise), Math.log(floor), logFeature(arm), flat,
    logBarrier(arm, state.instability, noise)];
}

// Noise of the direction in units of that of the gradient: v itself, or (1 − μ)v.
function directionNoise({ lr, momentum }, h, raw) {
  const v = (2 - lr * h * (1 - momentum)) / ((1 - momentum) * (2 * (1 + momentum) - lr * h));
  const z = (lr * h) / (1 - momentum);
  return raw ? v : (2 * (1 - momentum) + z * (3 * momentum - 1)) / (2 * (1 + momentum) - z * (1 - momentum));
}

function logEdge({ momentum, batch }, { curvature, multiplicative }, raw) {
  const spread = ((1 + momentum) / (1 - momentum)) * (multiplicative / batch);
  const limit = (2 * curvature * (1 + momentum)) / (curvature ** 2 + spread);
  return Math.log(raw ? limit : limit / (1 - momentum));
}

// Loss outside the sharpest direction over loss along it at the edge, where a mode's share is ∝ λ/(2(1 + μ) − ηλ).
function logFlat({ momentum, batch }) {
  const lr = edge(SPECTRUM, momentum, batch);
  return Math.log(outside(SPECTRUM.map((h) => ({ h, now: 1 / (2 * (1 + momentum) - lr * h) })), 1));
}

function logFeature({ lr, momentum }) {
  return 3 * Math.log(race({ lr: lr / (1 - momentum), momentum, steps: RACE_STEPS }).s[RACE_STEPS]);
}

// Σ P(T > k) from rest on the saddle to distance one; late terms are a geometric series of ratio 1/z₊.
function logEscape({ lr, momentum }, instability, noise) {
  const g = growth(instability, lr, momentum);
  const level = ((1 - momentum * Math.exp(-2 * g)) * Math.sqrt(Math.expm1(2 * g))) / (lr * Math.sqrt(noise));
  if (level < SOUND) return NaN;
  const last = Math.ceil(Math.log(1e3 * level) / g) + 1;
  const reach = variances(-instability, lr, momentum, last).map((variance) => 1 / Math.sqrt(2 * noise * variance));
  const early = reach.slice(0, last).reduce((total, x) => total + erf(x), 0);
  return Math.log(early + (2 / Math.sqrt(Math.PI)) * (reach[last] / -Math.expm1(-g)));
}

function erf(x) {
  if (x > 6) return 1;
  let [term, total] = [x, x];
  for (let n = 3; term > 1e-17 * total; n += 2) {
    term *= (2 * x * x) / n;
    total += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * total;
}

// Kramers in the double well b(x² − 1)²/4: its barrier b/4 must exceed the temperature, and its wells hold the step.
function logBarrier({ lr, momentum }, b, noise) {
  const temperature = ((lr / (1 - momentum)) * noise) / 2;
  if (b / 4 < temperature || 2 * b * lr >= 2 * (1 + momentum)) return NaN;
  return Math.log(2 * Math.PI) + b / 4 / temperature - Math.log(Math.SQRT2 * growth(b, lr, momentum));
}

// A gauge is {state, log}: the log ratio where there is one; state 1 control undefined, 2 momentum diverges, 3 no law.
export function gauges(state) {
  const [own, control] = arms(state).map((arm) => quantities(arm, state, Math.round(state.held) === 0));
  return own.map((value, i) => {
    const why = control[i] === Infinity ? 1 : value === Infinity ? 2 : Number.isNaN(value + control[i]) ? 3 : 0;
    return { state: why, log: why ? NaN : value - control[i] };
  });
}
