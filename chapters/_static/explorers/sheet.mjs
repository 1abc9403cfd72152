// Axes, curves, points and words on a canvas.
export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

// A canvas cut into panels, side by side or, where it is narrow, one below the other.
export class Sheet {
  constructor(context, width, height, panels, colour) {
    Object.assign(this, { context, width, height, panels, colour, drawn: [] });
    this.stacked = width < 500 && panels > 1;
  }

  // Axes of one panel: x and y are {range: [low, high], log, label, marks: [[value, name]] in the place of numbers};
  // returns what draws in their coordinates.
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
    for (const [value, name] of x.marks ?? ticks(x)) text(context, name, to.x(value), box.bottom + 15, "center");
    for (const [value, name] of y.marks ?? ticks(y)) text(context, name, box.left - 5, to.y(value) + 4, "right");
    context.save();
    context.translate(corner[0] + 12, (box.top + box.bottom) / 2);
    context.rotate(-Math.PI / 2);
    text(context, y.label, 0, 0, "center");
    context.restore();
    const from = { x: unscale(x, box.left, box.right), y: unscale(y, box.bottom, box.top) };
    this.drawn[index] = new Panel(this, box, to, from);
    return this.drawn[index];
  }
}

class Panel {
  constructor(sheet, box, to, from) {
    Object.assign(this, { sheet, box, to, from });
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

  // Where a point is drawn: on the rim, if it lies outside.
  inside([x, y]) {
    const { left, right, top, bottom } = this.box;
    return [clamp(this.to.x(x), left, right), clamp(this.to.y(y), top, bottom)];
  }

  dots(points, colour, radius = 3) {
    const { context } = this.sheet;
    context.fillStyle = colour;
    for (const [x, y] of points) {
      if (!Number.isFinite(x) || !Number.isFinite(y)) continue;
      context.beginPath();
      context.arc(...this.inside([x, y]), radius, 0, 2 * Math.PI);
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

function unscale({ range: [low, high], log }, start, end) {
  return (place) => {
    const part = (place - start) / (end - start);
    return log ? low * (high / low) ** part : low + part * (high - low);
  };
}

const ticks = (axis) => places(axis).map((value) => [value, short(value)]);

function places({ range: [low, high], log, count = 5 }) {
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
