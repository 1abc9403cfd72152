// Which minima hold a run? Step against batch, with weights of mean 1 and variance σ² (Gamma) on a parabola of curvature
// one: the exact thresholds of descent.theory.mode, weights and exponents, and a cloud of runs at the chosen point.
import { mount } from "./explorer.mjs";

const REPLICAS = 300;
const STEPS = 150;
const NEAR = 1e-3;
const SIZES = Array.from({ length: 11 }, (_, i) => 2 ** i);
const BATCHES = Array.from({ length: 25 }, (_, i) => 10 ** (i / 8));

// Double exponential rule on (0, 1), dense at both ends.
const RULE = Array.from({ length: 225 }, (_, i) => {
  const t = (i - 112) / 32;
  const [u, left] = [1 / (1 + Math.exp(-Math.PI * Math.sinh(t))), 1 / (1 + Math.exp(Math.PI * Math.sinh(t)))];
  return [u, (Math.PI * Math.cosh(t) * u * left) / 32];
});

function logGamma(value) {
  let [x, shift] = [value, 0];
  for (; x < 12; x += 1) shift -= Math.log(x);
  const r = 1 / (x * x);
  return shift + (x - 0.5) * Math.log(x) - x + 0.9189385332046727
    + (1 / 12 - r * (1 / 360 - r * (1 / 1260 - r * (1 / 1680 - r / 1188)))) / x;
}

// Where the density of log w̄ has fallen by e^−75 from its peak at 0, on one side.
function end(shape, side) {
  let [inside, outside] = [0, side];
  const seen = (x) => shape * (x - Math.expm1(x)) > -75;
  while (seen(outside)) outside *= 2;
  for (let i = 0; i < 60; i += 1) {
    const middle = (inside + outside) / 2;
    [inside, outside] = seen(middle) ? [middle, outside] : [inside, middle];
  }
  return outside;
}

// Mean of f(log|1 − lr·w̄|) over the mean weight of a batch: the integral over log w̄, both ways from the zero.
function average(lr, batch, variance, f) {
  const shape = batch / variance;
  const [low, high] = [end(shape, -1), end(shape, 1)];
  const middle = Math.min(Math.max(-Math.log(lr), low), high);
  const norm = shape * Math.log(shape) - logGamma(shape);
  let sum = 0;
  for (const side of [low - middle, high - middle]) {
    for (const [u, weight] of RULE) {
      const x = middle + side * u;
      const probability = Math.abs(side) * weight * Math.exp(shape * (x - Math.exp(x)) + norm);
      if (probability > 1e-30) sum += probability * f(Math.log(Math.abs(Math.expm1(side * u + (middle + Math.log(lr))))));
    }
  }
  return sum;
}

const lyapunov = (lr, batch, variance) => average(lr, batch, variance, (log) => log);

function bisect(negative, from, to) {
  let [low, high] = [from, to];
  for (let i = 0; i < 50; i += 1) {
    const middle = (low + high) / 2;
    [low, high] = negative(middle) ? [middle, high] : [low, middle];
  }
  return (low + high) / 2;
}

const meanSquareEdge = (batch, variance, momentum) => (2 * (1 + momentum))
  / (1 + ((1 + momentum) / (1 - momentum)) * (variance / batch));

const almostSureEdge = (batch, variance) => bisect((lr) => lyapunov(lr, batch, variance) < 0,
  0.9 * meanSquareEdge(batch, variance, 0), 40);

// The α with E|1 − lr·w̄|^α = 1: a run gets e times farther out with probability e^−α.
function exponent(lr, batch, variance) {
  if (lyapunov(lr, batch, variance) >= 0) return 0;
  const excess = (alpha) => average(lr, batch, variance, (log) => Math.exp(alpha * log)) - 1;
  let high = 1;
  while (excess(high) < 0 && high < 1e4) high *= 2;
  return high < 1e4 ? bisect((alpha) => excess(alpha) < 0, high === 1 ? 1e-6 : high / 2, high) : Infinity;
}

// E x² over the start's, step by step: exact with and without momentum.
function meanSquares(lr, batch, variance, momentum, steps) {
  const [keep, spread] = [1 + momentum - lr, (lr * lr * variance) / batch];
  let [now, cross, before] = [1, 1, 1];
  const found = [1];
  for (let i = 0; i < steps; i += 1) {
    [now, cross, before] = [(keep * keep + spread) * now - 2 * keep * momentum * cross + momentum * momentum * before,
      keep * now - momentum * cross, now];
    found.push(now);
  }
  return found;
}

// A Gamma variate by Marsaglia and Tsang; a shape below one by its power.
function gamma(shape, random) {
  if (shape < 1) return gamma(shape + 1, random) * (1 - random.uniform()) ** (1 / shape);
  const [d, c] = [shape - 1 / 3, 1 / Math.sqrt(9 * shape - 3)];
  for (;;) {
    const z = random();
    const v = (1 + c * z) ** 3;
    if (v > 0 && Math.log(1 - random.uniform()) < (z * z) / 2 + d * (1 - v + Math.log(v))) return d * v;
  }
}

function start() {
  return { step: 0, x: new Float64Array(REPLICAS).fill(NEAR), moved: new Float64Array(REPLICAS), gone: new Uint8Array(REPLICAS),
    path: [[0, NEAR]], rest: 0 };
}

