// What the page shows of a state: chips, panels, the source. All text is put in as text.

const $ = (id) => document.getElementById(id);
const SHOWN = 60; // tasks in a panel
const ROWS = 12; // tasks in a table of variables
const WHYS = { // why a task is ready, where one word does not say it
  yield: "gave way", "at once": "need not wait", io: "file ready", timer: "time is up",
  join: "task ended", cancel: "is cancelled",
};
const STANDS = { // what it means that a task stands in a line
  waiting: "waiting here", ready: "will go on here", running: "went on from here",
  completing: "last waited here", done: "last waited here",
};

// Make an element: el("p", {class: "x"}, "text", another, [more]).
function el(name, attributes, ...inside) {
  const found = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "style") for (const [k, v] of Object.entries(value)) found.style.setProperty(k, v);
    else if (key.startsWith("on")) found.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) found.setAttribute(key, value);
  }
  found.append(...inside.flat().filter((each) => each !== null && each !== undefined));
  return found;
}

const hueOf = (id) => Math.round((id * 137.508) % 360);

// How a task has ended, in words.
function howEnded(task) {
  return task.how === "failed" ? `failed: ${errorInWords(task.error, task.message || undefined)}`
    : task.how === "abandoned" ? "left when the run ended" : task.how;
}

// The state of a task, in words.
function stateOf(task, state) {
  const ended = howEnded(task);
  if (task.state === "completing") {
    const names = namesOf(state.awaited(task.id), state);
    return names ? `${ended}; waits for the end of ${names}` : ended;
  }
  return task.state === "done" ? ended : task.state;
}

// What a task waits for, as it is said behind "waits"; if that depends on tasks, they follow.
function waitOf({ on, trap }, depends, now) {
  if ("until" in on) return untilInWords(on.until, now);
  if ("join" in on) return "for the end of";
  if ("what" in on) {
    const held = on.what.startsWith(ACQUIRE) ? ", held by" : ", depends on";
    return wishInWords(on.what).trim() + (depends ? held : "");
  }
  const way = { read: "to read", write: "to write", urgent: "for urgent data of" };
  for (const [name, words] of Object.entries(way)) if (name in on) return `${words} fd ${on[name]}`;
  return trap ? `as ${trap} says` : "for its next turn";
}

// What it means for a task that it stands in its line; `own` is an event that says where it is.
function standing(task, own) {
  if (task.how === "failed") return "failed here";
  if (own?.kind === "mark") return "is here";
  // Before its first wait its line is that in which it was spawned.
  const parked = task.state === "waiting" || task.state === "ready";
  return task.steps < (parked ? 1 : 2) ? "spawned here" : STANDS[task.state];
}

// The value of a variable of a task, undefined if it has none: any name may be one, `constructor` too.
const valueOf = ({ locals }, name) => (Object.hasOwn(locals, name) ? locals[name] : undefined);

// Does a value say more than the name of its class?
const says = (value) => value !== undefined && !/^<[^ ]+>$/.test(value);

class View {
  // `find` gives the element in which a part of the page is shown, by the part's name.
  constructor(data, select, find) {
    this.data = data;
    this.find = find;
    this.codes = data.header.code;
    this.select = select; // called with a task's number
    this.places = new Map(); // where each chip was
    this.file = null;
    this.lines = [];
    this.marked = [];
    this.count();
  }

  // Count how often a task has waited in each line.
  count() {
    this.counts = new Map(); // of each file, its lines
    for (const event of this.data.events) {
      if (event.kind !== "yield") continue;
      for (const [code, line] of event.stack ?? [[event.code, event.line]]) {
        const file = code >= 0 ? this.codes[code][1] : undefined;
        if (!this.counts.has(file)) this.counts.set(file, new Map());
        const lines = this.counts.get(file);
        lines.set(line, (lines.get(line) ?? 0) + 1);
      }
    }
  }

  // The file in which tasks wait most often.
  program() {
    const sums = [...this.counts].map(([file, lines]) => [file, [...lines.values()].reduce((a, b) => a + b)]);
    return sums.filter(([file]) => file).sort((a, b) => b[1] - a[1])[0]?.[0];
  }

  chip(state, id, why, small) {
    const task = state.task(id);
    const selected = id === this.selected ? " selected" : "";
    const unknown = task.state === "unknown" ? " unknown" : "";
    return el("button", {
      class: `chip${selected}${unknown}`,
      style: { "--hue": hueOf(id) },
      title: `${task.name}#${id}: ${stateOf(task, state)}`,
      onclick: () => this.select(id),
    }, small ? `#${id}` : `${task.name}#${id}`, why ? el("span", { class: "why" }, why) : null);
  }

