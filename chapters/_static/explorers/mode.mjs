// One heavy-ball mode of curvature h, x ← x − η g + μ (x − x before), with additive noise of variance one: the exact
// second moments, as in descent.theory.escape and descent.theory.mode. Shared by the explorers that need them.

// E x² after every step from rest at 0; at a saddle h is negative.
export function variances(h, lr, momentum, steps) {
  let [now, cross, before] = [0, 0, 0];
  const found = [0];
  const keep = 1 + momentum - lr * h;
  for (let step = 0; step < steps; step += 1) {
    const moved = keep * keep * now - 2 * keep * momentum * cross + momentum * momentum * before + lr * lr;
    [now, cross, before] = [moved, keep * now - momentum * cross, now];
    found.push(now);
  }
  return found;
}

// The larger root of z² − (1 + μ + ηb)z + μ = 0, as a growth rate per step.
export function growth(instability, lr, momentum) {
  const lift = lr * instability;
  const brake = 1 - momentum - lift;
  const width = Math.sqrt(brake * brake + 4 * lift);
  return Math.log1p(brake > 0 ? (2 * lift) / (brake + width) : (width - brake) / 2);
}

export const hovering = (h, lr, momentum) => (lr * h < 2 * (1 + momentum)
  ? (lr * (1 + momentum)) / ((1 - momentum) * h * (2 * (1 + momentum) - lr * h)) : Infinity);

// The step times curvature from which the roots of z² − (1 + μ − ηh)z + μ are a complex pair.
export const critical = (momentum) => (1 - Math.sqrt(momentum)) ** 2;

export const round = (value) => (Number.isFinite(value) ? String(+value.toPrecision(3)) : "∞ (it diverges)");

// What the explorers compare: heavy ball with plain descent, at the same learning rate or at the same effective step.
export const plainRate = ({ lr, momentum, matched }) => (matched ? lr / (1 - momentum) : lr);
export const MOMENTUM = { id: "momentum", label: "momentum μ", min: 0, max: 0.99, step: 0.01, value: 0.9 };
export const MATCHED = { id: "matched", label: "held equal", min: 0, max: 1, value: 0,
  names: ["learning rate", "effective step"] };
export const SWITCH = [{ label: "equal learning rate", state: {} }, { label: "equal effective step", state: { matched: 1 } }];

// What the library's numbers for such an explorer are compared with.
export const numbers = ({ lr, momentum, instability, curvature, steps }) => [
  growth(instability, lr, momentum),
  variances(-instability, lr, momentum, steps)[steps],
  hovering(curvature, lr, momentum),
];
