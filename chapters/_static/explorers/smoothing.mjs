// How noisy is the direction? ω = d − ∇f for the rules of descent.theory.search_noise, in a valley with one sharp and one
// flat direction, each with gradient noise of variance one per example, and a floor that falls with a constant slope.
import { mount, powers } from "./explorer.mjs";

const RULES = ["sgd", "heavy_ball", "ema", "qhm"];
const NAMES = ["SGD", "SHB", "NSHB", "QHM, ν = 0.7"];
const [NU, RUNS, FRAMES_PER_STEP] = [0.7, 300, 6];
const MOMENTA = Array.from({ length: 100 }, (_, i) => i / 100);

// d = fresh·g + carried·v, after which v ← momentum·v + inflow·g.
const weights = (rule, momentum, nu) => ({
  sgd: { fresh: 1, carried: 0, momentum: 0, inflow: 1 },
  heavy_ball: { fresh: 1, carried: momentum, momentum, inflow: 1 },
  ema: { fresh: 1 - momentum, carried: momentum, momentum, inflow: 1 - momentum },
  qhm: { fresh: 1 - nu * momentum, carried: nu * momentum, momentum, inflow: 1 - momentum },
})[rule];

const triple = (a, b, c) => [0, 1, 2].reduce((total, i) => total
  + a[i] * (b[(i + 1) % 3] * c[(i + 2) % 3] - b[(i + 2) % 3] * c[(i + 1) % 3]), 0);

// E x², E x·v, E v² and E ω² of one mode with noise of variance one: the discrete Lyapunov equation of (x, v) ← A(x, v) + bξ.
function stationary(h, lr, { fresh, carried, momentum, inflow }) {
  const [a, b, c, d] = [1 - lr * fresh * h, -lr * carried, inflow * h, momentum];
  const [trace, area] = [a + d, a * d - b * c];
  if (!(area < 1 && Math.abs(trace) < 1 + area)) return { xx: Infinity, xv: NaN, vv: Infinity, power: Infinity };
  const first = [(1 - a) * (1 + a), -a * c, -c * c];
  const second = [-2 * a * b, 1 - a * d - b * c, -2 * c * d];
  const third = [-b * b, -b * d, (1 - d) * (1 + d)];
  const entering = [(lr * fresh) ** 2, -lr * fresh * inflow, inflow ** 2];
  const whole = triple(first, second, third);
  const [xx, xv, vv] = [triple(entering, second, third), triple(first, entering, third), triple(first, second, entering)]
    .map((part) => part / whole);
  const lag = (fresh - 1) * h;
  return { xx, xv, vv, power: lag ** 2 * xx + 2 * lag * carried * xv + carried ** 2 * vv + fresh ** 2 };
}

// |E ω|² over |∇f|² on a constant slope: the weights of all gradients, less one.
const lagShare = ({ fresh, carried, momentum, inflow }) => (fresh + (carried * inflow) / (1 - momentum) - 1) ** 2;

// The paper's bound on E|ω|² in the form of its submission, or of its public code.
function bound(rule, noise, momentum, gradient2, nu, variant) {
  const hat = (momentum * (momentum * momentum - momentum + 1)) / (1 - momentum) ** 2;
  const average = variant === "submission" ? noise / (1 - momentum) : noise + 4 * momentum ** 2 * (noise + gradient2);
  return {
    sgd: noise,
    heavy_ball: (1 + hat) * noise + hat * gradient2,
    ema: average,
    qhm: ((1 - nu) * Math.sqrt(noise) + nu * Math.sqrt(average)) ** 2,
  }[rule];
}

// Everything that is said about one rule with its own learning rate: powers, spread of the iterate, degrees of smoothing.
export function level(rule, { lr, momentum, batch, ratio, slope, nu }) {
  const own = weights(rule, momentum, nu);
  const modes = [1, 1 / ratio].map((h) => ({ h, ...stationary(h, lr, own) }));
  const [sharp, flat] = modes.map(({ power }) => power / batch);
  const lag = lagShare(own) * slope ** 2;
  const gradient2 = slope ** 2 + modes.reduce((total, { h, xx }) => total + (h * h * xx) / batch, 0);
  const formula = ["submission", "repository"].map((each) => lr * Math.sqrt(bound(rule, 2 / batch, momentum, gradient2, nu, each)));
  const spread = (modes[0].xx + modes[1].xx) / batch;
  return { lr, own, modes, sharp, flat, lag, spread, degree: lr * Math.sqrt(sharp + flat + lag), formula };
}

