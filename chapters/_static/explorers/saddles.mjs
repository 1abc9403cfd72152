// Leaving a saddle and hovering at an optimum: the second moments of one heavy-ball mode with additive noise of variance one.
import { mount } from "./explorer.mjs";
import { MATCHED, MOMENTUM, SWITCH, hovering, numbers, plainRate, round, variances } from "./mode.mjs";

const STEPS = 400;

function draw(sheet, state) {
  const { colour } = sheet;
  const arms = [[plainRate(state), 0, colour.plain, [6, 4]], [state.lr, state.momentum, colour.momentum, []]];
  const panels = [
    sheet.axes(0, { range: [0, STEPS], label: "steps" }, { range: [1e-3, 100], log: true, label: "distance (root mean square)" },
      "on a saddle"),
    sheet.axes(1, { range: [0, STEPS], label: "steps" }, { range: [1e-3, 100], log: true, label: "distance (root mean square)" },
      "at an optimum"),
  ];
  [-state.instability, 1].forEach((h, index) => {
    for (const [lr, momentum, tone, dash] of arms) {
      const path = variances(h, lr, momentum, STEPS).map((value, step) => [step, Math.sqrt(value)]);
      panels[index].curve(path.slice(1), tone, { dash });
    }
  });
  panels[0].curve([[0, 1], [STEPS, 1]], colour.soft, { dash: [2, 3], width: 1 });
  panels[1].legend([["momentum", colour.momentum], ["plain", colour.plain, [6, 4]]], true);
}

function summary(state) {
  const arms = [[state.lr, state.momentum], [plainRate(state), 0]];
  const left = arms.map(([lr, momentum]) => variances(-state.instability, lr, momentum, 20000).findIndex((v) => v >= 1));
  const [fast, slow] = left.map((step) => (step < 0 ? "more than 20 000" : step));
  const [noisy, calm] = arms.map(([lr, momentum]) => round(Math.sqrt(hovering(1, lr, momentum))));
  const control = state.matched ? "the same effective step" : "the same learning rate";
  return `At ${control} (plain: ${round(plainRate(state))}) the typical distance on the saddle reaches one after ${fast} steps with momentum `
    + `and after ${slow} without; at the optimum it hovers at ${noisy} with and at ${calm} without.`;
}

export const render = mount({
  name: "saddles",
  panels: 2,
  height: 280,
  controls: [
    { id: "lr", label: "learning rate η (heavy ball)", min: 0.001, max: 2, value: 0.01, log: true },
    MOMENTUM,
    { id: "instability", label: "instability b of the saddle", min: 0.05, max: 2, step: 0.05, value: 1 },
    MATCHED,
  ],
  presets: [
    ...SWITCH,
    { label: "strong momentum: the ceiling", state: { momentum: 0.99 } },
    { label: "inertia slows: matched, steep", state: { lr: 0.05, momentum: 0.95, instability: 2, matched: 1 } },
    { label: "plain descent diverges", state: { lr: 0.3, momentum: 0.9, matched: 1 } },
  ],
  draw,
  summary,
  golden: numbers,
});
