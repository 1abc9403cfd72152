// What every explorer shares: labelled controls, presets, state in the address, the theme's colours, a canvas to draw on,
// a sentence that says what is drawn, and the check against numbers that the Python library computed.

import { Sheet, clamp } from "./sheet.mjs";

const HTML = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

// spec: name, controls [{id, label, min, max, step, value, log, values, unit, names, more}], presets [{label, state}], height,
// draw(sheet, state, cloud), summary(state), golden(input) → numbers; where replicas move on the page also
// live {start(state, random) → cloud, advance(cloud, state, random) by one frame, still: frames shown where nothing may move};
// where points can be dragged, each of which has controls too, handles(state) → [{panel, at: [x, y], to(x, y) → state}].
// A control with up to CHOICES names is a row of buttons; one with `log` or `values` stops at round numbers; one with `more` is
// folded away, and the presets with it.
//
// Draws it wherever the page has a place for it, and returns what a notebook calls to have it in a cell of its own, the
// form of anywidget: there the state is the model's "state", and not the address.
export function mount(spec) {
  const places = globalThis.document?.querySelectorAll(`.explorer[data-explorer="${spec.name}"]`) ?? [];
  for (const root of places) new Explorer(root, spec, new Address(spec));
  return ({ model, el }) => {
    el.classList.add("explorer");
    el.dataset.explorer = spec.name;
    const explorer = new Explorer(el, spec, new Model(model));
    return () => explorer.stop();
  };
}

// The address keeps the state behind the explorer's name: page.html#margins:lr=1,momentum=0.9
class Address {
  constructor(spec) {
    this.spec = spec;
  }

  read() {
    const [name, text] = decodeURIComponent(location.hash.slice(1)).split(":");
    if (name !== this.spec.name || !text) return {};
    return Object.fromEntries(text.split(",").map((part) => part.split("=")).filter(([, value]) => value !== ""));
  }

  write(state) {
    const text = this.spec.controls.map(({ id }) => `${id}=${+state[id].toPrecision(6)}`).join(",");
    history.replaceState(history.state, "", `#${this.spec.name}:${text}`);
  }

  watch(changed) {
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }
}

class Model {
  constructor(model) {
    this.model = model;
  }

  read() {
    return this.model.get("state") ?? {};
  }

  write(state) {
    this.model.set("state", { ...state });
    this.model.save_changes();
  }

  watch(changed) {
    this.model.on("change:state", changed);
    return () => this.model.off("change:state", changed);
  }
}

const CHOICES = 4;
const ROUND = [1, 1.1, 1.2, 1.3, 1.5, 1.7, 2, 2.2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9];

// Powers of two, for sizes of batches.
export const powers = (max) => Array.from({ length: Math.floor(Math.log2(max)) + 1 }, (_, k) => 2 ** k);

function roundNumbers({ min, max }) {
  const decades = Array.from({ length: Math.ceil(Math.log10(max / min)) + 1 }, (_, i) => Math.floor(Math.log10(min)) + i);
  const all = decades.flatMap((power) => ROUND.map((digits) => +`${digits}e${power}`));
  return [min, ...all.filter((value) => value > min && value < max), max];
}

function nearest(values, value) {
  const far = values.map((each) => Math.abs(Math.log(each / value)));
  return far.indexOf(Math.min(...far));
}

class Explorer {
  constructor(root, spec, memory) {
    Object.assign(this, { root, spec, memory, shows: {} });
    this.state = { ...this.defaults(), ...this.remembered() };
    this.canvas = HTML("canvas", { role: "img", "aria-label": "" });
    this.words = HTML("p", { class: "explorer-summary", "aria-live": "polite" });
    this.mark = HTML("p", { class: "explorer-check" });
    const [front, folded] = [false, true].map((more) => this.controls(spec.controls.filter((control) => Boolean(control.more) === more)));
    const player = spec.live ? [this.player()] : [];
    root.replaceChildren(...(folded.children.length
      ? [front, this.canvas, this.words, ...player, HTML("details", {}, HTML("summary", {}, "more"), folded, this.presets())]
      : [front, this.presets(), ...player, this.canvas, this.words]), this.mark);
    root.dataset.ready = "true";
    const size = new ResizeObserver(() => this.draw());
    const theme = new MutationObserver(() => this.draw());
    size.observe(root);
    theme.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    const forget = memory.watch(() => this.set(this.remembered(), false));
    this.stop = () => {
      this.playing = false;
      size.disconnect();
      theme.disconnect();
      forget();
    };
    if (spec.handles) this.dragging();
    this.set(this.state, false);
    this.check();
  }

