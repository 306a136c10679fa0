// The page itself: one event is shown at a time, and everything else follows from it.

const EVERY = 512; // events between two snapshots of the state, or more if there are many tasks
const SOON = 120; // ms after the last move, the tab below and the address follow
const LINE = 24; // height of a row in the list of events
const HELPED = "corolib: the help was closed"; // what the browser remembers
const LONG = 1e6; // ns: a step, or a time in the queue, that is worth a look

class Page {
  constructor(data) {
    this.data = data;
    this.events = data.events;
    this.now = 0;
    this.selected = null;
    this.following = false;
    this.hits = [];
    this.view = new View(data, (id) => this.selectTask(id), $);
    this.lanes = new Lanes(data, (n, id) => {
      if (id) this.selected = id;
      this.go(n === null ? this.now : n - data.first);
    });
    this.reduce();
    this.tab = "tasks";
    this.order = ["id", 1];
    this.head();
    this.listen();
  }

  // Go through all events once.
  reduce() {
    const state = new State(this.data.header.tasks);
    this.snapshots = [[0, state.copy()]];
    let since = 0;
    this.noticed = { ready: null, cancels: [], deadlock: false, others: [] };
    this.events.forEach((event, n) => {
      if (since >= EVERY && since >= state.tasks.size) {
        this.snapshots.push([n, state.copy()]);
        since = 0;
      }
      since += 1;
      this.notice(event, state);
      state.apply(event);
      this.lanes.take(event, state);
    });
    this.final = state;
    this.lanes.finish();
  }

  // What somebody who looks for a fault will want to see; `state` is as it is before the event.
  notice(event, state) {
    const found = this.noticed;
    const { kind, task: id } = event;
    if (kind === "step" && state.tasks.has(id)) {
      const { state: was, since } = state.task(id);
      const took = was === "ready" ? event.ns - since : 0;
      if (took > (found.ready?.took ?? 0)) found.ready = { took, id, i: event.i, since };
    } else if (kind === "deadlock") {
      found.deadlock = true; // which cancels all
      found.others.push([event.i, event.cycle[0] ?? event.tasks[0], "in a deadlock"]);
    } else if (kind === "cancel.ask" && !found.deadlock && !state.task(id).daemon) {
      const words = event.scope ? `is to leave ${event.label}` : "is asked to end";
      if (found.cancels.length < 3) found.cancels.push([event.i, id, words]);
    } else if (kind === "lint") {
      found.others.push([event.i, id, `never runs ${event.call}() in line ${event.line}`]);
    } else if (kind === "over") {
      const held = [...state.locks.values()].filter((each) => each[1] === id).map(([label]) => label);
      if (held.length && event.how !== "cancelled") found.others.push([event.i, id, `ended, and held ${held.join(", ")}`]);
      if (event.how === "failed") found.others.push([event.i, id, `failed: ${event.error}`]);
    }
  }