// The heavy ball travels 1/(1 − μ) times its learning rate; the other rules travel theirs.
function at(state, index, momentum = state.momentum) {
  const lr = RULES[index] === "heavy_ball" && Math.round(state.held) ? state.lr * (1 - momentum) : state.lr;
  return level(RULES[index], { ...state, lr, momentum, nu: NU });
}
const chosen = (state) => Math.round(state.rule);

// A cloud of runs, begun in the stationary law, one row of (x, v, ω) per mode.
function start(state, random) {
  const { modes } = at(state, chosen(state));
  const runs = Number.isFinite(modes[0].xx + modes[1].xx) ? RUNS : 0;
  const rows = modes.map(({ xx, xv, vv }) => Array.from({ length: runs }, () => {
    const x = Math.sqrt(xx / state.batch) * random();
    return { x, v: (xv / xx) * x + Math.sqrt(Math.max(0, vv - (xv * xv) / xx) / state.batch) * random() };
  }));
  return step({ frames: 0, rows }, state, random);
}

function step(cloud, state, random) {
  const { lr, own, modes } = at(state, chosen(state));
  cloud.rows.forEach((row, index) => row.forEach((run) => {
    const slope = modes[index].h * run.x;
    const g = slope + random() / Math.sqrt(state.batch);
    const direction = own.fresh * g + own.carried * run.v;
    run.v = own.momentum * run.v + own.inflow * g;
    run.x -= lr * direction;
    run.noise = direction - slope;
  }));
  return cloud;
}

function advance(cloud, state, random) {
  if ((cloud.frames += 1) % FRAMES_PER_STEP === 0) step(cloud, state, random);
}

const ellipse = (x, y) => Array.from({ length: 121 }, (_, i) => [x * Math.cos((i * Math.PI) / 60), y * Math.sin((i * Math.PI) / 60)]);

function draw(sheet, state, cloud) {
  const { colour } = sheet;
  const tones = [colour.plain, colour.momentum, colour.feature, colour.memory];
  const [index, own] = [chosen(state), at(state, chosen(state))];
  const [across, up, circle] = [own.sharp, own.flat, 1 / state.batch].map(Math.sqrt);
  const reach = 2.4 * Math.max(circle, ...(Number.isFinite(own.degree) ? [across, up] : []));
  const [wide, high] = sheet.stacked ? [sheet.width, sheet.height / 2] : [sheet.width / 2, sheet.height];
  const aspect = (wide - 70) / (high - 64); // of the box inside the axes, so that a circle is round
  const left = sheet.axes(0, { range: [-reach * aspect, reach * aspect], label: "ω along the sharp direction" },
    { range: [-reach, reach], label: "ω along the flat one" },
    Number.isFinite(own.degree) ? "noise of the direction, one standard deviation" : `${NAMES[index]} diverges`);
  const dots = cloud.rows[0].map(({ noise }, r) => [noise, cloud.rows[1][r].noise]);
  left.dots(dots.filter(([x, y]) => Math.abs(x) < reach * aspect && Math.abs(y) < reach), colour.soft, 1.5);
  left.curve(ellipse(circle, circle), colour.plain, { dash: [6, 4] });
  left.curve(ellipse(across, up), tones[index], { width: 3 });
  left.legend([[NAMES[index], tones[index]], ["SGD", colour.plain, [6, 4]]]);
  degrees(sheet, state, tones);
}

function degrees(sheet, state, tones) {
  const found = RULES.map((_, index) => MOMENTA.map((momentum) => ({ momentum, ...at(state, index, momentum) })));
  const seen = found.flat().flatMap(({ degree, formula }) => (Number.isFinite(degree) ? [degree, formula[0]] : []));
  const low = seen.length ? Math.floor(Math.log10(Math.min(...seen))) : -1;
  const range = [10 ** low, 10 ** Math.max(low + 2, Math.ceil(Math.log10(Math.max(...seen, 0))))];
  const right = sheet.axes(1, { range: [0, 1], label: "momentum μ" }, { range, log: true, label: "degree of smoothing δ" },
    Math.round(state.held) ? "at equal effective step" : "at equal learning rate");
  const index = chosen(state);
  for (const i of new Set([index, ...RULES.keys()])) {
    const some = found[i].filter(({ degree }) => Number.isFinite(degree));
    right.curve(some.map(({ momentum, degree }) => [momentum, degree]), tones[i], { width: i === index ? 5 : 1.5 });
    if (i !== 1 && i !== 2) continue; // SGD's formula is exact, and for QHM the paper has none
    right.curve(some.map(({ momentum, formula }) => [momentum, formula[0]]), tones[i], { dash: [6, 4], width: 1.5 });
  }
  right.dots([[state.momentum, at(state, index).degree]], sheet.colour.ink, 6);
  right.legend([...NAMES.map((name, i) => [name, tones[i]]), ["paper's formula", sheet.colour.ink, [6, 4]]]);
}