  defaults() {
    return Object.fromEntries(this.spec.controls.map((control) => [control.id, control.value]));
  }

  // What is remembered of the controls there are, within their ranges.
  remembered() {
    const known = Object.fromEntries(this.spec.controls.map((control) => [control.id, control]));
    return Object.fromEntries(Object.entries(this.memory.read())
      .filter(([id, value]) => id in known && Number.isFinite(+value))
      .map(([id, value]) => [id, fit(+value, known[id])]));
  }

  controls(chosen) {
    const box = HTML("div", { class: "explorer-controls" });
    for (const control of chosen) box.append(control.names?.length <= CHOICES ? this.choice(control) : this.slider(control));
    return box;
  }

  // A slider counts places where it has values of its own, so that a key goes from one round number to the next.
  slider(control) {
    const id = `${this.spec.name}-${control.id}`;
    const values = control.values ?? (control.log ? roundNumbers(control) : null);
    const [low, high, step] = values ? [0, values.length - 1, 1] : [control.min, control.max, control.step];
    const input = HTML("input", { type: "range", id, min: low, max: high, step });
    const output = HTML("output", { for: id });
    input.addEventListener("input", () => this.set({ [control.id]: values ? values[+input.value] : +input.value }));
    this.shows[control.id] = (value) => {
      const number = `${+value.toPrecision(3)}${control.unit ? ` ${control.unit}` : ""}`;
      const text = control.names ? control.names[Math.round(value)] : number;
      input.value = values ? nearest(values, value) : value;
      output.value = text;
      input.setAttribute("aria-valuetext", text);
    };
    return HTML("div", {}, HTML("label", { for: id }, control.label), input, output);
  }

  choice(control) {
    const name = `${this.spec.name}-${control.id}`;
    const inputs = control.names.map((_, value) => HTML("input", { type: "radio", name, value }));
    inputs.forEach((input, value) => input.addEventListener("change", () => this.set({ [control.id]: value })));
    this.shows[control.id] = (value) => inputs.forEach((input, i) => { input.checked = i === Math.round(value); });
    const buttons = control.names.map((text, i) => HTML("label", {}, inputs[i], HTML("span", {}, text)));
    return HTML("fieldset", { class: "explorer-choice" }, HTML("legend", {}, control.label), ...buttons);
  }

  presets() {
    const box = HTML("div", { class: "explorer-presets", role: "group", "aria-label": "places worth a visit" });
    for (const preset of this.spec.presets) {
      const button = HTML("button", { type: "button" }, preset.label);
      button.addEventListener("click", () => this.set({ ...this.defaults(), ...preset.state }));
      box.append(button);
    }
    return box;
  }

  // A cloud plays while it is on the screen. Whoever asks the system for less motion gets a still one, and may start it.
  player() {
    const box = HTML("div", { class: "explorer-presets", role: "group", "aria-label": "the cloud" });
    const play = HTML("button", { type: "button", "data-play": "" });
    const again = HTML("button", { type: "button" }, "start again");
    const wish = matchMedia("(prefers-reduced-motion: reduce)");
    const run = (on) => {
      this.playing = on;
      play.textContent = on ? "pause" : "play";
      this.play();
    };
    play.addEventListener("click", () => run(!this.playing));
    again.addEventListener("click", () => {
      this.restart();
      this.draw();
    });
    wish.addEventListener("change", () => run(!wish.matches));
    new IntersectionObserver(([entry]) => {
      this.visible = entry.isIntersecting;
      this.play();
    }).observe(this.root);
    run(!wish.matches);
    box.append(play, again);
    return box;
  }

