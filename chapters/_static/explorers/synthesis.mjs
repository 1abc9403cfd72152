// Match the step: seven consequences of momentum as ratios to plain SGD, at the same learning rate, the same effective
// step, or the same power of noise.
import { mount, powers } from "./explorer.mjs";
import { arms, badges, gauges } from "./matched.mjs";
import { MOMENTUM } from "./mode.mjs";

const STATES = ["", "control undefined", "momentum diverges", "law does not hold"];
const WHY = ["", "plain SGD diverges at this step, so there is no control for",
  "momentum diverges at this step, so there is no number for", "the step or its noise is too large for the law of"];
const GAUGES = [
  ["noise of the direction", (x) => `the search direction is ${x} times as noisy`],
  ["largest stable step", (x) => `the largest stable step is ${x} times SGD's`],
  ["time to leave a saddle", (x) => `leaving the saddle takes ${x} times as long`],
  ["noise floor", (x) => `the noise floor is ${x} times as high`],
  ["feature after equal steps", (x) => `after equal steps the small-margin feature is ${x} times as strong`],
  ["flat part of the escape", (x) => `an escape at the edge is ${x} times as flat`],
  ["time to cross a barrier", (x) => `crossing the barrier takes ${x} times as long`],
];

const round = (value) => (Number.isFinite(value) ? String(+value.toPrecision(3)) : "∞");
function times(log) {
  const power = Math.round(log / Math.LN10);
  if (Math.abs(power) < 4) return round(Math.exp(log));
  return `10${[...String(power)].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit] ?? "⁻").join("")}`;
}

const HELD = ["learning rate", "effective step", "step and noise power"];
const LABELS = ["momentum over plain SGD", ...Array(2).fill("over plain SGD; outline: same learning rate")];
const ROWS = 8; // the badges have the first
const CLOSE = Math.log(1.1);

function draw(sheet, state) {
  const way = Math.round(state.held);
  const panel = sheet.axes(0, { range: [5e-3, 2e2], log: true, label: LABELS[way] }, { range: [ROWS, 0], label: "" },
    `momentum ${round(state.momentum)}, same ${HELD[way]}`);
  const before = way ? gauges({ ...state, held: 0 }) : [];
  gauges(state).forEach((gauge, i) => row(panel, i + 1, GAUGES[i][0], gauge, before[i]));
  pills(panel, state);
}

// A name and a number, below them plain SGD as an upright line at one, the bar, and an outline of what it was before.
function row(panel, place, name, gauge, before) {
  const { sheet: { context, colour }, box, to } = panel;
  const thick = 0.4 * (to.y(1) - to.y(0));
  const y = to.y(place + 0.5);
  if (before && !before.state) {
    Object.assign(context, { strokeStyle: colour.soft, lineWidth: 1.5 });
    context.strokeRect(to.x(1), y, reach(panel, before.log) - to.x(1), thick);
  }
  panel.curve([[1, place + 0.46], [1, place + 0.94]], colour.plain, { width: 2 });
  if (!gauge.state) bar(panel, gauge.log, y + 3, thick - 6);
  context.fillStyle = colour.ink;
  context.textAlign = "left";
  context.fillText(`(${"abcdefg"[place - 1]}) ${name}`, box.left + 8, y - 6);
  context.textAlign = "right";
  context.fillText(gauge.state ? STATES[gauge.state] : `× ${times(gauge.log)}`, box.right - 8, y - 6);
}

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const reach = ({ box, to }, log) => clamp(to.x(Math.exp(clamp(log, -700, 700))), box.left + 4, box.right - 4);

// A bar from one to the ratio: a round end, or an arrow head where the ratio lies outside the drawing.
function bar(panel, log, y, thick) {
  const { sheet: { context, colour }, to } = panel;
  const [start, end] = [to.x(1), reach(panel, log)];
  const out = to.x(Math.exp(clamp(log, -700, 700))) === end ? 0 : Math.sign(log);
  const stop = end - 12 * out;
  context.fillStyle = colour.momentum;
  context.fillRect(Math.min(start, stop), y, Math.abs(stop - start), thick);
  context.beginPath();
  if (out) for (const [dx, dy] of [[0, -4], [12 * out, thick / 2], [0, thick + 4]]) context.lineTo(stop + dx, y + dy);
  else context.arc(end, y + thick / 2, thick / 2 + 1, 0, 2 * Math.PI);
  context.fill();
}

