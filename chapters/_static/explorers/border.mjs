// The border: where momentum ends flatter than plain SGD, and where sharper. To the left the valley law over e·λ₁ and
// momentum; to the right runs of both to uv = 1, the minima of ½(uv − 1)², whose sharpness is u² + v².
import { mount } from "./explorer.mjs";
import { DRAWS, STEPS, flow, path, runs } from "./hyperbola.mjs";
import { MATCHED, MOMENTUM } from "./mode.mjs";
import { PLAIN, delay, drift, marks } from "./valley.mjs";

const [REACH, STRONGEST] = [6, 199]; // of the map: e·λ₁, and c of momentum 0.99
const [FULL, SPREAD] = [11, 2]; // the batch control counts powers of two; relative variance of one example's curvature
const MOMENTA = [0, 0.5, 0.8, 0.9, 0.95, 0.99];
const WORDS = [["flatter:", 0.95, 75], ["out-drifts", 0.95, 55], ["plain SGD", 0.95, 40], ["sharper: plain SGD", 4.1, 36],
  ["is stopped at its edge", 4.1, 26], ["both leave", 4.9, 1.3]]; // on the map of heavy ball, full batch

const c = (momentum) => (1 + momentum) / (1 - momentum);
const start = ({ u, v }) => [u, v];
const batch = (state) => (state.batch < FULL ? 2 ** state.batch : Infinity);
function law(state, given = state.momentum) {
  const momentum = Math.max(1e-6, given); // at none at all the border is a limit
  const share = state.matched || state.rule === 2 ? 1 : 1 - momentum; // of the rule's step that plain SGD takes
  return { rule: { kind: state.rule, momentum }, spread: SPREAD / batch(state), share };
}

function arms(state) {
  const { rule, share } = law(state);
  return runs([[rule, state.effective], [PLAIN, share * state.effective]], start(state), batch(state));
}
const named = ({ rule, momentum }) => ["heavy ball", "Nesterov's rule", `stale descent, k = ${delay(momentum)},`][rule];

// From −1, flatter, to 1, sharper: by the drifts where both stay, by how far the one that cannot is beyond its edge.
function change(z, { rule, spread, share }, { own, plain }) {
  if (z >= own && z >= plain) return NaN;
  if (z >= plain) return Math.log(z / plain) / Math.log(REACH / 2);
  if (z >= own) return -Math.log(z / own) / Math.log(REACH / 2);
  return Math.log(drift(PLAIN, share * z, spread) / drift(rule, z, spread)) / Math.log(STRONGEST);
}

// The coloured ground of the map, kept until something other than the point moves.
const [WIDE, HIGH] = [240, 160];
let ground = {};
function coloured(state, { plain, momentum }) {
  const key = [state.rule, state.batch, state.matched, plain].join();
  if (ground.key === key) return ground.image;
  const image = Object.assign(document.createElement("canvas"), { width: WIDE, height: HIGH });
  const data = new ImageData(WIDE, HIGH);
  const tones = [plain, momentum].map((tone) => [1, 3, 5].map((i) => parseInt(tone.slice(i, i + 2), 16)));
  for (let row = 0; row < HIGH; row += 1) {
    const factor = STRONGEST ** (1 - (row + 0.5) / HIGH);
    const here = law(state, (factor - 1) / (factor + 1));
    const known = marks(here);
    for (let column = 0; column < WIDE; column += 1) {
      const value = change((REACH * (column + 0.5)) / WIDE, here, known);
      const depth = Number.isNaN(value) ? 0 : 32 + 104 * Math.min(1, Math.abs(value));
      data.data.set([...tones[+(value > 0)], depth], 4 * (row * WIDE + column));
    }
  }
  image.getContext("2d").putImageData(data, 0, 0);
  ground = { key, image };
  return image;
}

function draw(sheet, state, cloud) {
  map(sheet, state);
  const place = sheet.axes(1, { range: [0.4, 3.4], label: "u" }, { range: [-0.7, 1.9], label: "v" }, "runs, and the minima uv = 1");
  place.curve(Array.from({ length: 100 }, (_, i) => [0.4 + 0.03 * i, 1 / (0.4 + 0.03 * i)]), sheet.colour.soft);
  const tones = [sheet.colour.momentum, sheet.colour.plain];
  [1, 0].forEach((arm) => trail(place, arms(state)[arm].all[0], tones[arm], Math.round(cloud.shown)));
  gauge(place, state, cloud, tones);
  place.dots([start(state)], sheet.colour.ink, 6);
}

