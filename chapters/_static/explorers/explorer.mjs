// What every explorer shares: labelled controls, presets, state in the address, the theme's colours, axes and curves
// on a canvas, a sentence that says what is drawn, and the check against numbers that the Python library computed.

const HTML = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

// spec: name, controls [{id, label, min, max, step, value, log, digits, unit, names}], presets [{label, state}], height,
// draw(sheet, state, cloud), summary(state), golden(input) → numbers; where replicas move on the page also
// live {start(state, random) → cloud, advance(cloud, state, random) by one frame, still: frames shown where nothing may move}.
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

class Explorer {
  constructor(root, spec, memory) {
    Object.assign(this, { root, spec, memory, inputs: {}, outputs: {} });
    this.state = { ...this.defaults(), ...this.remembered() };
    this.canvas = HTML("canvas", { role: "img", "aria-label": "" });
    this.words = HTML("p", { class: "explorer-summary", "aria-live": "polite" });
    this.mark = HTML("p", { class: "explorer-check" });
    root.replaceChildren(this.controls(), this.presets(), ...(spec.live ? [this.player()] : []), this.canvas, this.words, this.mark);
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
      .map(([id, value]) => [id, clamp(+value, known[id].min, known[id].max)]));
  }

  controls() {
    const box = HTML("div", { class: "explorer-controls" });
    for (const control of this.spec.controls) {
      const id = `${this.spec.name}-${control.id}`;
      const [low, high] = control.log ? [Math.log10(control.min), Math.log10(control.max)] : [control.min, control.max];
      const input = HTML("input", { type: "range", id, min: low, max: high, step: control.step });
      const output = HTML("output", { for: id });
      input.addEventListener("input", () => {
        const value = +input.value;
        this.set({ [control.id]: clamp(control.log ? 10 ** value : value, control.min, control.max) });
      });
      this.inputs[control.id] = input;
      this.outputs[control.id] = output;
      box.append(HTML("div", {}, HTML("label", { for: id }, control.label), input, output));
    }
    return box;
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
    for (const control of this.spec.controls) {
      const value = this.state[control.id];
      this.inputs[control.id].value = control.log ? Math.log10(value) : value;
      const number = `${+value.toPrecision(control.digits ?? 3)}${control.unit ? ` ${control.unit}` : ""}`;
      const text = control.names ? control.names[Math.round(value)] : number;
      this.outputs[control.id].value = text;
      this.inputs[control.id].setAttribute("aria-valuetext", text);
    }
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
    this.spec.draw(new Sheet(context, width, height, this.spec.panels ?? 1, colours(this.root)), this.state, this.cloud);
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
function normals(seed) {
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

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

// Where the book's style sheet is not loaded: readable on light and on dark.
const TONES = { plain: "#4f8fca", momentum: "#d0692a", feature: "#2f9a89", memory: "#d2586f", soft: "#8a929a" };

function colours(node) {
  const style = getComputedStyle(node);
  const own = ([name, tone]) => [name, style.getPropertyValue(`--explorer-${name}`).trim() || tone];
  return Object.fromEntries(Object.entries({ ink: style.color, ...TONES }).map(own));
}

// A canvas cut into panels, side by side or, where it is narrow, one below the other.
class Sheet {
  constructor(context, width, height, panels, colour) {
    Object.assign(this, { context, width, height, panels, colour });
    this.stacked = width < 500 && panels > 1;
  }

  // Axes of one panel: x and y are {range: [low, high], log, label}; returns what draws in their coordinates.
  axes(index, x, y, title = "") {
    const { context, colour } = this;
    const wide = this.stacked ? this.width : this.width / this.panels;
    const high = this.stacked ? this.height / this.panels : this.height;
    const corner = this.stacked ? [0, index * high] : [index * wide, 0];
    const box = { left: corner[0] + 52, right: corner[0] + wide - 18, top: corner[1] + 24, bottom: corner[1] + high - 40 };
    const to = { x: scale(x, box.left, box.right), y: scale(y, box.bottom, box.top) };
    Object.assign(context, { strokeStyle: colour.ink, fillStyle: colour.ink, lineWidth: 1, font: "12px sans-serif" });
    context.setLineDash([]);
    context.strokeRect(box.left, box.top, box.right - box.left, box.bottom - box.top);
    text(context, title, box.left, box.top - 8, "left");
    text(context, x.label, (box.left + box.right) / 2, box.bottom + 32, "center");
    for (const value of ticks(x)) text(context, short(value), to.x(value), box.bottom + 15, "center");
    for (const value of ticks(y)) text(context, short(value), box.left - 5, to.y(value) + 4, "right");
    context.save();
    context.translate(corner[0] + 12, (box.top + box.bottom) / 2);
    context.rotate(-Math.PI / 2);
    text(context, y.label, 0, 0, "center");
    context.restore();
    return new Panel(this, box, to);
  }
}

class Panel {
  constructor(sheet, box, to) {
    Object.assign(this, { sheet, box, to });
  }

  curve(points, colour, { dash = [], width = 2 } = {}) {
    const { context } = this.sheet;
    context.save();
    context.beginPath();
    context.rect(this.box.left, this.box.top, this.box.right - this.box.left, this.box.bottom - this.box.top);
    context.clip();
    context.beginPath();
    points.filter((point) => point.every(Number.isFinite))
      .forEach(([x, y], i) => context[i ? "lineTo" : "moveTo"](this.to.x(x), this.to.y(y)));
    Object.assign(context, { strokeStyle: colour, lineWidth: width });
    context.setLineDash(dash);
    context.stroke();
    context.restore();
  }

  dots(points, colour, radius = 3) {
    const { context } = this.sheet;
    context.fillStyle = colour;
    for (const [x, y] of points) {
      if (!Number.isFinite(x) || !Number.isFinite(y)) continue;
      context.beginPath();
      context.arc(clamp(this.to.x(x), this.box.left, this.box.right), clamp(this.to.y(y), this.box.top, this.box.bottom),
        radius, 0, 2 * Math.PI);
      context.fill();
    }
  }

  words(content, x, y) {
    this.sheet.context.fillStyle = this.sheet.colour.ink;
    text(this.sheet.context, content, this.to.x(x), this.to.y(y), "center");
  }

  legend(entries, right = false) {
    const { context } = this.sheet;
    entries.forEach(([name, colour, dash = []], i) => {
      const y = this.box.top + 14 + 16 * i;
      const x = right ? this.box.right - 8 : this.box.left + 8;
      Object.assign(context, { strokeStyle: colour, lineWidth: 2 });
      context.setLineDash(dash);
      context.beginPath();
      context.moveTo(right ? x - 22 : x, y);
      context.lineTo(right ? x : x + 22, y);
      context.stroke();
      context.setLineDash([]);
      context.fillStyle = this.sheet.colour.ink;
      text(context, name, right ? x - 28 : x + 28, y + 4, right ? "right" : "left");
    });
  }
}

function scale({ range: [low, high], log }, start, end) {
  const map = log ? (value) => Math.log(Math.max(value, low * 1e-9)) : (value) => value;
  return (value) => start + ((map(value) - map(low)) / (map(high) - map(low))) * (end - start);
}

function ticks({ range: [low, high], log, count = 5 }) {
  if (log) {
    const [first, last] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
    if (last - first < 2) {
      return [-1, 0, 1, 2].flatMap((k) => [1, 2, 5].map((digit) => digit * 10 ** (first + k)))
        .filter((value) => value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9));
    }
    const every = Math.max(1, Math.ceil((last - first) / 5));
    return Array.from({ length: last - first + 1 }, (_, i) => first + i).filter((k) => (k - first) % every === 0)
      .map((k) => 10 ** k);
  }
  const raw = (high - low) / count;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= raw);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
}

// 1000 as it is, 10⁻⁴ and 2·10⁻⁴ by its power of ten.
function short(value) {
  if (value === 0 || (Math.abs(value) < 1e4 && Math.abs(value) >= 1e-2)) return String(+value.toPrecision(3));
  const power = Math.floor(Math.log10(Math.abs(value)) + 1e-9);
  const digits = +(value / 10 ** power).toPrecision(2);
  return `${digits === 1 ? "" : `${digits}·`}10${[...String(power)].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit] ?? "⁻").join("")}`;
}

function text(context, words, x, y, align) {
  context.textAlign = align;
  context.fillText(words, x, y);
}