  // A text in which each `name#3` is the chip of that task.
  withChips(state, text) {
    const found = [];
    let from = 0;
    for (const match of text.matchAll(/([^\s(),]+)#(\d+)/g)) {
      const id = Number(match[2]);
      if (!state.tasks.has(id) || state.task(id).name !== match[1]) continue;
      found.push(text.slice(from, match.index), this.chip(state, id));
      from = match.index + match[0].length;
    }
    return [...found, text.slice(from)];
  }

  // Show things in a panel, each a task and what makes its node; those that have come from another
  // panel say so by moving.
  fill(id, state, items, empty) {
    const shown = items.slice(0, SHOWN).map(([task, make]) => {
      const node = make();
      if (task && this.places.get(task) !== id) {
        this.places.set(task, id);
        if (!this.fast) node.classList.add("arrives");
      }
      return node;
    });
    if (items.length > SHOWN) {
      shown.push(el("span", { class: "none" }, `and ${items.length - SHOWN} more`));
    }
    if (!items.length) shown.push(el("span", { class: "none" }, empty));
    this.find(id).replaceChildren(...shown);
  }

  // On which others the wait of a task depends.
  whom(state, task) {
    return "join" in task.on ? [task.on.join] : state.holders(task).filter((id) => id !== task.id);
  }

  // The time on the scheduler's clock, if that is the clock of the events.
  clock(state) {
    return this.data.header.clock === undefined ? state.ns : NaN;
  }

  // The name of a function; a comprehension is a part of the function that it stands in.
  functionOf(code) {
    return this.codes[code][0].replace(/\.<locals>\.<\w+>$/, "").split("<locals>.").pop();
  }

  // A task, what it waits for, and the tasks on which that depends.
  wait(state, task, more) {
    const whom = this.whom(state, task);
    return el("div", { class: "row" }, this.chip(state, task.id),
      el("span", { class: "why" }, waitOf(task, whom.length, this.clock(state)) + more),
      whom.slice(0, 5).map((id) => this.chip(state, id)));
  }

  // A task whose body has ended, and the children that it still has.
  completion(state, task) {
    const left = state.awaited(task.id);
    const awaits = left.length === 1 ? "; waits for its child" : "; waits for its children";
    return el("div", { class: "row" }, this.chip(state, task.id),
      el("span", { class: "why" }, howEnded(task) + (left.length ? awaits : "; is not done yet")),
      left.slice(0, 5).map((id) => this.chip(state, id)));
  }

  panels(state) {
    this.fill("ready", state, state.ready.map(
      (id) => [id, () => this.chip(state, id, WHYS[state.task(id).why] ?? state.task(id).why)]), "nobody");
    const running = [];
    if (state.running !== null) {
      const task = state.task(state.running);
      running.push([task.id, () => el("div", { class: "row" }, this.chip(state, task.id),
        el("span", { class: "why" },
          task.steps > 1 ? `went on from ${place(this.codes, task.code, task.line)}` : "its first step"))]);
    } else if (state.polling) {
      const most = state.timeout === null ? "until a file is ready"
        : `at most ${span(Math.floor(state.timeout * 1e9))}`;
      running.push([0, () => el("div", { class: "pulse" },
        state.timeout === 0 ? "The selector is asked." : `The scheduler sleeps, ${most}.`)]);
    }
    this.fill("running", state, running, state.ended ? "The run is over." : "The scheduler itself.");
    const files = [], waits = [];
    for (const task of state.tasks.values()) {
      if (task.state === "completing") waits.push([Infinity, task.id, () => this.completion(state, task)]);
      if (task.state !== "waiting") continue;
      const { read, write, urgent, until = -1 } = task.on;
      const fd = read ?? write ?? urgent;
      const long = fd === undefined ? "" : `, for ${span(state.ns - task.since)} so far`;
      const make = () => this.wait(state, task, long);
      if (fd !== undefined) files.push([fd, task.id, make]);
      else waits.push([until < 0 ? Number.MAX_VALUE : until ?? Infinity, task.id, make]);
    }
    const inOrder = (a, b) => a[0] - b[0] || a[1] - b[1];
    this.fill("files", state, files.sort(inOrder).map((each) => each.slice(1)), "nobody");
    const locks = [...state.locks.values()].map(([label, holder]) => [0, () => el("div", { class: "row" },
      el("span", { class: "lock" }, label), el("span", { class: "why" }, "is held by"), this.chip(state, holder))]);
    this.fill("waits", state, [...waits.sort(inOrder).map((each) => each.slice(1)), ...locks],
      "nobody");
    this.fill("done", state, state.done.slice().reverse().map((id) => {
      const { how, error } = state.task(id);
      const why = how === "failed" ? `failed: ${error}` : how === "returned" ? null : how;
      return [id, () => this.chip(state, id, why)];
    }), "nobody yet");
    this.find("done-count").textContent = state.done_count > state.done.length
      ? `the last ${state.done.length} of ${state.done_count}` : "the last one first";
  }

  // The source of a task: its line, who else stands in the same file, their variables.
  // `event` may say better than the state where the task is.
  source(state, task, event) {
    const own = task && event?.task === task.id && event.line !== undefined ? event : null;
    const { code, line } = own ?? task ?? { code: -1, line: 0 };
    // Before the first task there is nothing to point at, but a program to read.
    const known = task ? this.codes[code] : ["", this.program()];
    const name = known?.[1] ? baseName(known[1]) : "";
    this.find("where").textContent = known && task ? `${this.functionOf(code)}, ${name}:${line}` : name;
    const sources = this.data.header.source;
    const parked = task && ["waiting", "ready"].includes(task.state);
    const whole = !Object.keys(sources).length; // else the frames of the library say nothing
    const frames = (parked && task.stack || []).filter(
      ([code]) => whole || Object.hasOwn(sources, this.codes[code][1]));
    this.find("crumbs").textContent = frames.length > 1
      ? `Call chain: ${frames.map(([code, line]) => `${this.functionOf(code)}:${line}`).join("  ›  ")}` : "";
    this.clear();
    const text = known && Object.hasOwn(sources, known[1]) ? sources[known[1]] : undefined;
    if (text === undefined) {
      this.file = null;
      this.find("source").replaceChildren(el("p", { class: "list none" }, !known
        ? "It stands in no line of the program." : "The source of this file is not in the trace."));
    } else if (this.file !== known[1]) {
      this.file = known[1];
      this.write(text);
    }
    const there = [...state.tasks.values()].filter((each) => each === task || (each.state !== "done"
      && each.steps > 0 && each.code >= 0 && this.codes[each.code][1] === this.file));
    this.variables(state, task, there);
    if (this.file === null) return;
    const groups = new Map(); // of each line, the tasks that stand there, by what that means
    const add = (at, means, id) => {
      const group = groups.get(at) ?? groups.set(at, new Map()).get(at);
      (group.get(means) ?? group.set(means, []).get(means)).push(id);
    };
    const lint = own?.kind === "lint"; // it is about a line where the task is not yet
    if (lint) add(line, "will not run this call", task.id);
    for (const each of there) {
      const mine = each === task && !lint ? own : null;
      const means = standing(each, mine);
      if (each === task || means !== "spawned here") add(mine ? line : each.line, means, each.id);
    }
    for (const [code, at] of frames) {
      if (this.codes[code][1] === this.file && at !== task.line) add(at, "is inside this call", task.id);
    }
    for (const [at, group] of groups) {
      for (const [means, ids] of group) this.tag(state, this.lines[at - 1], means, ids);
    }
    this.here = task ? this.lines[line - 1] : undefined;
    this.here?.classList.add("here");
    this.reveal();
  }

  // Write the source down.
  write(text) {
    const counts = this.counts.get(this.file) ?? new Map();
    const words = (n) => (n === 1 ? "A task has waited here once" : `Tasks have waited here ${n} times`);
    this.lines = text.trimEnd().split("\n").map((line, n) => el("div", { class: "code" },
      counts.has(n + 1)
        ? el("span", { class: "count", title: words(counts.get(n + 1)) }, `${counts.get(n + 1)}×`)
        : el("span", { class: "count" }),
      el("span", { class: "line" }, String(n + 1)),
      el("span", { class: "text" }, line, el("span", { class: "tags" }))));
    this.find("source").replaceChildren(...this.lines);
  }

  clear() {
    this.here?.classList.remove("here");
    for (const node of this.marked) {
      node.querySelector(".tags").replaceChildren();
    }
    this.marked = [];
  }

  tag(state, node, means, ids) {
    if (!node) return;
    this.marked.push(node);
    node.querySelector(".tags").append(el("span", {},
      ids.slice(0, 4).map((id) => this.chip(state, id, null, true)),
      el("small", {}, ids.length > 4 ? `and ${ids.length - 4} more ${means}` : means)));
  }

  // Scroll the source so that the marked line is in its upper half, where a low window shows it,
  // too; without one, to the first line.
  reveal() {
    const box = this.find("source");
    const top = this.here ? this.here.offsetTop - box.offsetTop : 0;
    if (top < box.scrollTop + 20 || top > box.scrollTop + 0.6 * box.clientHeight) {
      box.scrollTop = top - box.clientHeight / 3;
    }
  }

  // The variables of tasks: a table for each function.
  variables(state, task, tasks) {
    const functions = new Map();
    for (const each of tasks) {
      const group = functions.get(each.code) ?? [];
      if (group.length >= ROWS && each !== task) continue;
      if (Object.values(each.locals).some(says)) functions.set(each.code, [...group, each]);
    }
    const tables = [...functions].map(([code, group]) => {
      const names = [...new Set(group.flatMap((each) => Object.keys(each.locals)))].filter(
        (name) => group.some((each) => says(valueOf(each, name))));
      const cell = (each, name) => el("td",
        { class: each.changed.includes(name) ? "changed" : null }, valueOf(each, name) ?? "");
      return el("table", {},
        el("thead", {}, el("tr", {}, [`in ${this.functionOf(code)}`, ...names].map(
          (name) => el("th", { scope: "col" }, name)))),
        el("tbody", {}, group.map((each) => el("tr", { class: each === task ? "here" : null },
          el("td", {}, this.chip(state, each.id, null, true)), names.map((name) => cell(each, name))))));
    });
    this.find("variables").replaceChildren(...tables, tables.length
      ? el("small", {}, "Variables as they were at each task's last wait; the line may have changed "
        + "them since. Bold: changed since the wait before.") : "");
  }
}