// The whole path is faint; what has been shown of it is not.
function trail(place, { us, vs }, tone, shown) {
  const points = us.map((u, i) => [u, vs[i]]);
  place.curve(points, `${tone}50`, { width: 1 });
  const seen = points.slice(0, shown + 1);
  place.curve(seen, tone, { width: 1.6 });
  place.dots(seen.slice(-1), tone, 5);
}

function map(sheet, state) {
  const { colour, context } = sheet;
  const panel = sheet.axes(0, { range: [0, REACH], label: "effective step × sharpness, e·λ₁" }, { range: [1, STRONGEST], log: true,
    label: "momentum", marks: MOMENTA.map((m) => [c(m), String(m)]) }, "the valley law");
  const { left, right, top, bottom } = panel.box;
  context.drawImage(coloured(state, colour), left, top, right - left, bottom - top);
  const rows = Array.from({ length: 100 }, (_, i) => STRONGEST ** (i / 99));
  const lines = rows.map((factor) => [factor, marks(law(state, (factor - 1) / (factor + 1)))]);
  panel.curve(lines.map(([factor, { plain }]) => [plain, factor]), colour.ink, { width: 1.2, dash: [5, 3] });
  panel.curve(lines.map(([factor, { own }]) => [own, factor]), colour.ink, { width: 1.2, dash: [2, 3] });
  panel.curve(lines.map(([factor, { border }]) => [border, factor]), colour.ink, { width: 1.6 });
  const kinds = [["border z×", colour.ink], ["plain SGD's edge", colour.ink, [5, 3]], ["own edge", colour.ink, [2, 3]]];
  const common = state.rule === 0 && state.matched && state.batch === FULL;
  panel.legend(common ? kinds : [...kinds, ["flatter", colour.plain], ["sharper", colour.momentum]], true);
  if (common) for (const [words, z, factor] of WORDS) panel.words(words, z, factor);
  panel.dots([[state.effective * flow(start(state)), c(state.momentum)]], colour.ink, 6);
}

const round = (value, digits = 3) => (Number.isFinite(value) ? String(+value.toPrecision(digits)) : "∞");
const ended = ({ all, ends, mean }) => (ends.length ? round(mean) : all.every((run) => run.left) ? "leaves" : "never rests");

// Where momentum ends, against plain SGD: by the runs of which something is left.
function outcome(state) {
  const [own, plain] = arms(state);
  if (!own.ends.length) return plain.ends.length ? "only plain SGD stays" : "neither stays";
  if (!plain.ends.length) return "only momentum stays";
  const ratio = own.mean / plain.mean;
  return Math.abs(Math.log(ratio)) < 1e-3 ? "both end alike" : `momentum ends ${ratio < 1 ? "flatter" : "sharper"}, × ${round(ratio)}`;
}

// Two bars of sharpness where the paths are now, ticks where runs end, an upright line where gradient flow does; badges.
function gauge({ sheet: { context, colour }, box }, state, cloud, tones) {
  const [wide, found, smooth] = [0.68 * (box.right - box.left), arms(state), flow(start(state))];
  const [left, top] = [box.right - wide - 8, box.top + 6];
  const most = 1.1 * Math.max(smooth, ...found.flatMap(({ ends }) => ends));
  const at = (value) => left + 0.76 * wide * Math.min(1, Math.max(0, Math.log(value / 1.5) / Math.log(most / 1.5)));
  const write = (words, x, y, align) => Object.assign(context, { fillStyle: colour.ink, textAlign: align }).fillText(words, x, y);
  const fill = (tone, ...sides) => Object.assign(context, { fillStyle: tone }).fillRect(...sides);
  context.clearRect(left - 4, top, wide + 8, 130); // paths that come by here would cross words
  write(outcome(state), left + wide, top + 11, "right");
  fill(colour.soft, at(smooth), top + 26, 1, 56);
  found.forEach((arm, i) => {
    const [{ us, vs }, y] = [arm.all[0], top + 33 + 32 * i];
    const now = Math.min(us.length - 1, Math.round(cloud.shown));
    write(["momentum", "plain SGD"][i], left, y - 4, "left");
    write(ended(arm), left + wide, y + 9, "right");
    fill(tones[i], left, y, at(us[now] ** 2 + vs[now] ** 2) - left, 9);
    for (const value of arm.ends) fill(colour.ink, at(value) - 0.75, y - 2, 1.5, 13);
  });
  const { border, own, plain } = marks(law(state));
  [["e·s", state.effective * smooth], ["z×", border], ["SGD edge", plain], ["own edge", own]].forEach(([name, value], i) => {
    const [x, y] = [left + (i % 2) * 0.5 * wide, top + 84 + 24 * Math.floor(i / 2)];
    Object.assign(context, { strokeStyle: colour.soft, lineWidth: 1 }).strokeRect(x + 1, y, 0.5 * wide - 2, 20);
    write(`${name} ${round(value, i < 2 ? 3 : 2)}`, x + 0.25 * wide, y + 14, "center");
  });
}