  // A finger that meets no point scrolls the page as ever.
  dragging() {
    let held;
    const where = ({ clientX, clientY }) => {
      const { left, top, width, height } = this.canvas.getBoundingClientRect();
      return [((clientX - left) * this.sheet.width) / width, ((clientY - top) * this.sheet.height) / height];
    };
    const near = (event) => this.spec.handles(this.state).find(({ panel, at }) => {
      const [[x, y], place] = [where(event), this.sheet.drawn[panel].inside(at)];
      return Math.hypot(x - place[0], y - place[1]) < 24;
    });
    this.canvas.addEventListener("touchstart", (event) => near(event.touches[0]) && event.preventDefault(), { passive: false });
    this.canvas.addEventListener("pointerdown", (event) => {
      held = near(event);
      if (held) this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      this.canvas.style.cursor = held ? "grabbing" : near(event) ? "grab" : "";
      if (!held) return;
      const [[x, y], { from }] = [where(event), this.sheet.drawn[held.panel]];
      const known = Object.fromEntries(this.spec.controls.map((control) => [control.id, control]));
      const moved = Object.entries(held.to(from.x(x), from.y(y))).filter(([, value]) => Number.isFinite(value));
      this.set(Object.fromEntries(moved.map(([id, value]) => [id, fit(value, known[id])])));
    });
    for (const end of ["pointerup", "pointercancel"]) this.canvas.addEventListener(end, () => { held = undefined; });
  }

  restart() {
    if (!this.spec.live) return;
    this.random = normals(1);
    this.cloud = this.spec.live.start(this.state, this.random);
    if (!this.playing) for (let i = 0; i < this.spec.live.still; i += 1) this.advance();
  }

  advance() {
    this.spec.live.advance(this.cloud, this.state, this.random);
  }

  // One loop at most; frames per second are kept where a test can read them.
  play() {
    if (this.looping || !this.playing || !this.visible) return;
    this.looping = true;
    let [frames, since] = [0, performance.now()];
    const frame = (now) => {
      this.looping = this.playing && this.visible;
      if (!this.looping) return;
      this.advance();
      this.draw();
      frames += 1;
      if (now - since > 500) {
        this.root.dataset.fps = Math.round((1000 * frames) / (now - since));
        [frames, since] = [0, now];
      }
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  set(change, remember = true) {
    Object.assign(this.state, change);
    this.restart();
    for (const { id } of this.spec.controls) this.shows[id](this.state[id]);
    if (remember) this.memory.write(this.state);
    this.draw();
  }

  draw() {
    const width = this.root.clientWidth;
    if (!width) return;
    const height = this.spec.height * (width < 500 ? (this.spec.panels ?? 1) : 1);
    const ratio = window.devicePixelRatio || 1;
    Object.assign(this.canvas, { width: width * ratio, height: height * ratio });
    this.canvas.style.height = `${height}px`;
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    this.sheet = new Sheet(context, width, height, this.spec.panels ?? 1, colours(this.root));
    this.spec.draw(this.sheet, this.state, this.cloud);
    const words = this.spec.summary(this.state);
    if (this.words.textContent !== words) this.words.textContent = words;
    this.canvas.setAttribute("aria-label", words);
  }

  // The same formulas in Python wrote down what must come out; a difference is shown, not hidden.
  async check() {
    try {
      const address = new URL(`${this.spec.name}.json`, import.meta.url);
      const { points, tolerance } = await (await fetch(address)).json();
      const far = points.filter(({ input, output }) => {
        const found = this.spec.golden(input);
        return found.length !== output.length
          || output.some((value, i) => !(Math.abs(found[i] - value) <= tolerance * Math.max(1, Math.abs(value))));
      });
      this.root.dataset.check = far.length ? "wrong" : "right";
      this.mark.textContent = far.length
        ? `✗ differs from the library at ${far.length} of ${points.length} points`
        : `✓ agrees with the library at ${points.length} points`;
    } catch {
      this.root.dataset.check = "missing";
      this.mark.textContent = "the library's numbers could not be read, so this drawing is unchecked";
    }
  }
}

// Standard normal numbers from a fixed seed: the same cloud for every reader.
export function normals(seed) {
  let word = seed;
  const uniform = () => {
    word = (word + 0x6d2b79f5) | 0;
    let mixed = Math.imul(word ^ (word >>> 15), 1 | word);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
  const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return Object.assign(normal, { uniform });
}

const fit = (value, { min, max, names }) => (names ? Math.round(clamp(value, min, max)) : clamp(value, min, max));

// Where the book's style sheet is not loaded: readable on light and on dark.
const TONES = { plain: "#4f8fca", momentum: "#d0692a", feature: "#2f9a89", annealed: "#9a7b5f", memory: "#d2586f", soft: "#8a929a" };

function colours(node) {
  const style = getComputedStyle(node);
  const own = ([name, tone]) => [name, style.getPropertyValue(`--explorer-${name}`).trim() || tone];
  return Object.fromEntries(Object.entries({ ink: style.color, ...TONES }).map(own));
}