function advance(cloud, state, random) {
  if (cloud.step >= STEPS) {
    if ((cloud.rest += 1) > 90) Object.assign(cloud, start());
    return;
  }
  const shape = SIZES[state.batch] / state.variance;
  for (let r = 0; r < REPLICAS; r += 1) {
    if (cloud.gone[r]) continue;
    cloud.moved[r] = state.momentum * cloud.moved[r] - state.lr * (gamma(shape, random) / shape) * cloud.x[r];
    cloud.x[r] += cloud.moved[r];
    cloud.gone[r] = Math.abs(cloud.x[r]) >= 1;
  }
  cloud.step += 1;
  const sorted = Array.from(cloud.x, (x, r) => (cloud.gone[r] ? 1 : Math.abs(x))).sort((a, b) => a - b);
  cloud.path.push([cloud.step, sorted[REPLICAS >> 1]]);
}

const known = new Map();
function edges(variance) {
  if (!known.has(variance)) known.set(variance, BATCHES.map((batch) => [batch, almostSureEdge(batch, variance)]));
  return known.get(variance);
}

function draw(sheet, state, cloud) {
  const { colour } = sheet;
  const map = sheet.axes(0, { range: [1, 1000], log: true, label: "batch size" }, { range: [0, 5.2], label: "step times curvature" }, // above 4 there is room for the legend
    "who stays at this minimum");
  map.curve(BATCHES.map((batch) => [batch, meanSquareEdge(batch, state.variance, state.momentum)]), colour.momentum);
  if (state.momentum === 0) map.curve(edges(state.variance), colour.plain, { dash: [6, 4] });
  map.curve([[1, 2 * (1 + state.momentum)], [1000, 2 * (1 + state.momentum)]], colour.soft, { dash: [2, 3] });
  map.dots([[SIZES[state.batch], state.lr]], colour.memory, 6);
  map.legend([["mean square", colour.momentum], ...(state.momentum === 0 ? [["single runs", colour.plain, [6, 4]]] : []),
    ["all examples", colour.soft, [2, 3]]], true);
  const runs = sheet.axes(1, { range: [0, STEPS], label: "steps" }, { range: [1e-12, 1], log: true, label: "distance / half-width of the well" },
    `${REPLICAS} runs, ${cloud.gone.reduce((a, b) => a + b, 0)} have left`);
  runs.curve(meanSquares(state.lr, SIZES[state.batch], state.variance, state.momentum, STEPS).map((value, i) => [i, NEAR * Math.sqrt(value)]),
    colour.momentum);
  runs.curve(cloud.path, colour.plain, { dash: [6, 4] });
  runs.dots(Array.from(cloud.x, (x, r) => [cloud.step + 4 * Math.sin(91 * r), cloud.gone[r] ? 1 : Math.abs(x)]), colour.memory, 2);
}

const round = (value) => String(+value.toPrecision(3));

function summary(state) {
  const batch = SIZES[state.batch];
  const edge = meanSquareEdge(batch, state.variance, state.momentum);
  const head = `The mean square grows from step ${round(edge)} on`;
  if (state.momentum > 0) {
    const plain = meanSquareEdge(batch, state.variance, 0);
    return `${head}, without momentum from ${round(plain)} on: here momentum makes the minimum ${edge > plain ? "hold more" : "hold less"}. `
      + `At the chosen step ${round(state.lr)} it ${state.lr > edge ? "grows" : "shrinks"}.`;
  }
  const sure = almostSureEdge(batch, state.variance);
  const alpha = exponent(state.lr, batch, state.variance);
  const what = alpha === 0 ? "every run leaves"
    : alpha === Infinity || NEAR ** alpha < 1e-6 ? "next to no run leaves" : `about ${round(Math.min(100, 100 * NEAR ** alpha))} % of the runs ever leave (exponent ${round(alpha)}, without its prefactor)`;
  return `${head}, single runs leave from ${round(sure)} on. At the chosen step ${round(state.lr)} ${what}.`;
}

export const render = mount({
  name: "flatness",
  panels: 2,
  height: 320,
  controls: [
    { id: "lr", label: "step times curvature, ηh", min: 0.05, max: 4, step: 0.05, value: 2.2 },
    { id: "batch", label: "batch size k", min: 0, max: 10, step: 1, value: 0, names: SIZES.map(String) },
    { id: "momentum", label: "momentum μ", min: 0, max: 0.95, step: 0.05, value: 0 },
    { id: "variance", label: "variance of the weights σ²", min: 0.1, max: 2, step: 0.1, value: 1 },
  ],
  presets: [
    { label: "grows in the mean, dies in each run", state: {} },
    { label: "every run leaves", state: { lr: 3.9 } },
    { label: "large batch: the thresholds meet", state: { lr: 1.95, batch: 7 } },
    { label: "momentum at a small batch", state: { lr: 0.3, momentum: 0.9 } },
    { label: "momentum at a large batch", state: { lr: 2.5, momentum: 0.9, batch: 8 } },
  ],
  live: { start, advance, still: STEPS },
  draw,
  summary,
  golden: ({ lr, momentum, batch, variance, steps }) => [
    meanSquareEdge(batch, variance, momentum),
    meanSquares(lr, batch, variance, momentum, steps)[steps],
    lyapunov(lr, batch, variance),
    almostSureEdge(batch, variance),
    Math.exp(-exponent(lr, batch, variance)),
  ],
});
