// The lanes: what each task did over time, on a canvas. A long time in which no task runs can be
// drawn short; a step never is.

const ROW = 20; // height of a lane
const NAMES = 150; // width of the names
const AXIS = 38; // height of the times above the lanes
const CLOCK = 11, LENGTHS = 28; // the middle of their two rows
const TICK = 110; // between two times
const LEAST = 1e4; // ns that are shown at least
const LONGER = 30; // a time in which no task runs, and so many times as long as usual, is drawn short,
const BUSY = 0.08; // but not shorter than this part of all other times
const CHANGING = new Set(["spawn", "wake", "step", "yield", "over", "done"]);
const STATES = { running: 0, ready: 1, waiting: 2, completing: 3 };
const DASHES = { file: [], time: [2, 4], other: [9, 4], children: [9, 3, 2, 3] }; // of each kind of wait

class Lanes {
  constructor(data, pick) {
    this.data = data;
    this.pick = pick; // called with an event's number
    this.rows = []; // the numbers of the tasks, children under their parents; 0 is the scheduler
    this.scheduler = []; // its parts: it runs in the steps of all, and waits in the selector
    this.parts = new Map([[0, this.scheduler]]); // of each task: [from, to, state, event, words]
    this.wakes = new Map(); // of each task: [ns, by]
    this.depth = new Map();
    this.children = new Map([[0, []]]);
    this.open = new Map(); // the part of each task that has not ended yet
    this.idle = new Set(); // the numbers of the events up to which no task runs
    this.squeezed = true;
    this.zoom = 1;
    this.left = 0; // of the view, as a part of the whole
    this.ns = 0;
  }

  // Take the next event; `state` is as it is behind it.
  take(event, state) {
    const id = event.task;
    if (this.nobody) this.idle.add(event.i);
    this.nobody = state.running === null; // runs until the next event
    if (id === undefined) {
      if (event.kind === "poll") this.polled = event.ns;
      if (event.kind === "polled" && this.polled !== undefined) {
        this.scheduler.push([this.polled, event.ns, 2, event.i, "file"]);
      }
      return;
    }
    if (!this.parts.has(id)) {
      this.parts.set(id, []);
      const [, parent] = this.data.header.tasks[id] || ["?", null];
      this.children.set(id, []);
      this.children.get(parent && this.parts.has(parent) ? parent : 0).push(id);
    }
    if (event.kind === "wake") {
      if (!this.wakes.has(id)) this.wakes.set(id, []);
      this.wakes.get(id).push([event.ns, event.by ?? 0]);
    }
    if (!CHANGING.has(event.kind)) return;
    const task = state.task(id);
    const last = this.open.get(id);
    if (last && last[2] !== undefined) {
      last[1] = event.ns;
      if (last[1] > last[0] || last[2] === 0) this.parts.get(id).push(last);
      if (last[2] === 0) this.scheduler.push([last[0], last[1], 0, last[3], id]);
    }
    const on = task.on;
    const lives = (child) => state.task(child).state !== "done";
    const kind = task.state === "completing" ? (this.children.get(id).some(lives) ? "children" : "none")
      : "until" in on ? "time" : "read" in on || "write" in on || "urgent" in on ? "file" : "other";
    this.open.set(id, [event.ns, event.ns, STATES[task.state], event.i, kind]);
  }

  // There are no more events.
  finish() {
    const events = this.data.events;
    // What was before the first task, and after the last, is no part of the picture.
    const told = events.filter((event) => event.task);
    const last = told.length ? told[told.length - 1].ns : 0;
    for (const [id, part] of this.open) {
      if (part[2] === undefined) continue;
      part[1] = last;
      this.parts.get(id).push(part);
    }
    const todo = [[0, 0]];
    while (todo.length) {
      const [id, level] = todo.pop();
      this.rows.push(id);
      this.depth.set(id, level);
      for (const child of this.children.get(id).slice().reverse()) todo.push([child, level + 1]);
    }
    this.rowOf = new Map(this.rows.map((id, n) => [id, n]));
    this.begin = told.length ? told[0].ns : 0;
    this.end = Math.max(last, this.begin + 1);
    this.warp();
  }

