// The race of one feature and one memory: descent.theory.inertia.race, step by step.
import { mount } from "./explorer.mjs";

const EXAMPLES = 100;
const SHARE = 0.1;
const EQUAL = 0.01;

const unfitted = (margin) => 1 / (1 + Math.exp(margin));
const softplus = (margin) => Math.log1p(Math.exp(-Math.abs(margin))) + Math.max(0, -margin);

// Return s, u and the loss after every step, for learning rate, momentum (running average) and the two margins.
export function race({ lr, momentum, large = 1.5, small = 0.15, memory = 0.2, steps = 1000 }, stop = 0) {
  const [a, b] = [large ** 3, small ** 3];
  let [s, u, vs, vu] = [0.142, memory, 0, 0];
  const found = { s: [], u: [], loss: [] };
  for (let step = 0; step <= steps; step += 1) {
    const [big, little] = [a * s ** 3, b * s ** 3 + u ** 3];
    const loss = (1 - SHARE) * softplus(big) + SHARE * softplus(little);
    found.s.push(s);
    found.u.push(u);
    found.loss.push(loss);
    if (loss < stop) break;
    const slow = unfitted(little);
    vs = momentum * vs + (1 - momentum) * 3 * s ** 2 * ((1 - SHARE) * a * unfitted(big) + SHARE * b * slow);
    vu = momentum * vu + (1 - momentum) * (3 / EXAMPLES) * u ** 2 * slow;
    s += lr * vs;
    u += lr * vu;
  }
  return found;
}

const logits = (path, small) => ({
  feature: path.s.map((s, step) => [step + 1, small ** 3 * s ** 3]),
  memory: path.u.map((u, step) => [step + 1, u ** 3]),
});

function draw(sheet, state) {
  const { colour } = sheet;
  [0, state.momentum].forEach((momentum, index) => {
    const parts = logits(race({ ...state, momentum }), state.small);
    const panel = sheet.axes(index, { range: [1, 1000], log: true, label: "steps" },
      { range: [1e-4, 100], log: true, label: "small-margin logit" },
      index ? `momentum ${+momentum.toPrecision(3)}` : "plain descent");
    panel.curve(parts.feature, colour.feature);
    panel.curve(parts.memory, colour.memory, { dash: [6, 4] });
    if (!index) panel.legend([["by the feature", colour.feature], ["by heart", colour.memory, [6, 4]]]);
  });
}

function share(state, momentum) {
  const path = race({ ...state, momentum, steps: 20000 }, EQUAL);
  const last = path.s.length - 1;
  const feature = state.small ** 3 * path.s[last] ** 3;
  return path.loss[last] < EQUAL ? feature / (feature + path.u[last] ** 3) : NaN;
}

const percent = (value) => (Number.isFinite(value) ? `${Math.round(100 * value)} %` : "nothing yet (the loss is not met)");

function summary(state) {
  const inertia = state.lr / (1 - state.momentum);
  const distance = 0.7 / state.large + Math.sqrt(2 * inertia * (1 - SHARE) * Math.LN2);
  return `λ = ${+inertia.toPrecision(3)}; the feature coasts to about ${+distance.toPrecision(3)}. `
    + `At training loss ${EQUAL} the feature carries ${percent(share(state, 0))} of a small-margin logit under plain `
    + `descent and ${percent(share(state, state.momentum))} with momentum ${+state.momentum.toPrecision(3)}.`;
}

export const render = mount({
  name: "margins",
  panels: 2,
  height: 280,
  controls: [
    { id: "lr", label: "learning rate η̄ (running average)", min: 0.1, max: 64, value: 1, log: true },
    { id: "momentum", label: "momentum μ", min: 0, max: 0.995, step: 0.005, value: 0.95 },
    { id: "large", label: "large margin α", min: 0.5, max: 3, step: 0.05, value: 1.5 },
    { id: "small", label: "small margin β", min: 0.05, max: 0.5, step: 0.01, value: 0.15 },
    { id: "memory", label: "overlap with noise u₀", min: 0.05, max: 0.6, step: 0.01, value: 0.2 },
  ],
  presets: [
    { label: "the paper's case", state: {} },
    { label: "the feature carries half: λ ≈ 8", state: { momentum: 0.88 } },
    { label: "small steps: no benefit", state: { lr: 0.1, momentum: 0.9 } },
    { label: "one lucky overshoot", state: { lr: 64, momentum: 0.5 } },
    { label: "small margins not so small", state: { small: 0.5, large: 1 } },
  ],
  draw,
  summary,
  golden: ({ steps, ...state }) => {
    const path = race({ ...state, steps });
    return [path.s[steps], path.u[steps], path.loss[steps]];
  },
});
