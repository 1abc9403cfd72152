// One line of code where the ground falls one way and rises the other: f = (a y² − b x²)/2. Along x it is a saddle to
// leave, along y a quadratic to settle in. Two clouds start at rest; whoever gets to |x| = 1 starts again.
import { mount } from "./explorer.mjs";
import { MATCHED, MOMENTUM, critical, hovering, numbers, plainRate, round, variances } from "./mode.mjs";

const REPLICAS = 240;
const EDGE = 1;
const REACH = 0.3;
const INSTABILITY = 1;
const STEPS_PER_FRAME = 2;
const LONGEST = 20000;

const arms = (state) => [
  { name: "momentum", lr: state.lr, momentum: state.momentum },
  { name: "plain", lr: plainRate(state), momentum: 0 },
];

const cloud = () => ({ x: new Float64Array(REPLICAS), y: new Float64Array(REPLICAS), dx: new Float64Array(REPLICAS),
  dy: new Float64Array(REPLICAS), left: 0 });

function start() {
  return { steps: 0, arms: [cloud(), cloud()] };
}

// The two clouds see the same noise, so that what differs is the rule.
function step(clouds, state, random) {
  const rules = arms(state);
  for (let r = 0; r < REPLICAS; r += 1) {
    const noise = [state.noise * random(), state.noise * random()];
    clouds.arms.forEach((own, index) => move(own, r, rules[index], state, noise));
  }
  clouds.steps += 1;
}

function move(own, r, { lr, momentum }, state, noise) {
  own.dx[r] = momentum * own.dx[r] + lr * (INSTABILITY * own.x[r] + noise[0]);
  own.dy[r] = momentum * own.dy[r] - lr * (state.curvature * own.y[r] + noise[1]);
  own.x[r] += own.dx[r];
  own.y[r] += own.dy[r];
  if (Math.abs(own.x[r]) < EDGE && Math.abs(own.y[r]) < 1e6) return;
  own.left += Math.abs(own.x[r]) >= EDGE;
  own.x[r] = own.y[r] = own.dx[r] = own.dy[r] = 0;
}

function advance(clouds, state, random) {
  for (let i = 0; i < STEPS_PER_FRAME; i += 1) step(clouds, state, random);
}

function draw(sheet, state, clouds) {
  const { colour } = sheet;
  const place = sheet.axes(0, { range: [-EDGE, EDGE], label: "x: falls away, a saddle to leave" },
    { range: [-REACH, REACH], label: "y: rises, an optimum" }, `${REPLICAS} runs of each, step ${clouds.steps}`);
  const tones = [colour.momentum, colour.plain];
  [1, 0].forEach((index) => {
    const { x, y } = clouds.arms[index];
    place.dots(Array.from(x, (value, r) => [value, y[r]]), tones[index], 2);
  });
  place.legend(clouds.arms.map((own, index) => [`${arms(state)[index].name}: left ${own.left} times`, tones[index]]));
  regimes(sheet, state);
}

// Where in (ηa, μ) the rule crawls, rings or diverges along y.
function regimes(sheet, state) {
  const { colour } = sheet;
  const map = sheet.axes(1, { range: [0.001, 40], log: true, label: "step times curvature, ηa" },
    { range: [0, 1], label: "momentum μ" }, "what the rule does along y");
  const unit = Array.from({ length: 101 }, (_, i) => i / 100);
  map.curve(unit.map((m) => [critical(m), m]), colour.soft);
  map.curve(unit.map((m) => [2 * (1 + m), m]), colour.memory);
  map.words("crawls", 0.0025, 0.45);
  map.words("rings", 0.35, 0.62);
  map.words("diverges", 12, 0.35);
  const [own, plain] = arms(state);
  map.dots([[plain.lr * state.curvature, 0]], colour.plain, 6);
  map.dots([[own.lr * state.curvature, own.momentum]], colour.momentum, 6);
}

// Variances are for noise of one: what counts is the edge over the noise.
function leaving({ lr, momentum }, noise) {
  const level = (EDGE / noise) ** 2;
  const found = variances(-INSTABILITY, lr, momentum, LONGEST).findIndex((value) => value >= level);
  return found < 0 ? `more than ${LONGEST}` : String(found);
}

function regime({ lr, momentum }, curvature) {
  const z = lr * curvature;
  if (z >= 2 * (1 + momentum)) return "diverges";
  if (z <= critical(momentum)) return "crawls";
  return z < (1 + Math.sqrt(momentum)) ** 2 ? "rings" : "jumps from side to side";
}

function summary(state) {
  const [own, plain] = arms(state);
  const [fast, slow] = [own, plain].map((arm) => leaving(arm, state.noise));
  const [wide, narrow] = [own, plain].map(({ lr, momentum }) => round(state.noise * Math.sqrt(hovering(state.curvature, lr, momentum))));
  return `${state.matched ? "At the same effective step" : "At the same learning rate"}, momentum against plain descent (which takes ${round(plain.lr)}): `
    + `the typical distance along x reaches the edge after ${fast} against ${slow} steps; along y momentum ${regime(own, state.curvature)} `
    + `and hovers at ${wide}, plain descent ${regime(plain, state.curvature)} and hovers at ${narrow}.`;
}

export const render = mount({
  name: "hero",
  panels: 2,
  height: 270,
  controls: [
    MOMENTUM,
    MATCHED,
    { id: "lr", label: "learning rate η (heavy ball)", min: 0.001, max: 1, value: 0.01, log: true, more: true },
    { id: "noise", label: "gradient noise σ", min: 0.02, max: 2, value: 0.3, log: true, more: true },
    { id: "curvature", label: "curvature a of the optimum", min: 0.2, max: 4, step: 0.1, value: 1, more: true },
  ],
  presets: [
    { label: "strong momentum, matched", state: { momentum: 0.97, matched: 1 } },
    { label: "it rings", state: { lr: 0.02, momentum: 0.98, curvature: 4, noise: 0.1 } },
    { label: "matched, and plain descent diverges", state: { lr: 0.3, momentum: 0.9, curvature: 4, noise: 0.05, matched: 1 } },
  ],
  live: { start, advance, still: 40 },
  draw,
  summary,
  golden: (input) => [...numbers(input), critical(input.momentum)],
});
