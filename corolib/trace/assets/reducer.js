// The reducer and the sentences: the same as in state.py and sentences.py, which are the reference.
// A test compares the two. Nothing of the page is known here, so this also runs without one.
"use strict";

async function unpack(text) {
  const packed = atob(text);
  const bytes = new Uint8Array(packed.length);
  for (let k = 0; k < packed.length; k++) bytes[k] = packed.charCodeAt(k);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

// The events of rows; `kinds` has the fields of each kind.
function eventsOf({ kinds, first, rows }) {
  const names = Object.keys(kinds);
  const fields = Object.values(kinds);
  let ns = 0;
  return rows.map((row, n) => {
    ns += row[1];
    const event = { i: first + n, ns, kind: names[row[0]] };
    const name = fields[row[0]];
    for (let k = 2; k < row.length; k++) if (row[k] !== null) event[name[k - 2]] = row[k];
    return event;
  });
}

const NOTHING = Object.freeze({});
const DONE_KEPT = 20;
const OWN = "own"; // what is watched for the scheduler itself

function newTask(id, name, parent) {
  return {
    id, name, parent: parent ?? null, daemon: false, state: "unknown", since: 0,
    why: "", by: null, trap: "", on: NOTHING, code: -1, line: -1, stack: null,
    locals: NOTHING, changed: [], steps: 0, ran: -1, busy: 0, ready: 0, waiting: 0,
    longest: 0, longest_at: -1, began: [-1, -1], queued: -1, held: [],
    how: "", error: "", message: "", asked: false, scopes: [],
  };
}

class State {
  constructor(named) {
    this.i = -1;
    this.ns = this.turn = 0;
    this.polling = false;
    this.timeout = null;
    this.gap = [0, ""]; // the time before this event in which nothing is known to have run
    this.how = ""; // something has ended, by this event
    this.ended = this.first_failed = "";
    this.failed = 0; // known when the run has ended
    this.tasks = new Map(); // a task is never changed: it is replaced
    this.ready = [];
    this.running = null;
    this.done = [];
    this.done_count = 0;
    this.timers = new Map();
    this.watched = new Map();
    this.locks = new Map();
    this.queues = new Map();
    this.selecting = this.polls = 0;
    this.named = named || {};
  }

  copy() {
    const other = Object.assign(new State(this.named), this);
    for (const name of ["tasks", "timers", "watched", "locks", "queues"]) {
      other[name] = new Map(this[name]);
    }
    other.ready = this.ready.slice();
    return other;
  }

  task(id) {
    let found = this.tasks.get(id);
    if (found === undefined) {
      const [name, parent] = this.named[id] || ["?", null];
      found = newTask(id, name, parent);
      found.since = this.ns;
      this.tasks.set(id, found);
    }
    return found;
  }

  label(id) {
    if (!id) return "The scheduler";
    const task = this.task(id);
    return `${task.name}#${task.id}`;
  }

  // Return a task that may be changed.
  edit(id) {
    const task = { ...this.task(id) };
    this.tasks.set(id, task);
    return task;
  }

  unready(id) {
    const at = this.ready.indexOf(id);
    if (at >= 0) this.ready.splice(at, 1);
  }

  apply(event) {
    const idle = this.i >= 0 && this.running === null && !this.polling;
    this.gap = [idle ? event.ns - this.ns : 0, this.how];
    this.i = event.i;
    this.ns = event.ns;
    this.how = event.how ?? "";
    const change = CHANGES[event.kind];
    if (change) change(this, event);
  }

  // Who holds now what a task waits for: of a lock that is not who did at first.
  holders(task) {
    const what = task.on.what ?? "";
    if (what.startsWith("acquire Lock ") || what.startsWith("acquire RLock ")) {
      return [...this.locks.values()].filter(([label]) => what === `acquire ${label}`)
        .map(([, holder]) => holder);
    }
    return (task.on.holders || []).filter((id) => this.task(id).state !== "done");
  }

  waitsFor() {
    const found = new Map();
    for (const task of this.tasks.values()) {
      if (task.state === "waiting") {
        const joined = "join" in task.on ? [task.on.join] : [];
        found.set(task.id, joined.concat(this.holders(task)));
      } else if (task.state === "completing") {
        found.set(task.id, this.awaited(task.id));
      }
    }
    return found;
  }

  // The children of a task that are not done.
  children(id) {
    return [...this.tasks.values()].filter((each) => each.parent === id && each.state !== "done");
  }

  // For which children the end of a task waits: daemons are cancelled when the others are done, and
  // only then it waits for them.
  awaited(id) {
    const found = this.children(id);
    const others = found.filter((each) => !each.daemon);
    return (others.length ? others : found).map((each) => each.id);
  }

  view() {
    const found = {};
    for (const name of Object.keys(this)) {
      const value = this[name];
      if (name !== "named") found[name] = value instanceof Map ? Object.fromEntries(value) : value;
    }
    return found;
  }
}

function change(task, state, ns) {
  const took = ns - task.since;
  if (task.state === "ready") task.ready += took;
  else if (["waiting", "completing"].includes(task.state)) task.waiting += took;
  else if (task.state === "running") task.busy += took;
  task.state = state;
  task.since = ns;
  return took;
}

function stop(state, event, next) {
  const task = state.edit(event.task);
  if (task.state === "running") {
    task.ran = change(task, next, event.ns);
    if (task.ran > task.longest) {
      task.longest = task.ran;
      task.longest_at = event.i;
    }
  } else {
    change(task, next, event.ns);
  }
  if (state.running === task.id) state.running = null;
  return task;
}

function endOf(task, event) {
  task.how = event.how;
  task.error = event.error ?? "";
  task.message = event.message ?? "";
}

const CHANGES = {
  turn: (s, e) => { s.turn = e.n; },
  poll: (s, e) => { s.polling = true; s.timeout = e.timeout ?? null; s.polls = e.ns; },
  polled: (s, e) => {
    if (s.polling) s.selecting += e.ns - s.polls;
    s.polling = false;
  },
  end: (s, e) => {
    s.ended = e.reason;
    s.failed = e.failed ?? 0;
    s.first_failed = e.first ?? "";
    s.polling = false;
  },
  watch: (s, e) => { s.watched.set(e.fd, e.own ? OWN : e.mask); },
  unwatch: (s, e) => { s.watched.delete(e.fd); },
  spawn: (s, e) => {
    const task = newTask(e.task, e.name, e.parent);
    Object.assign(task, {
      daemon: e.daemon, code: e.code, line: e.line, state: "ready", since: e.ns, why: "new",
    });
    s.tasks.set(task.id, task);
  },
  wake: (s, e) => {
    const task = s.edit(e.task);
    task.why = e.why;
    task.by = e.by ?? null;
    s.ready.push(task.id);
    change(task, "ready", e.ns);
  },
  step: (s, e) => {
    const task = s.edit(e.task);
    s.unready(task.id);
    const wasReady = task.state === "ready";
    const took = change(task, "running", e.ns);
    task.queued = wasReady ? took : -1;
    task.steps = e.n;
    task.began = [task.code, task.line];
    s.running = task.id;
  },
  yield: (s, e) => {
    const task = stop(s, e, "waiting");
    const before = task.code;
    const told = e.locals || NOTHING;
    task.trap = e.trap;
    task.on = e.on;
    task.code = e.code ?? -1;
    task.line = e.line ?? -1;
    task.locals = task.code === before ? { ...task.locals, ...told } : told;
    task.changed = Object.keys(told);
    task.stack = e.stack ?? null;
  },
  over: (s, e) => {
    const task = stop(s, e, "completing");
    s.unready(task.id);
    task.held = [...s.locks.values()].filter((each) => each[1] === task.id).map(([label]) => label);
    for (const [lock, held] of s.locks) if (held[1] === task.id) s.locks.delete(lock);
    endOf(task, e);
    if ("code" in e) {
      if (task.code !== e.code) Object.assign(task, { locals: NOTHING, changed: [] }); // of another
      Object.assign(task, { code: e.code, line: e.line, stack: null });
    }
  },
  done: (s, e) => {
    const task = stop(s, e, "done");
    s.unready(task.id);
    endOf(task, e);
    s.done = [...s.done.slice(1 - DONE_KEPT), task.id];
    s.done_count += 1;
  },
  "cancel.ask": (s, e) => { if (e.scope === 0) s.edit(e.task).asked = true; },
  "scope.enter": (s, e) => {
    const task = s.edit(e.task);
    task.scopes = [...task.scopes, [e.scope, e.label]];
  },
  "scope.leave": (s, e) => {
    const task = s.edit(e.task);
    task.scopes = task.scopes.filter((each) => each[0] !== e.scope);
  },
  "timer.set": (s, e) => { s.timers.set(e.id, [e.at ?? null, e.for]); },
  "timer.fire": (s, e) => { s.timers.delete(e.id); },
  "timer.cancel": (s, e) => { s.timers.delete(e.id); },
  "lock.take": (s, e) => { s.locks.set(e.lock, [e.label, e.task]); },
  "lock.give": (s, e) => { s.locks.delete(e.lock); },
  "queue.put": (s, e) => { s.queues.set(e.queue, [e.label, e.length]); },
  "queue.get": (s, e) => { s.queues.set(e.queue, [e.label, e.length]); },
};

// Tasks of which each waits for the next, and the last for the first; or none.
function findCycle(waits) {
  const finished = new Set();
  for (const start of waits.keys()) {
    const path = [];
    const trail = [[start]];
    while (trail.length) {
      const task = trail[trail.length - 1].shift();
      if (task === undefined) {
        trail.pop();
        if (path.length) finished.add(path.pop());
      } else if (path.includes(task)) {
        return path.slice(path.indexOf(task));
      } else if (!finished.has(task)) {
        path.push(task);
        trail.push((waits.get(task) || []).slice());
      }
    }
  }
  return [];
}

// Sentences ---------------------------------------------------------------------------------------

function span(ns) {
  if (ns < 1000) return `${ns} ns`;
  if (ns < 1e6) return `${Math.floor((ns + 500) / 1000)} µs`;
  const [unit, size] = ns < 1e9 ? ["ms", 1e5] : ["s", 1e8];
  const tenths = Math.floor((ns + size / 2) / size);
  return `${Math.floor(tenths / 10)}.${tenths % 10} ${unit}`;
}

const baseName = (file) => file.slice(file.lastIndexOf("/") + 1);

function place(codes, code, line) {
  return code >= 0 && code < codes.length ? `${baseName(codes[code][1])}:${line}`
    : "no line of the program";
}

function waitsInWords(on, state, unknown = "?") {
  if ("read" in on) return `fd ${on.read} can be read`;
  if ("write" in on) return `fd ${on.write} can be written`;
  if ("urgent" in on) return `fd ${on.urgent} has urgent data`;
  if ("join" in on) return state.label(on.join);
  return on.what ?? unknown;
}

// How long a sleep lasts, as it is said behind "waits"; `now` is on its clock, NaN if unknown.
function untilInWords(until, now) {
  if (until === null) return "for ever";
  return `until ${span(until)}${now - until >= NOTABLE ? ": overdue" : ""}`;
}

// What a wait is for, as it is said behind "waits"; a wait of the program's own may be called anything.
function wishInWords(what) {
  const [first, ...rest] = what.split(" ");
  if (first === "wait") return ` ${rest.join(" ")}`;
  if (VERBS.includes(first)) return ` to ${what}`;
  if (NOUNS.includes(first)) return ` for ${what}`;
  return what ? ` (${what})` : "";
}

// The error of an event as the last line of a traceback shows it, without a full stop.
function errorInWords(error, message) {
  return message === undefined ? error ?? "" : `${error}: ${message.replace(/\.$/, "")}`;
}

const ACQUIRE = "acquire "; // so begins what is waited for, if tasks hold it
const VERBS = ["acquire", "get", "put", "publish", "join", "receive"];
const NOUNS = ["a", "an", "the", "its", "input", "TLS"];
const MASKS = { r: "read", w: "written", rw: "read or written" };
const OUTSIDE = "Code outside of the tasks";
const ITEMS = ["no item", "1 item"];
const NAMED = 5; // tasks, of many
const NOTABLE = 2e6; // ns: a selector that counts milliseconds may well be late by one

// Which words, and what is put in.
const MORE = {
  end: (e, state, v) => {
    const words = { __proto__: null, returned: "the main task returned", closed: "the scheduler was closed" };
    v.reason = words[e.reason] ?? errorInWords(e.reason, e.message);
    v.failures = !e.failed ? "" : e.failed === 1 ? ` 1 task failed: ${e.first}.`
      : ` ${e.failed} tasks failed, ${e.first} first.`;
    return "end";
  },
  turn: (e) => (e.ready < 2 ? `turn ${e.ready}` : "turn"),
  poll: (e, state, v) => {
    if (e.timeout === undefined) return "poll for ever";
    if (e.timeout === 0) return state.ready.length ? "poll now" : "poll due";
    v.span = span(Math.floor(e.timeout * 1e9));
    return "poll";
  },
  polled: (e, state, v) => {
    v.files = e.files.map(([fd, mask]) => (state.watched.get(fd) === OWN
      ? `fd ${fd} can be read (the scheduler's own)` : `fd ${fd} can be ${MASKS[mask]}`)).join(", ");
    return e.files.length ? "polled" : "polled none";
  },
  watch: (e, state, v) => { v.mask = MASKS[e.mask]; return e.own ? "watch own" : "watch"; },
  spawn: (e, state, v, codes) => {
    v.where = place(codes, e.code, e.line);
    v.by = state.label(e.parent);
    return e.parent ? "spawn" : "spawn main";
  },
  wake: (e, state, v) => {
    const task = state.task(e.task);
    const at = state.ready.indexOf(task.id) + 1;
    v.queue = at === 1 ? "the ready queue, where it is first"
      : `the end of the ready queue, place ${at}`;
    const what = task.on.what ?? "";
    v.wish = wishInWords(what);
    if (e.why === "io" || e.why === "join") {
      v.what = waitsInWords(task.on, state, e.why === "io" ? "a file is ready" : "another task");
    } else if (e.why === "lock" && what.startsWith(ACQUIRE)) {
      v.lock = what.slice(ACQUIRE.length);
      return e.by && state.task(e.by).how ? "wake refused" : "wake lock";
    } else if (["lock", "queue", "event", "other"].includes(e.why)) {
      return "wake ended";
    }
    return `wake ${e.why}`;
  },
  step: (e, state, v, codes) => {
    const task = state.task(e.task);
    v.where = placeWith(" at", codes, task.code, task.line);
    v.queued = task.queued < 0 ? "" : `, after ${span(task.queued)} in the queue`;
    v.error = errorInWords(e.error, e.message);
    return e.n === 1 ? "step first" : `step ${e.via}`;
  },
  yield: (e, state, v, codes) => {
    const task = state.task(e.task);
    const on = e.on;
    ran(task, v, codes);
    v.to = placeWith(" to", codes, task.code, task.line);
    if (v.to && task.steps > 1 && isBack(task)) { v.from = ""; v.to += " again"; }
    if (e.trap === "") return "yield";
    for (const name of ["read", "write", "urgent"]) {
      if (name in on) { v.fd = on[name]; return `yield ${name}`; }
    }
    if ("until" in on) {
      if (on.until === null) return "yield for ever";
      if ("for" in on) { v.pause = span(Math.max(on.for, 0)); return "yield for"; }
      v.at = span(on.until);
      return "yield until";
    }
    if ("join" in on) { v.what = waitsInWords(on, state); return "yield join"; }
    if (!("what" in on)) return "yield other";
    v.wish = wishInWords(on.what);
    const holders = namesOf(on.holders ?? [], state);
    v.holders = !holders ? "" : on.what.startsWith(ACQUIRE) ? `, held by ${holders}` : ` (${holders})`;
    return "yield what";
  },
  over: (e, state, v, codes) => {
    const task = state.task(e.task);
    ran(task, v, codes);
    v.at = placeWith(" at", codes, e.code ?? -1, task.line);
    if (v.at && isBack(task)) v.from = "";
    v.error = errorInWords(e.error, e.message);
    const held = task.held.join(", ");
    v.held = held ? ` It still held ${held}: nobody gives that back any more.` : "";
    v.children = childrenOf(task, e.how, state);
    v.went = task.steps > 1 ? `went on${v.from}` : "ran";
    return `over ${e.how}`;
  },
  done: (e) => `done ${e.how}`,
  "cancel.ask": (e, state, v) => {
    v.reason = "reason" in e ? ` (reason: ${e.reason})` : "";
    if (e.scope) return "cancel.ask";
    return state.task(e.task).how ? "cancel.ask children" : "cancel.ask task";
  },
  "cancel.deliver": (e, state, v) => {
    v.wish = wishInWords(state.task(e.task).on.what ?? "");
    return e.scope ? "cancel.deliver" : "cancel.deliver task";
  },
  "scope.leave": (e) => (e.caught ? "scope.leave caught" : "scope.leave"),
  "timer.set": (e, state, v) => {
    if (!("at" in e)) return "timer.set never";
    v.at = span(e.at);
    return "timer.set";
  },
  "timer.fire": (e, state, v) => {
    v.late = span(e.late ?? 0);
    return (e.late ?? 0) >= NOTABLE ? "timer.fire late" : "timer.fire";
  },
  "queue.put": (e, state, v) => moved(e, state, v),
  "queue.get": (e, state, v) => moved(e, state, v),
  call: (e, state, v) => {
    v.origin = { signal: "a signal handler", task: "a task" }[e.from] ?? `the ${e.from}`;
    return "call";
  },
  deadlock: (e, state, v) => {
    const cycle = e.cycle;
    v.cycle = cycle.map((one, n) => `${state.label(one)} waits`
      + waitFor(state.task(one), state.label(cycle[(n + 1) % cycle.length]))).join("; ");
    return cycle.length ? "deadlock cycle" : "deadlock";
  },
  lint: (e, state, v, codes) => {
    v.where = place(codes, e.code, e.line);
    return `lint ${e.lint}`;
  },
  mark: (e, state, v) => {
    const data = Object.entries(e.data);
    v.by = whoever(e, state);
    v.data = data.map(([name, value]) => `${name}=${value}`).join(", ");
    return data.length ? "mark data" : "mark";
  },
};

function moved(e, state, v) {
  v.by = whoever(e, state);
  if ("to" in e) { v.to = state.label(e.to); return "queue.put to"; }
  v.items = ITEMS[e.length] ?? `${e.length} items`;
  return e.kind;
}

// For what of another task a task of a cycle waits.
function waitFor(task, other) {
  const what = task.on.what ?? "";
  if (task.state === "completing") return ` for its child ${other}`;
  if (what.startsWith(ACQUIRE)) return ` to ${what}, held by ${other}`;
  return ` for ${other}${wishInWords(what)}`;
}

// What becomes of the children of a task whose body has just ended.
function childrenOf(task, how, state) {
  const daemons = [], found = [];
  for (const each of state.children(task.id)) {
    (each.daemon && how === "returned" ? daemons : found).push(each.id);
  }
  const names = namesOf(found, state);
  const words = how === "returned"
    ? [`It is done when its child ${names} is.`, `It is done when its children are: ${names}.`]
    : [`Its child ${names} is cancelled.`, `Its children are cancelled: ${names}.`];
  const text = found.length ? ` ${words[found.length > 1 ? 1 : 0]}` : "";
  return daemons.length
    ? `${text} Daemons are not waited for, but cancelled: ${namesOf(daemons, state)}.` : text;
}

const whoever = (e, state) => ("task" in e ? state.label(e.task) : OUTSIDE);
const isBack = (task) => task.code === task.began[0] && task.line === task.began[1];

// The names of some tasks.
function namesOf(tasks, state) {
  return tasks.slice(0, NAMED).map((task) => state.label(task)).join(", ")
    + (tasks.length > NAMED ? ` and ${tasks.length - NAMED} more` : "");
}

// A place in the program with a word in front, or nothing if it is not known.
function placeWith(word, codes, code, line) {
  return code >= 0 ? `${word} ${place(codes, code, line)}` : "";
}

// How long its last step was, and where that began.
function ran(task, v, codes) {
  v.span = task.ran < 0 ? "some time" : span(task.ran);
  v.from = task.steps > 1 ? placeWith(" from", codes, ...task.began) : "";
}

// That time has passed of which no event tells, if that is much.
function passed(ns, how) {
  const what = how === "failed" ? ": the failure was looked into, or reported" : "";
  return ns >= NOTABLE ? ` Since the event before, ${span(ns)} have passed${what}.` : "";
}

// What an event means; `state` is as it is after the event.
function sentence(event, state, data) {
  const values = { ...event };
  if (event.task) values.task = state.label(event.task);
  values.by = state.label(event.by);
  const make = MORE[event.kind];
  const key = make ? make(event, state, values, data.header.code) : event.kind;
  return data.words[key].replace(/\{([a-z]+)\}/g, (_, name) => values[name]) + passed(...state.gap);
}