function verdict(state, z, { own, plain }) {
  const [here, name] = [law(state), named(state)];
  if (z >= own && z >= plain) return "both leave";
  if (z >= plain) return "plain SGD is stopped at its edge, momentum is not: sharper";
  if (z >= own) return `${name} is stopped at its edge, plain SGD is not: flatter`;
  const ratio = drift(here.rule, z, here.spread) / drift(PLAIN, here.share * z, here.spread);
  return `${name} drifts ${round(ratio)} times as far as plain SGD: ${ratio > 1 ? "flatter" : "sharper"}`;
}

function summary(state) {
  const [own, plain] = arms(state);
  const [found, s] = [marks(law(state)), flow(start(state))];
  const [z, some] = [state.effective * s, batch(state) < Infinity];
  const lost = some ? ` (${DRAWS} draws: ${own.ends.length} and ${plain.ends.length} settle)` : "";
  return `${state.matched ? "Same effective step" : "Same learning rate"}, momentum ${round(state.momentum)}, `
    + `${some ? `batches of ${batch(state)}` : "full batch"}: gradient flow ends at sharpness s = ${round(s)}, so that e·s = ${round(z)}; `
    + `the border is z× = ${round(found.border)}, plain SGD's edge ${round(found.plain)}, the rule's own ${round(found.own)}. `
    + `By the valley law ${verdict(state, z, found)}. On the hyperbola ${named(state)} ${said(own)} and plain SGD ${said(plain)}${lost}: `
    + `${outcome(state)}.${some ? " The law is of means over draws, which near an edge a few runs decide; most runs hold longer." : ""}`;
}
const said = (arm) => (arm.ends.length ? `ends at sharpness ${ended(arm)}` : ended(arm));

export const render = mount({
  name: "border",
  panels: 2,
  height: 400,
  controls: [
    { id: "effective", label: "effective step e", min: 0.01, max: 2, value: 0.2, log: true },
    MOMENTUM,
    { id: "batch", label: "batch size B", min: 0, max: FULL, step: 1, value: FULL,
      names: [...Array.from({ length: FULL }, (_, i) => String(2 ** i)), "full batch"] },
    { id: "rule", label: "rule", min: 0, max: 2, step: 1, value: 0, names: ["heavy ball", "Nesterov", "stale gradients"] },
    { ...MATCHED, label: "plain SGD has", value: 1 },
    { id: "u", label: "start u", min: 0.5, max: 3.3, step: 0.05, value: 3 },
    { id: "v", label: "start v", min: -0.6, max: 1.6, step: 0.05, value: 0.05 },
  ],
  presets: [
    { label: "e = 0.2: flatter", state: {} },
    { label: "e = 0.3: sharper", state: { effective: 0.3 } },
    { label: "between border and edge", state: { effective: 0.19, momentum: 0.5 } },
    { label: "same learning rate", state: { matched: 0, effective: 0.3 } },
    { label: "batches of 4", state: { batch: 2, effective: 0.1 } },
    { label: "stale gradients", state: { rule: 2, momentum: 0.8, effective: 0.03 } },
  ],
  handles: (state) => [
    { panel: 0, at: [state.effective * flow(start(state)), c(state.momentum)],
      to: (z, factor) => ({ effective: z / flow(start(state)), momentum: (factor - 1) / (factor + 1) }) },
    { panel: 1, at: start(state), to: (u, v) => ({ u, v }) },
  ],
  live: { start: () => ({ shown: 0 }), advance: (cloud) => { cloud.shown = Math.min(STEPS, 1.02 * cloud.shown + 0.4); }, still: 300 },
  draw,
  summary,
  golden: ({ kind, momentum, effective, spread, share, z, u, v, steps }) => {
    const rule = { kind, momentum };
    const ends = [path(rule, [u, v], effective, steps), path(PLAIN, [u, v], share * effective, steps)].map(balance);
    const drifts = [drift(rule, z, spread), drift(PLAIN, share * z, spread)].map((value) => 1 / value);
    return [...drifts, ...Object.values(marks({ rule, spread, share })), ...ends.flat()];
  },
});

// u² − v² and sharpness at the end of a path.
function balance({ us, vs, sharpness }) {
  return [us.at(-1) ** 2 - vs.at(-1) ** 2, sharpness];
}
