// Linear rules in a valley: descent.theory.valley in closed form. A rule is heavy ball (kind 0), Nesterov's (1) or plain
// descent along gradients k steps old (2).

export const delay = (momentum) => Math.round(momentum / (1 - momentum)); // as old as heavy ball's gradients are on average
const nu = ({ kind, momentum }) => (kind === 1 ? momentum : 1); // both of the first two are QHM

export function ceiling({ kind, momentum }) {
  if (kind === 2) return 2 * Math.sin(Math.PI / (4 * delay(momentum) + 2));
  return (2 * (1 + momentum)) / (1 + momentum - 2 * momentum * nu({ kind, momentum }));
}

// z Σx² from rest without noise, and how much of the next x² a gradient's noise makes; below the ceiling.
function moments(rule, z) {
  if (rule.kind === 2) {
    const [k, w] = [delay(rule.momentum), 2 * Math.asin(z / 2)];
    const travel = (1 + Math.sin(w * k) / Math.cos(w / 2)) / (2 * (Math.cos(w * k) - Math.sin(w / 2)));
    return [travel, z * travel];
  }
  const [m, n] = [rule.momentum, nu(rule)];
  const [now, before] = [1 - n * m, m * (1 - n)];
  const [one, two] = [1 + m - z * now, z * before - m]; // x ← one·x + two·(x before)
  const room = (1 + two) * (1 - two + one);
  return [(1 - m * m + z * m * (1 + m + n - m * n)) / room,
    (z * ((now ** 2 + before ** 2) * (1 - two) - 2 * now * before * one)) / ((1 - m) * room)];
}

// Drift beyond gradient flow's over gradient flow's, spread the relative variance of a batch's curvature.
export function drift(rule, z, spread) {
  if (z >= ceiling(rule)) return Infinity;
  const [travel, gain] = moments(rule, z);
  return spread * gain < 1 ? (2 * travel) / (1 - spread * gain) - 1 : Infinity;
}

// The point of [low, high] at which something true turns false.
function turn(low, high, holds) {
  for (let i = 0; i < 60; i += 1) {
    const middle = (low + high) / 2;
    if (holds(middle)) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

export const PLAIN = { kind: 0, momentum: 0 };

export function edge(rule, spread) {
  return spread ? turn(0, ceiling(rule), (z) => Number.isFinite(drift(rule, z, spread))) : ceiling(rule);
}

// In z = e·λ₁: the edges of the rule and of plain descent that takes `share` of its step, and the border up to which the
// rule drifts further: its own edge where it does until it leaves.
export function marks({ rule, spread, share }) {
  const [own, plain] = [edge(rule, spread), edge(PLAIN, spread) / share];
  if (own <= plain * (1 + 1e-9)) return { border: own, own, plain };
  return { border: turn(0, plain, (z) => drift(rule, z, spread) > drift(PLAIN, share * z, spread)), own, plain };
}