function pills(panel, state) {
  const { sheet: { context, colour }, box, to } = panel;
  const wide = (box.right - box.left - 16) / 4;
  badges(state).forEach((value, i) => {
    const [x, high] = [box.left + 8 + i * wide, to.y(1) - to.y(0)];
    Object.assign(context, { strokeStyle: colour.soft, fillStyle: colour.ink, lineWidth: 1, textAlign: "center" });
    context.strokeRect(x + 2, to.y(0) + 0.18 * high, wide - 4, 0.62 * high);
    const number = Number.isFinite(value) ? +value.toPrecision(2) : "∞";
    context.fillText(`${["eh", "λh", "B/B×", "Λ"][i]} ${number}`, x + wide / 2, to.y(0.5) + 4);
  });
}

const listed = (words) => (words.length > 1 ? `${words.slice(0, -1).join(", ")} and ${words[words.length - 1]}` : words[0]);
const sentence = (words) => `${words[0].toUpperCase()}${words.slice(1)}.`;

function setting(state) {
  const [own, control] = arms(state);
  if (state.momentum === 0) return "Without momentum there is nothing to compare.";
  const tail = own.batch < 1 ? " (less than one example: read it as noise)" : "";
  return [`At the same learning rate momentum takes ${round(1 / (1 - state.momentum))} times SGD's effective step.`,
    "Both take the same effective step.",
    `For the same effective step and noise power momentum gets a batch of ${round(own.batch)}${tail} against ${round(control.batch)}.`,
  ][Math.round(state.held)];
}

function summary(state) {
  const found = gauges(state).map((gauge, i) => ({ ...gauge, name: GAUGES[i][0], say: GAUGES[i][1] }));
  const drawn = found.filter((gauge) => !gauge.state);
  const far = drawn.filter(({ log }) => Math.abs(log) > CLOSE).map(({ log, say }) => say(times(log)));
  const near = drawn.filter(({ log }) => Math.abs(log) <= CLOSE).map(({ name }) => name);
  const missing = [1, 2, 3].map((why) => [WHY[why], found.filter((gauge) => gauge.state === why).map(({ name }) => name)]);
  const [step, inertia, batch, filled] = badges(state).map(round);
  return [setting(state), ...(far.length ? [sentence(listed(far))] : []),
    ...(near.length ? [sentence(`within a tenth of plain SGD: ${listed(near)}`)] : []),
    ...missing.filter(([, names]) => names.length).map(([why, names]) => sentence(`${why} ${listed(names)}`)),
    `Momentum has eh = ${step}, λh = ${inertia}, B/B× = ${batch} and load Λ = ${filled}.`].join(" ");
}

export const render = mount({
  name: "synthesis",
  height: 400,
  controls: [
    { id: "held", label: "hold equal", min: 0, max: 2, value: 0, names: ["learning rate η", "effective step e", "noise power"] },
    { id: "lr", label: "learning rate η of plain SGD", min: 0.005, max: 1, value: 0.05, log: true },
    MOMENTUM,
    { id: "batch", label: "batch size B", min: 1, max: 4096, value: 32, values: powers(4096) },
    { id: "curvature", label: "sharp curvature h", min: 0.1, max: 10, value: 1, log: true },
    { id: "instability", label: "instability b of the saddle", min: 0.2, max: 2, step: 0.05, value: 1 },
    { id: "multiplicative", label: "variance s₁² of an example's curvature", min: 0.01, max: 100, value: 4, log: true },
    { id: "sigma", label: "noise σ of an example's gradient", min: 0.1, max: 20, value: 3.5, log: true },
  ],
  presets: [
    { label: "hold η", state: {} },
    { label: "hold the effective step", state: { held: 1 } },
    { label: "hold noise power", state: { held: 2 } },
    { label: "matched, with inertia", state: { held: 1, lr: 0.5, sigma: 1 } },
    { label: "matched, and SGD diverges", state: { held: 1, lr: 0.5, curvature: 5, sigma: 1 } },
  ],
  draw,
  summary,
  golden: (input) => {
    const [found, [step, inertia, batch, filled]] = [gauges(input), badges(input)];
    return [...found.map((gauge) => gauge.log || 0), step, inertia, batch, Math.exp(-filled), ...found.map((gauge) => gauge.state)];
  },
});
