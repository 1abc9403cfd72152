// Which way out? The aligned closure of descent.theory.noise_escape, with the heavy ball of descent.theory.linear.
import { mount, powers } from "./explorer.mjs";

const STEPS = 60;

const spectrum = ({ modes, decay }) => Array.from({ length: modes }, (_, i) => (i + 1) ** -decay);
const sum = (values) => values.reduce((total, value) => total + value, 0);

// The edge solves pη (1 + μ)/(1 − μ) Σ λ/(2(1 + μ) − ηλ) = 1; the left side grows from 0 to ∞ on (0, 2(1 + μ)/λ₁).
export function edge(curvature, momentum, batch) {
  const load = (lr) => (lr / batch) * ((1 + momentum) / (1 - momentum))
    * sum(curvature.map((h) => h / (2 * (1 + momentum) - lr * h)));
  let [low, high] = [0, fullEdge(curvature, momentum)];
  for (let i = 0; i < 200; i += 1) {
    const middle = (low + high) / 2;
    if (load(middle) < 1) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

export const criticalBatch = (curvature, momentum) => ((1 + momentum) / (1 - momentum))
  * sum(curvature.slice(1).map((h) => h / (curvature[0] - h)));

// Second moments A = E w², b = E w·w₋₁, c = E w₋₁² of every mode; share 0 is full-batch descent.
export function escape(curvature, lr, momentum, share, steps) {
  let modes = curvature.map((h) => ({ h, now: 1, cross: 1, before: 1 }));
  const course = [modes];
  for (let step = 0; step < steps; step += 1) {
    const total = sum(modes.map(({ h, now }) => h * now));
    modes = modes.map(({ h, now, cross, before }) => {
      const keep = 1 + momentum - lr * h;
      const moved = keep * keep * now - 2 * keep * momentum * cross + momentum * momentum * before;
      return { h, now: moved + share * lr * lr * h * total, cross: keep * now - momentum * cross, before: now };
    });
    course.push(modes);
  }
  return course;
}

const fullEdge = (curvature, momentum) => (2 * (1 + momentum)) / curvature[0];
const loss = (modes) => sum(modes.map(({ h, now }) => h * now)) / 2;
export function outside(modes, k) {
  const parts = modes.map(({ h, now }) => h * now);
  return sum(parts.slice(k)) / sum(parts.slice(0, k));
}

function draw(sheet, state) {
  const { colour } = sheet;
  const curvature = spectrum(state);
  const lr = state.excess * edge(curvature, state.momentum, state.batch);
  const sgd = escape(curvature, lr, state.momentum, 1 / state.batch, STEPS);
  const full = state.excess * fullEdge(curvature, state.momentum);
  const descent = escape(curvature, full, state.momentum, 0, STEPS);
  const low = Math.min(curvature[curvature.length - 1], 0.5);
  const profile = sheet.axes(0, { range: [low * 0.8, 1.25], log: true, label: "curvature λ" },
    { range: [1e-4, 2], log: true, label: "E w², relative" }, `after ${STEPS} steps`);
  const ratio = sheet.axes(1, { range: [0, STEPS], label: "steps" },
    { range: [1e-4, 1e4], log: true, label: "loss outside / along the sharpest" });
  for (const [course, tone, dash] of [[sgd, colour.momentum, []], [descent, colour.plain, [6, 4]]]) {
    const last = course[STEPS];
    const top = Math.max(...last.map(({ now }) => now));
    profile.dots(last.map(({ h, now }) => [h, now / top]), tone, 3);
    ratio.curve(course.map((modes, step) => [step, outside(modes, 1)]), tone, { dash });
  }
  ratio.legend([["SGD", colour.momentum], ["full batch, as far beyond its own edge", colour.plain, [6, 4]]], true);
}

function summary(state) {
  const curvature = spectrum(state);
  const own = edge(curvature, state.momentum, state.batch);
  const [lr, full] = [state.excess * own, fullEdge(curvature, state.momentum)];
  const sgd = escape(curvature, lr, state.momentum, 1 / state.batch, STEPS)[STEPS];
  const where = lr >= full ? "beyond the full-batch edge as well" : state.excess > 1 ? "beyond the edge of SGD alone" : "stable";
  const round = (value) => +value.toPrecision(3);
  return `Edge of SGD ${round(own)}, of the full batch ${round(full)}; learning rate ${round(lr)}: ${where}. `
    + `Critical batch ${round(criticalBatch(curvature, state.momentum))}. After ${STEPS} steps SGD has `
    + `${round(outside(sgd, 1))} times as much of its loss outside the sharpest direction as along it.`;
}

export const render = mount({
  name: "geometry",
  panels: 2,
  height: 280,
  controls: [
    { id: "excess", label: "learning rate over its edge", min: 0.2, max: 6, value: 1.05, log: true },
    { id: "batch", label: "batch size B", min: 1, max: 4096, value: 1, values: powers(4096) },
    { id: "momentum", label: "momentum μ", min: 0, max: 0.99, step: 0.01, value: 0 },
    { id: "decay", label: "decay of the spectrum", min: 0.05, max: 2, step: 0.05, value: 0.5 },
    { id: "modes", label: "directions", min: 2, max: 200, step: 1, value: 50 },
  ],
  presets: [
    { label: "at the edge: all directions alike", state: {} },
    { label: "far beyond: the sharp ones", state: { excess: 4 } },
    { label: "large batch: nearly descent", state: { batch: 512 } },
    { label: "large batch, momentum", state: { batch: 512, momentum: 0.95 } },
    { label: "one outlier", state: { decay: 2 } },
  ],
  draw,
  summary,
  golden: ({ lr, momentum, batch, decay, modes, steps }) => {
    const curvature = spectrum({ modes, decay });
    const found = [edge(curvature, momentum, batch), criticalBatch(curvature, momentum)];
    if (momentum) return found;
    const last = escape(curvature, lr, 0, 1 / batch, steps)[steps];
    return [...found, loss(last), outside(last, 1)];
  },
});