  // Lay time out: between two of these points it is even.
  warp() {
    const events = this.data.events.filter(({ ns }) => ns >= this.begin && ns <= this.end);
    const gaps = Float64Array.from(events, ({ ns }, n) => (n ? ns - events[n - 1].ns : 0));
    const usual = gaps.slice().sort().subarray(0, Math.ceil(0.8 * gaps.length)); // few are very long
    const mean = usual.reduce((a, b) => a + b, 0) / usual.length;
    const busy = gaps.reduce((sum, gap, n) => sum + (this.idle.has(events[n].i) ? 0 : gap), 0);
    const most = this.squeezed ? Math.max(1, LONGER * mean, BUSY * busy) : Infinity;
    this.at = [this.begin];
    this.x = [0];
    this.short = []; // the times that are drawn short
    const add = (ns, width) => {
      this.at.push(ns);
      this.x.push(this.x.at(-1) + width);
    };
    events.forEach(({ i, ns }, n) => {
      if (!(gaps[n] > most && this.idle.has(i))) return;
      const from = ns - gaps[n];
      add(from, from - this.at.at(-1));
      add(ns, most);
      this.short.push([from, ns]);
    });
    add(this.end, this.end - this.at.at(-1));
    this.width = this.x.at(-1) || 1;
  }