  // The state after event number n, counted from the first of this page.
  // `last`: what this has returned before, for another n.
  stateAt(n, last) {
    let low = 0, high = this.snapshots.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.snapshots[middle][0] <= n) low = middle;
      else high = middle - 1;
    }
    const [from, snapshot] = this.snapshots[low];
    // To go forth by one is to go on from where we are.
    const start = last && last.n <= n && last.n >= from ? last.n + 1 : from;
    const state = start === from || !last ? snapshot.copy() : last.state;
    for (let k = start; k <= n; k++) state.apply(this.events[k]);
    return { n, state };
  }

  head() {
    const { header } = this.data;
    const state = this.final;
    const program = baseName((header.argv || ["?"])[0]) || "python";
    $("title").textContent = program;
    const whole = this.events.length ? state.ns - this.events[0].ns : 0;
    let longest = null, steps = 0;
    for (const task of state.tasks.values()) {
      steps += task.steps;
      if (!longest || task.longest > longest.longest) longest = task;
    }
    const facts = [
      ["Python", header.python], ["corolib", header.corolib], ["lasted", span(whole)],
      ["began", header.wall_t0 ? new Date(header.wall_t0 * 1000).toLocaleString() : "?"],
      ...(header.thread ? [["thread", header.thread]] : []),
      ["tasks", String(state.tasks.size)], ["steps", String(steps)], ["turns", String(state.turn)],
      ["the selector waited", `${whole ? Math.round((100 * state.selecting) / whole) : 0} % of the time`],
    ];
    const nodes = facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)));
    if (header.dropped) {
      nodes.push(el("div", {}, el("dt", {}, "dropped"),
        el("dd", { class: "bad" }, `the first ${header.dropped} events`)));
    }
    if (state.ended && state.ended !== "returned") {
      nodes.push(el("div", {}, el("dt", {}, "ended"), el("dd", { class: "bad" }, state.ended)));
    }
    $("facts").replaceChildren(...nodes);
    const looks = [...this.noticed.others.slice(0, 5), ...this.noticed.cancels];
    if (longest && longest.longest >= LONG) {
      looks.push([longest.longest_at, longest.id,
        `ran for ${span(longest.longest)} without a wait: nothing else could run`]);
    }
    const { ready } = this.noticed;
    if (ready && ready.took >= LONG) {
      const end = this.events[longest.longest_at - this.data.first]?.ns ?? 0; // of the longest step
      const both = Math.min(end, ready.since + ready.took) - Math.max(end - longest.longest, ready.since);
      if (both > ready.took / 2) { // else no task of the program kept it waiting
        looks.push([ready.i, ready.id, `was ready for ${span(ready.took)}, while ${this.nameOf(longest.id)} ran`]);
      }
    }
    $("looks").replaceChildren(...looks.map(([i, id, words]) => el("button", {
      class: "chip", style: { "--hue": hueOf(id) }, title: `Go to event ${i}`,
      onclick: () => { this.selected = null; this.go(i - this.data.first); },
    }, `${this.nameOf(id)}`, el("span", { class: "why" }, words))));
    $("slider").max = Math.max(0, this.events.length - 1);
  }

  // Show event n.
  go(n, quick) {
    if (!this.events.length) {
      $("sentence").textContent = "There is no event in this trace.";
      return;
    }
    this.now = Math.max(0, Math.min(this.events.length - 1, n));
    const event = this.events[this.now];
    this.last = this.stateAt(this.now, this.last);
    const { state } = this.last;
    const view = this.view;
    view.fast = quick;
    view.selected = this.selected;
    this.ran = this.lastTask(this.now);
    const shown = this.selected ?? this.ran;
    $("sentence").replaceChildren(...view.withChips(state, sentence(event, state, this.data)));
    if (this.now === 0) {
      $("sentence").append(el("small", {}, " Press ▶ or the right arrow key to see what happens next."));
    }
    $("sentence").scrollTop = 0;
    // As in the list of events, in the address, and for `replay`: the first one has the number 0.
    $("position").textContent =
      `event ${event.i} of ${this.events.at(-1).i}, turn ${state.turn}, ${span(event.ns)}`;
    $("slider").value = this.now;
    $("slider").setAttribute("aria-valuetext", `event ${event.i}: ${event.kind}`);
    view.panels(state);
    view.source(state, shown && state.tasks.has(shown) ? state.task(shown) : null, event);
    this.lanes.show(event.ns);
    this.drawLanes();
    clearTimeout(this.later);
    this.later = setTimeout(() => {
      this.showTab(this.last.state);
      const task = this.selected ? `&t=${this.selected}` : "";
      history.replaceState(null, "", `#i=${event.i}${task}`);
    }, SOON);
  }

  // The task that event n is about, or else one before it.
  lastTask(n) {
    for (let k = n; k >= 0; k--) {
      const { task, cycle } = this.events[k];
      if (task || cycle?.length) return task || cycle[0];
    }
    return undefined;
  }

  drawLanes() {
    if (this.planned) return;
    this.planned = requestAnimationFrame(() => {
      this.planned = 0;
      this.lanes.draw(this.selected);
    });
  }

  selectTask(id) {
    this.selected = this.selected === id ? null : id;
    if (this.selected === null) this.setFollowing(false);
    this.go(this.now);
  }

  setFollowing(on) {
    this.following = on && this.selected !== null;
    $("follow").setAttribute("aria-pressed", String(this.following));
  }

  // Follow the selected task, else the one that ran last; or no more.
  follow() {
    this.selected ??= this.ran ?? null;
    this.setFollowing(!this.following);
    this.go(this.now);
  }

  // Go to the next event of a unit, in one direction.
  move(unit, by) {
    const kinds = { event: null, step: "step", turn: "turn" };
    const kind = kinds[unit];
    const wanted = (event) => (!kind || event.kind === kind)
      && (!this.following || event.task === this.selected || kind === "turn");
    let n = this.now + by;
    while (n > 0 && n < this.events.length - 1 && !wanted(this.events[n])) n += by;
    this.go(n, this.playing);
  }

  play() {
    this.playing = this.playing ? clearInterval(this.playing) : setInterval(() => {
      if (this.now >= this.events.length - 1) this.play();
      else this.move($("unit").value, 1);
    }, 400);
    $("play").setAttribute("aria-pressed", String(Boolean(this.playing)));
    $("play").textContent = this.playing ? "Pause" : "Play";
  }

  // Search -----------------------------------------------------------------------------------------

  search(text) {
    text = text.trim();
    const [, key, value] = text.match(/^(task|kind|fd|line):(.+)$/) || [];
    const codes = this.data.header.code;
    const tests = {
      task: (e) => String(e.task) === value || (e.task && this.nameOf(e.task).startsWith(value)),
      kind: (e) => e.kind.startsWith(value),
      fd: (e) => {
        const on = e.on || {};
        return [e.fd, on.read, on.write, on.urgent].some((fd) => String(fd) === value)
          || (e.files || []).some(([fd]) => String(fd) === value);
      },
      line: (e) => e.line !== undefined && place(codes, e.code, e.line) === value,
    };
    const low = text.toLowerCase();
    const test = tests[key] || ((e) => `${e.kind} ${e.task ? this.nameOf(e.task) : ""} `
      .concat(JSON.stringify(e)).toLowerCase().includes(low));
    this.hits = text ? this.events.flatMap((event, n) => (test(event) ? [n] : [])) : [];
    if (key === "task" && this.hits.length) this.selected = this.events[this.hits[0]].task;
    this.nextHit(1, true);
  }

  nextHit(by, here) {
    if (!this.hits.length) {
      $("hits").textContent = $("search").value ? "no hit" : "";
      return;
    }
    let at = this.hits.findIndex((n) => (here ? n >= this.now : n > this.now));
    if (by < 0) {
      at = this.hits.findLastIndex((n) => n < this.now);
      if (at < 0) at = this.hits.length - 1;
    } else if (at < 0) {
      at = 0;
    }
    $("hits").textContent = `hit ${at + 1} of ${this.hits.length}`;
    this.go(this.hits[at]);
  }

  nameOf(id) {
    const [name] = this.data.header.tasks[id] || ["?"];
    return `${name}#${id}`;
  }

  // To jump to a task is to search for it.
  jump() {
    $("search").value = "task:";
    $("search").focus();
  }

  // Tabs -------------------------------------------------------------------------------------------

  showTab(state) {
    if (this.tab === "tasks") this.showTasks(state);
    else if (this.tab === "waits") this.showWaits(state);
    else this.showEvents();
  }

  openTab(name) {
    this.tab = name;
    for (const tab of document.querySelectorAll('[role="tab"]')) {
      const chosen = tab.id === `tab-${name}`;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
    }
    $("panel").setAttribute("aria-labelledby", `tab-${name}`);
    $("panel").replaceChildren();
    $("panel").scrollTop = 0;
    this.showTab(this.last.state);
  }

  showTasks(state) {
    const columns = [
      ["task", "id"], ["state", "state"], ["steps", "steps"], ["running", "busy"], ["ready", "ready"],
      ["waiting", "waiting"], ["longest step", "longest"], ["where", "where"],
    ];
    const rows = [...state.tasks.values()];
    const [key, sign] = this.order;
    const codes = this.data.header.code;
    const value = (task) => (key === "where" ? place(codes, task.code, task.line) : task[key]);
    rows.sort((a, b) => (value(a) < value(b) ? -sign : value(a) > value(b) ? sign : a.id - b.id));
    const numbers = ["steps", "busy", "ready", "waiting", "longest"];
    const head = columns.map(([name, of]) => el("th", {
      class: numbers.includes(of) ? "number" : null,
      "aria-sort": of === key ? (sign > 0 ? "ascending" : "descending") : null,
    }, el("button", { onclick: () => {
      this.order = [of, of === key ? -sign : of === "id" || of === "where" ? 1 : -1];
      this.showTasks(this.last.state);
    } }, name, of === key ? (sign > 0 ? " ↑" : " ↓") : "")));
    const body = rows.slice(0, 100).map((task) => el("tr", {},
      el("td", {}, this.view.chip(state, task.id)),
      el("td", {}, task.state === "waiting" ? this.waitIn(task, state) : stateOf(task, state)),
      el("td", { class: "number" }, String(task.steps)),
      numbers.slice(1).map((name) => {
        const kept = { running: "busy", ready: "ready", waiting: "waiting", completing: "waiting" };
        const on = kept[task.state] === name;
        return el("td", { class: "number" }, span(task[name] + (on ? state.ns - task.since : 0)));
      }),
      el("td", {}, place(codes, task.code, task.line))));
    const more = rows.length > 100
      ? el("p", { class: "list none" }, `and ${rows.length - 100} more`) : "";
    $("panel").replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, head)),
      el("tbody", {}, body)), more);
  }

  waitIn(task, state) {
    const whom = this.view.whom(state, task);
    return `waits ${waitOf(task, whom.length, this.view.clock(state))} ${whom.map((id) => state.label(id)).join(", ")}`;
  }

  showWaits(state) {
    const waits = state.waitsFor();
    const cycle = findCycle(waits);
    const nodes = [];
    if (cycle.length) {
      nodes.push(el("p", { class: "bad" }, "A cycle, none of which can ever go on: "), el("div",
        { class: "row" }, cycle.concat(cycle[0]).flatMap(
          (id, n) => [n ? " → " : "", this.view.chip(state, id)])));
    }
    let count = 0;
    for (const [id, whom] of waits) {
      if (!whom.length || ++count > 200) continue;
      const bad = cycle.includes(id);
      const task = state.task(id);
      const words = task.state === "completing" ? "for its children" : waitOf(task, true);
      nodes.push(el("div", { class: bad ? "row bad" : "row" }, this.view.chip(state, id),
        `waits ${words}`, whom.slice(0, 12).map((each) => this.view.chip(state, each)),
        bad ? "(in the cycle)" : ""));
    }
    if (count > 200) nodes.push(el("p", { class: "none" }, `and ${count - 200} more`));
    if (!count) nodes.push(el("p", { class: "none" }, "At this event no task waits for another one."));
    $("panel").replaceChildren(el("div", { class: "list" }, nodes));
  }

  // Only the rows that can be seen exist.
  showEvents() {
    const panel = $("panel");
    if (!$("rows")) {
      const kinds = Object.keys(this.data.kinds);
      const kind = el("select", { id: "kind", "aria-label": "Kind of event" },
        el("option", { value: "" }, "all kinds"), kinds.map((each) => el("option", {}, each)));
      const mine = el("input", { type: "checkbox", id: "mine" });
      const filter = () => { this.filtered = null; this.showEvents(); };
      kind.addEventListener("change", filter);
      mine.addEventListener("change", filter);
      panel.replaceChildren(el("div", { id: "bar" }, kind,
        el("label", { class: "why" }, mine, " of the selected task only")), el("div", { id: "rows" }));
      this.filtered = null;
    }
    const kind = $("kind").value, mine = $("mine").checked ? this.selected : null;
    const key = `${kind} ${mine}`;
    if (!this.filtered || this.filterKey !== key) {
      this.filterKey = key;
      this.filtered = [];
      this.events.forEach((event, n) => {
        if ((!kind || event.kind === kind) && (mine === null || event.task === mine)) {
          this.filtered.push(n);
        }
      });
    }
    const rows = $("rows");
    rows.style.height = `${this.filtered.length * LINE}px`;
    if (this.shownFor !== this.now) {
      this.shownFor = this.now;
      const at = this.filtered.findIndex((n) => n >= this.now) * LINE;
      if (at < panel.scrollTop || at > panel.scrollTop + panel.clientHeight - 90) {
        panel.scrollTop = Math.max(0, at - panel.clientHeight / 2);
      }
    }
    const first = Math.max(0, Math.floor((panel.scrollTop - 60) / LINE));
    const some = this.filtered.slice(first, first + Math.ceil(panel.clientHeight / LINE) + 4);
    let then = null;
    rows.replaceChildren(...some.map((n, k) => {
      const event = this.events[n];
      then = this.stateAt(n, then);
      const text = sentence(event, then.state, this.data);
      return el("div", {
        class: n === this.now ? "event now" : "event", style: { top: `${(first + k) * LINE}px` },
        title: `${text}\n${JSON.stringify(event)}`, onclick: () => this.go(n),
      }, el("span", { class: "number" }, String(event.i)), el("span", { class: "time" }, span(event.ns)),
      el("span", {}, event.kind), el("span", {}, text));
    }));
  }

  // Controls ---------------------------------------------------------------------------------------

  theme() {
    const root = document.documentElement;
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    this.drawLanes();
  }

  help(open = $("keys").hidden) {
    $("keys").hidden = !open;
    $("help").setAttribute("aria-expanded", String(open));
    if (open) $("keys").scrollIntoView({ block: "nearest" });
    else remember(HELPED, "yes");
  }

  zoom(factor, around) {
    this.lanes.zoomBy(factor, around);
    this.drawLanes();
  }

  listen() {
    const on = (id, kind, f) => $(id).addEventListener(kind, f);
    const unit = () => $("unit").value;
    on("first", "click", () => this.go(0));
    on("last", "click", () => this.go(this.events.length - 1));
    on("back", "click", () => this.move(unit(), -1));
    on("forth", "click", () => this.move(unit(), 1));
    on("play", "click", () => this.play());
    on("unit", "change", () => $("unit").blur()); // so that the arrow keys move again
    on("slider", "input", () => this.go(Number($("slider").value), true));
    on("follow", "click", () => this.follow());
    on("theme", "click", () => this.theme());
    on("help", "click", () => this.help());
    on("close", "click", () => { this.help(false); $("help").focus(); });
    on("in", "click", () => this.zoom(2));
    on("out", "click", () => this.zoom(0.5));
    on("search", "search", () => this.search($("search").value));
    on("squeeze", "change", () => {
      this.lanes.squeezed = $("squeeze").checked;
      this.lanes.warp();
      this.lanes.show(this.lanes.ns);
      this.drawLanes();
    });
    on("lanes", "scroll", () => this.drawLanes());
    on("canvas", "click", (event) => this.lanes.click(event, $("lanes")));
    on("lanes", "wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey && Math.abs(event.deltaX) <= Math.abs(event.deltaY)) return;
      event.preventDefault();
      const box = $("lanes").getBoundingClientRect();
      const names = Math.min(NAMES, box.width / 3);
      const at = Math.max(0, (event.clientX - box.left - names) / (box.width - names));
      if (event.ctrlKey || event.metaKey) this.zoom(event.deltaY < 0 ? 1.3 : 1 / 1.3, at);
      else {
        this.lanes.scrollTo(this.lanes.left + event.deltaX / (box.width - names) / this.lanes.zoom);
        this.drawLanes();
      }
    });
    on("panel", "scroll", () => { if (this.tab === "events") this.showEvents(); });
    const tabs = ["tasks", "waits", "events"];
    for (const name of tabs) {
      on(`tab-${name}`, "click", () => this.openTab(name));
      on(`tab-${name}`, "keydown", (event) => {
        const by = { ArrowRight: 1, ArrowLeft: 2 }[event.key];
        if (!by) return;
        event.stopPropagation();
        const next = tabs[(tabs.indexOf(name) + by) % 3];
        this.openTab(next);
        $(`tab-${next}`).focus();
      });
    }
    addEventListener("resize", () => {
      this.view.reveal();
      this.drawLanes();
    });
    addEventListener("hashchange", () => this.fromAddress());
    addEventListener("keydown", (event) => this.key(event));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", dressed);
  }

  key(event) {
    if (event.target.matches("input:not([type=checkbox]), select")) {
      if (event.key === "Escape" || (event.key === "Enter" && event.target.id === "search")) {
        if (event.key === "Enter") this.search($("search").value);
        event.target.blur();
      }
      if (event.target.type !== "range" || !["PageUp", "PageDown", "n", "N", "t", "/"].includes(event.key)) return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " && event.target.matches("button, [type=checkbox]")) return;
    const keys = {
      ArrowRight: () => this.move(event.shiftKey ? "step" : $("unit").value, 1),
      ArrowLeft: () => this.move(event.shiftKey ? "step" : $("unit").value, -1),
      PageDown: () => this.move("turn", 1),
      PageUp: () => this.move("turn", -1),
      Home: () => this.go(0),
      End: () => this.go(this.events.length - 1),
      " ": () => this.play(),
      "/": () => { $("search").focus(); $("search").select(); },
      n: () => this.nextHit(1),
      N: () => this.nextHit(-1),
      t: () => this.follow(),
      j: () => this.jump(),
      d: () => this.theme(),
      "+": () => this.zoom(2),
      "-": () => this.zoom(0.5),
      "?": () => this.help(),
      Escape: () => this.help(false),
    };
    const act = keys[event.key];
    if (act) {
      event.preventDefault();
      act();
    }
  }

  fromAddress() {
    const address = new URLSearchParams(location.hash.slice(1));
    if (address.get("t")) this.selected = Number(address.get("t"));
    // Nothing has moved yet.
    this.go(address.get("i") ? Number(address.get("i")) - this.data.first : 0, true);
  }
}

// What the browser remembers under a name. It may refuse: of a file, or in a private window.
function remember(name, value) {
  try {
    if (value !== undefined) localStorage.setItem(name, value);
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

function dressed() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}

// What is thrown anywhere comes of data that does not go together.
function damaged(error) {
  $("sentence").textContent = `This trace is damaged, and cannot be shown: ${error.message}`;
}

async function begin() {
  addEventListener("error", (event) => damaged(event));
  addEventListener("unhandledrejection", (event) => damaged(event.reason));
  dressed();
  if (typeof DecompressionStream === "undefined") {
    $("sentence").textContent = "This browser cannot unpack the trace: it has no DecompressionStream.";
    return;
  }
  const data = await unpack($("data").textContent.trim());
  data.events = eventsOf(data);
  delete data.rows;
  window.page = new Page(data);
  if (!location.hash && !remember(HELPED)) window.page.help(true);
  window.page.fromAddress();
  document.documentElement.dataset.ready = "true";
}

begin();
