// One coordinate under sign updates with skewed noise: the drift, the place of rest and the floor of a plain sign, of a
// sign averaged before, and of one averaged after. The noise is a gamma law of an example's deviation one, as in
// descent.theory.averages.Skewed.
import { mount } from "./explorer.mjs";
import { MOMENTUM, round } from "./mode.mjs";

// log Γ(a) by Stirling's series from 20 up, and by its recursion below.
export function logGamma(a) {
  if (a < 20) return logGamma(a + 1) - Math.log(a);
  const inverse = 1 / (a * a);
  return (a - 0.5) * Math.log(a) - a + 0.5 * Math.log(2 * Math.PI)
    + (1 / 12 - inverse * (1 / 360 - inverse * (1 / 1260 - inverse / 1680))) / a;
}

// The share of a gamma law of shape a below x: a series below the mean, a continued fraction above it.
export function below(a, x) {
  if (x <= 0) return 0;
  const front = Math.exp(a * Math.log(x) - x - logGamma(a));
  if (x < a + 1) {
    let [term, sum] = [1 / a, 1 / a];
    for (let n = 1; Math.abs(term) > 1e-17 * sum; n += 1) {
      term *= x / (a + n);
      sum += term;
    }
    return front * sum;
  }
  let b = x + 1 - a;
  let [c, d] = [1e300, 1 / b];
  let h = d;
  for (let n = 1, change = 0; Math.abs(change - 1) > 1e-16 && n < 1e5; n += 1) {
    const step = -n * (n - a);
    b += 2;
    d = 1 / (step * d + b);
    c = b + step / c;
    change = d * c;
    h *= change;
  }
  return 1 - front * h;
}

// The noise of an average of batches: deviation and skewness are exact.
export function noise(momentum, batch, skew) {
  const larger = (1 + momentum) / (1 - momentum);
  const fairer = (1 + momentum + momentum * momentum) / (1 - momentum * momentum);
  const skewness = (skew * Math.sqrt(larger / batch)) / fairer;
  return { a: 4 / skewness ** 2, deviation: 1 / Math.sqrt(larger * batch) };
}

export const meanSign = ({ a, deviation }, x) => 1 - 2 * below(a, a - (x * Math.sqrt(a)) / deviation);

// Where half of the noise lies below, by bisection in units of the gamma law.
function middle({ a }) {
  let [low, high] = [0, a + 1];
  for (let n = 0; n < 200 && high - low > 1e-15 * high; n += 1) {
    const half = (low + high) / 2;
    if (below(a, half) < 0.5) low = half;
    else high = half;
  }
  return (low + high) / 2;
}

// Power at frequency zero of the sign of an average, D.
export function diffusion(momentum) {
  let [sum, power] = [1, momentum];
  while (power > 1e-18) {
    sum += (4 / Math.PI) * Math.asin(power);
    power *= momentum;
  }
  return sum;
}

// The place of rest, and the variance around it over the rate.
export function rest(law, power) {
  const at = middle(law);
  const density = (Math.exp((law.a - 1) * Math.log(at) - at - logGamma(law.a)) * Math.sqrt(law.a)) / law.deviation;
  return { place: ((law.a - at) * law.deviation) / Math.sqrt(law.a), floor: power / (4 * density) };
}

function rows({ momentum, batch, skew }, colour) {
  const [plain, before] = [noise(0, batch, skew), noise(momentum, batch, skew)];
  return [
    { name: "plain", law: plain, power: 1, colour: colour.plain, dash: [] },
    { name: "averaged before", law: before, power: diffusion(momentum), colour: colour.momentum, dash: [] },
    { name: "averaged after", law: plain, power: 1, colour: colour.annealed, dash: [6, 4] },
  ];
}

function draw(sheet, state) {
  const found = rows(state, sheet.colour);
  const drift = sheet.axes(0, { range: [-1, 1], label: "place x" }, { range: [-1, 1.6], label: "mean step / rate" }, "drift");
  const hover = sheet.axes(1, { range: [-0.4, 0.8], label: "place x" }, { range: [3, 0], label: "" }, "where it hovers");
  const grid = [...Array(121).keys()].map((i) => -1 + i / 60);
  drift.curve([[-1, 0], [1, 0]], sheet.colour.soft, { width: 1 });
  found.forEach(({ law, power, colour, dash, name }, row) => {
    drift.curve(grid.map((x) => [x, -meanSign(law, x)]), colour, { dash });
    const { place, floor } = rest(law, power);
    const wide = Math.sqrt(state.lr * floor);
    hover.curve([[place - wide, row + 0.6], [place + wide, row + 0.6]], colour, { width: 6 });
    hover.curve([[place, row + 0.45], [place, row + 0.75]], colour, { width: 2 });
    hover.words(name, 0.45, row + 0.3);
  });
  [drift, hover].forEach((panel, i) => panel.curve([[0, i ? 0 : -1], [0, i ? 3 : 1]], sheet.colour.soft, { width: 1 }));
  drift.legend(found.map(({ name, colour, dash }) => [name, colour, dash]), true);
}

function summary(state) {
  const [plain, before] = rows(state, {});
  const said = [plain, before].map(({ law, power }) => ({ drift: meanSign(law, 0.2), ...rest(law, power) }));
  const wide = said.map(({ floor }) => round(Math.sqrt(state.lr * floor)));
  return `At x = 0.2 the plain sign moves by ${round(-said[0].drift)} of the rate on average, averaged before by `
    + `${round(-said[1].drift)}. The plain sign comes to rest at x = ${round(said[0].place)}, averaged before at `
    + `${round(said[1].place)}; there they hover within ±${wide[0]} and ±${wide[1]} at this rate. `
    + "Averaged after the sign it rests where the plain one does.";
}

export const render = mount({
  name: "normalised",
  panels: 2,
  height: 300,
  controls: [
    { id: "lr", label: "rate η", min: 0.001, max: 0.1, value: 0.01, log: true },
    { ...MOMENTUM, max: 0.95 },
    { id: "batch", label: "batch size B", min: 1, max: 64, value: 1, log: true },
    { id: "skew", label: "skewness of an example's gradient", min: 0.25, max: 4, step: 0.05, value: 2 },
  ],
  presets: [
    { label: "skewed noise", state: {} },
    { label: "nearly symmetric", state: { skew: 0.25 } },
    { label: "no momentum, batch 19", state: { momentum: 0, batch: 19 } },
    { label: "rare events", state: { skew: 4 } },
  ],
  draw,
  summary,
  golden: ({ momentum, batch, skew, place }) => [[0, 1], [momentum, diffusion(momentum)]].flatMap(([memory, power]) => {
    const law = noise(memory, batch, skew);
    const { place: at, floor } = rest(law, power);
    return [meanSign(law, place), at, floor];
  }),
});