const round = (value) => String(+value.toPrecision(3));

// What the two conventions say to one another, at equal learning rate and at equal effective step.
function conventions(state) {
  const [sum, average] = [at(state, 1), at(state, 2)];
  if (state.momentum === 0) return "Without momentum all rules are one.";
  const lost = [sum, average].flatMap(({ degree }, i) => (Number.isFinite(degree) ? [] : [NAMES[i + 1]]));
  if (lost.length) return `${lost.join(" and ")} would diverge here.`;
  if (Math.round(state.held)) {
    return `SHB and NSHB are now one path, with δ ${round(sum.degree)} and ${round(average.degree)}; `
      + `the formulas make it ${round(sum.formula[0])} and ${round(average.formula[0])}.`;
  }
  const [up, down] = [sum, average].map(({ degree }) => degree / (state.lr * Math.sqrt(2 / state.batch)));
  return `Momentum multiplies δ by ${round(up)} as a sum (SHB) and by ${round(down)} as an average (NSHB)`
    + `${up > 1 && down < 1 ? ": in one convention it smooths more, in the other less." : "."}`;
}

function summary(state) {
  const index = chosen(state);
  const own = at(state, index);
  const name = `${NAMES[index]}, learning rate ${round(own.lr)}${index ? `, momentum ${round(state.momentum)}` : ""}`;
  if (!Number.isFinite(own.degree)) return `${name}: it diverges, so there is no stationary noise and no degree of smoothing.`;
  const power = own.sharp + own.flat + own.lag;
  const formula = index < 2 ? round(own.formula[0]) : `${round(own.formula[0])} (submission) or ${round(own.formula[1])} (public code)`;
  const broken = own.degree > own.formula[0] * 1.000001 ? ", and the submission's is no bound here" : "";
  const far = Math.sqrt(own.spread / at(state, 0).spread);
  return `${name}: δ = ${round(own.degree)}; the paper's formula${index === 3 ? ", carried over," : ""} says ${formula}${broken}. `
    + `Power of ω: ${round((power * state.batch) / 2)} times the gradient noise`
    + `${own.lag > 0.005 * power ? `, ${round((100 * own.lag) / power)} % of it lag and not noise` : ""}. ${conventions(state)} `
    + `${far > 0 ? `The iterate spreads ${round(far)} times as far as SGD's.` : "Plain SGD would diverge."}`;
}

export const render = mount({
  name: "smoothing",
  panels: 2,
  height: 320,
  controls: [
    { id: "lr", label: "learning rate η (sharp curvature 1)", min: 0.001, max: 40, value: 0.3, log: true },
    { id: "momentum", label: "momentum μ", min: 0, max: 0.99, step: 0.01, value: 0.9 },
    { id: "batch", label: "batch size B", min: 1, max: 10000, value: 16, values: powers(10000) },
    { id: "ratio", label: "sharp over flat curvature", min: 1, max: 100, value: 10, log: true },
    { id: "slope", label: "slope of the valley floor", min: 0, max: 1, step: 0.01, value: 0 },
    { id: "rule", label: "rule", min: 0, max: 3, value: 2, names: NAMES },
    { id: "held", label: "compared at equal", min: 0, max: 1, value: 0, names: ["learning rate", "effective step"] },
  ],
  presets: [
    { label: "running average: less noise", state: {} },
    { label: "heavy ball: more noise", state: { rule: 1 } },
    { label: "equal step: one path, two formulas", state: { rule: 1, held: 1 } },
    { label: "huge batch on a slope: lag", state: { rule: 1, batch: 10000, slope: 0.5 } },
    { label: "steep: the bound is broken", state: { lr: 20, ratio: 1 } },
    { label: "QHM keeps some fresh noise", state: { rule: 3, momentum: 0.99 } },
  ],
  live: { start, advance, still: 1 },
  draw,
  summary,
  golden: ({ rule, ...state }) => {
    const { sharp, flat, lag, spread: far, degree, formula } = level(RULES[rule], state);
    return [sharp, flat, lag, far, degree, ...formula];
  },
});