  convert(value, from, to) {
    let low = 0, high = from.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (from[middle] <= value) low = middle;
      else high = middle;
    }
    const width = from[high] - from[low];
    const part = width ? (value - from[low]) / width : 0;
    return to[low] + part * (to[high] - to[low]);
  }

  // Where a time is, from 0 to 1; and the other way.
  where(ns) { return this.convert(ns, this.at, this.x) / this.width; }
  when(where) { return this.convert(where * this.width, this.x, this.at); }

  show(ns) {
    this.ns = ns;
    const x = (this.where(ns) - this.left) * this.zoom;
    if (x < 0.02 || x > 0.98) this.scrollTo(this.where(ns) - 0.5 / this.zoom);
  }

  scrollTo(left) { this.left = Math.max(0, Math.min(1 - 1 / this.zoom, left)); }

  zoomBy(factor, around) {
    const middle = around ?? Math.min(1, Math.max(0, (this.where(this.ns) - this.left) * this.zoom));
    const fixed = this.left + middle / this.zoom;
    this.zoom = Math.max(1, Math.min(this.width / LEAST, this.zoom * factor));
    this.scrollTo(fixed - middle / this.zoom);
  }

  // Draw the lanes, and the line that says where we are. Most steps move nothing but that.
  draw(selected) {
    const box = $("lanes"), canvas = $("canvas");
    const wide = box.clientWidth, high = box.clientHeight, scale = window.devicePixelRatio || 1;
    const root = document.documentElement;
    const key = [wide, high, scale, box.scrollTop, this.zoom, this.left, this.squeezed, selected,
      root.dataset.theme].join();
    if (canvas.width !== Math.round(wide * scale) || canvas.height !== Math.round(high * scale)) {
      canvas.width = Math.round(wide * scale);
      canvas.height = Math.round(high * scale);
      canvas.style.height = `${high}px`;
    }
    if (!canvas.width || !canvas.height) return; // nothing can be drawn into it
    if (this.drawn !== key) {
      this.drawn = key;
      this.layer ||= document.createElement("canvas");
      this.layer.width = canvas.width;
      this.layer.height = canvas.height;
      this.style = getComputedStyle(root);
      this.drawLayer(this.layer.getContext("2d"), selected, wide, high, scale, box.scrollTop);
    }
    const c = canvas.getContext("2d");
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.clearRect(0, 0, canvas.width, canvas.height);
    c.drawImage(this.layer, 0, 0);
    const names = Math.min(NAMES, wide / 3);
    const now = names + (this.where(this.ns) - this.left) * this.zoom * (wide - names);
    c.setTransform(scale, 0, 0, scale, 0, 0);
    c.fillStyle = this.style.getPropertyValue("--bad");
    if (now >= names) c.fillRect(now - 1, 0, 2, high);
  }

  drawLayer(c, selected, wide, high, scale, scrolled) {
    $("spacer").style.height = `${Math.max(0, this.rows.length * ROW + AXIS + 8 - high)}px`;
    const color = (name) => this.style.getPropertyValue(`--${name}`).trim();
    const solid = color("solid-l"), text = color("text"), soft = color("soft"), line = color("line");
    c.setTransform(scale, 0, 0, scale, 0, 0);
    c.font = "12px system-ui, sans-serif";
    c.textBaseline = "middle";
    const names = Math.min(NAMES, wide / 3), plot = wide - names;
    const X = (ns) => names + (this.where(ns) - this.left) * this.zoom * plot;
    const from = this.when(this.left), to = this.when(this.left + 1 / this.zoom);
    const top = Math.floor(scrolled / ROW);
    const rows = this.rows.slice(top, top + Math.ceil(high / ROW) + 1);
    const yOf = (row) => AXIS + (row - top) * ROW + 4 - (scrolled % ROW);
    const short = this.short.filter(([began, ended]) => ended >= from && began <= to);
    for (const [began, ended] of short) {
      const left = Math.max(names, X(began)), width = Math.max(1, X(ended) - left);
      c.fillStyle = line;
      c.fillRect(left, AXIS, width, high);
      if (width < ROW) continue;
      c.fillStyle = soft; // its edges
      c.fillRect(left, AXIS, 1, high);
      c.fillRect(left + width - 1, AXIS, 1, high);
    }
    rows.forEach((id, n) => {
      const y = yOf(top + n);
      const hue = hueOf(id);
      c.fillStyle = id === selected ? line : "transparent";
      c.fillRect(0, y - 1, wide, ROW);
      this.drawParts(c, this.parts.get(id) || [], id, y, { from, to, X, names, solid, soft, hue, text });
      c.fillStyle = id === selected ? line : color("shade");
      c.fillRect(0, y - 1, names - 4, ROW);
      c.fillStyle = text;
      const name = id === 0 ? "scheduler" : this.nameOf(id);
      c.fillText(this.fit(c, name, names - 12 - this.indent(id)), 6 + this.indent(id), y + ROW / 2 - 1);
    });
    this.drawWakes(c, selected, { X, yOf, from, to, text });
    this.drawTimes(c, short, { X, names, wide, soft, text, back: color("shade"), line });
    $("scale").textContent = `${span(Math.max(0, Math.round(to - from)))} shown`;
  }

  // The times above the lanes: the clock, and below it how long each is that is drawn short.
  drawTimes(c, short, { X, names, wide, soft, text, back, line }) {
    c.fillStyle = back;
    c.fillRect(0, 0, wide, AXIS);
    c.fillStyle = soft;
    c.fillText("time", 6, CLOCK);
    if (short.length) c.fillText("drawn short", 6, LENGTHS);
    const taken = { [CLOCK]: names, [LENGTHS]: names }; // up to where each row is written
    const write = (words, x, y, color) => {
      const half = c.measureText(words).width / 2 + 3;
      const left = Math.min(wide - half, Math.max(names + half, x)) - half;
      if (left < taken[y]) return;
      taken[y] = left + 2 * half;
      c.fillStyle = color;
      c.fillText(words, left + 3, y);
    };
    const labels = []; // narrow ones side by side have one
    for (const [began, ended] of short.slice(0, 200)) {
      const last = labels.at(-1);
      if (last?.[1] === began && X(ended) - X(began) < TICK / 2) last[1] = ended;
      else labels.push([began, ended]);
    }
    const ends = labels.map(([began, ended]) => [Math.max(names, X(began)), Math.min(wide, X(ended))]);
    c.fillStyle = line;
    for (const [left, right] of ends) c.fillRect(left, LENGTHS - 8, right - left, AXIS);
    labels.forEach(([began, ended], n) => {
      const [left, right] = ends[n];
      if (right - left > 4) write(span(ended - began), (left + right) / 2, LENGTHS, text);
    });
    for (let x = names + TICK / 2; x < wide; x += TICK) {
      c.fillStyle = soft;
      c.fillRect(x, 0, 1, 4); // the time is of this point
      write(span(Math.round(this.when(this.left + (x - names) / (wide - names) / this.zoom))), x, CLOCK, soft);
    }
  }

  indent(id) { return Math.min(6, this.depth.get(id) || 0) * 8; }

  nameOf(id) {
    const [name] = this.data.header.tasks[id] || ["?"];
    return `${name}#${id}`;
  }

  fit(c, text, width) {
    if (c.measureText(text).width <= width) return text;
    let most = text.length;
    while (most > 1 && c.measureText(text.slice(0, most) + "…").width > width) most -= 1;
    return text.slice(0, most) + "…";
  }

  drawParts(c, parts, id, y, { from, to, X, names, solid, soft, hue, text }) {
    let low = 0, high = parts.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (parts[middle][1] < from) low = middle + 1;
      else high = middle;
    }
    const middle = y + ROW / 2 - 1;
    const ready = new Path2D();
    const lines = {};
    let right = Math.max(names, low < parts.length ? X(parts[low][0]) : names);
    c.fillStyle = `hsl(${hue} 62% ${solid})`;
    let drawn = -Infinity; // up to where something was drawn: less than a pixel is not seen
    for (let n = low; n < parts.length && parts[n][0] <= to; n++) {
      const [began, ended, state, , kind] = parts[n];
      const left = n > low && parts[n - 1][1] === began ? right : Math.max(X(began), names);
      right = Math.max(X(ended), names);
      if (state === 0) {
        const width = Math.max(right - left, 1.5);
        if (left + width < drawn + 0.5) continue;
        if (id === 0) c.fillStyle = `hsl(${hueOf(kind)} 62% ${solid})`;
        c.fillRect(left, y + 2, width, ROW - 6);
        drawn = left + width;
      } else if (right - Math.max(left, drawn) < 1) {
        continue;
      } else if (state === 1) {
        ready.rect(left + 0.5, y + 5.5, Math.max(0, right - left - 1), ROW - 13);
        for (let x = left; right - left > 4 && x < right; x += 5) {
          ready.moveTo(x, y + ROW - 7);
          ready.lineTo(Math.min(x + 6, right), y + 5);
        }
      } else if (kind !== "none") {
        const path = (lines[kind] ||= new Path2D());
        path.moveTo(left, middle);
        path.lineTo(right, middle);
      }
    }
    c.lineWidth = 1;
    c.strokeStyle = `hsl(${hue} 62% ${solid})`;
    c.stroke(ready);
    c.lineWidth = 2;
    c.strokeStyle = id === 0 ? soft : `hsl(${hue} 40% ${solid})`;
    for (const [kind, path] of Object.entries(lines)) {
      c.setLineDash(DASHES[kind]);
      c.stroke(path);
    }
    c.setLineDash([]);
    const last = parts[parts.length - 1];
    if (id !== 0 && last && last[1] < this.end && last[1] >= from && last[1] <= to) {
      c.fillStyle = text; // a cap: it ended here
      c.fillRect(Math.max(names, X(last[1])) - 1, y + 1, 2, ROW - 4);
    }
  }

  // Arrows to the selected task, from those that woke it.
  drawWakes(c, selected, { X, yOf, from, to, text }) {
    const row = this.rowOf.get(selected);
    if (row === undefined || !selected) return;
    const wakes = (this.wakes.get(selected) || []).filter(([ns]) => ns >= from && ns <= to);
    if (wakes.length > 200) return;
    c.strokeStyle = c.fillStyle = text;
    c.lineWidth = 1;
    for (const [ns, by] of wakes) {
      const x = X(ns), y1 = yOf(this.rowOf.get(by) ?? 0) + ROW / 2, y2 = yOf(row) + ROW / 2;
      const tip = y2 > y1 ? y2 - 5 : y2 + 5, back = y2 > y1 ? tip - 5 : tip + 5;
      c.beginPath();
      c.moveTo(x, y1);
      c.lineTo(x, tip);
      c.stroke();
      c.beginPath();
      c.moveTo(x, tip);
      c.lineTo(x - 3, back);
      c.lineTo(x + 3, back);
      c.fill();
    }
  }

  click(event, box) {
    const names = Math.min(NAMES, box.clientWidth / 3);
    const bounds = box.getBoundingClientRect();
    const x = event.clientX - bounds.left, y = event.clientY - bounds.top + box.scrollTop;
    const id = this.rows[Math.floor((y - AXIS - 3) / ROW)];
    if (id === undefined) return;
    if (x < names) return this.pick(null, id);
    const ns = this.when(this.left + (x - names) / (box.clientWidth - names) / this.zoom);
    const parts = this.parts.get(id) || [];
    let found = parts.find(([began, ended]) => began <= ns && ns <= ended);
    if (!found) {
      found = parts.reduce((best, each) => (!best
        || Math.abs(each[0] - ns) < Math.abs(best[0] - ns) ? each : best), null);
    }
    if (found) this.pick(found[3], id === 0 ? null : id);
  }
}
