// The players of the tour: the run of a step, event by event, below its picture. What a state is,
// what the sentences say and how tasks are shown is that of the pages that corolib writes.

const PACE = 1200; // ms for an event, when it plays

class Player {
  constructor(root, run, words) {
    this.root = root;
    this.run = run;
    this.words = { words: { ...words, ...run.words }, header: run.header };
    this.now = 0;
    this.selected = null;
    const nowhere = document.createElement("span"); // for what only a page of corolib's shows
    this.find = (name) => root.querySelector(`.${name}`) ?? nowhere;
    this.view = new View(run, (id) => this.select(id), this.find);
    const find = this.find;
    find("slider").max = run.events.length - 1;
    find("first").addEventListener("click", () => this.go(0));
    find("back").addEventListener("click", () => this.go(this.now - 1));
    find("forth").addEventListener("click", () => this.go(this.now + 1));
    find("play").addEventListener("click", () => this.play());
    find("slider").addEventListener("input", () => this.go(Number(find("slider").value)));
    root.addEventListener("keydown", (event) => this.key(event));
    this.go(0);
  }

  go(n) {
    const { events } = this.run;
    this.now = Math.max(0, Math.min(events.length - 1, n));
    const state = new State(this.run.header.tasks);
    for (const event of events.slice(0, this.now + 1)) {
      state.apply(event);
      if (event.task) this.ran = event.task;
    }
    const event = events[this.now];
    const text = sentence(event, state, this.words);
    this.view.selected = this.selected;
    this.find("sentence").replaceChildren(...this.view.withChips(state, text));
    this.find("position").textContent = 
      `${this.now + 1} of ${events.length}, ${span(event.ns)}`;
    this.find("slider").value = this.now;
    this.find("slider").setAttribute("aria-valuetext", `event ${this.now + 1}: ${event.kind}`);
    this.view.panels(state);
    const shown = this.selected ?? this.ran;
    this.view.source(state, state.tasks.has(shown) ? state.task(shown) : null, event);
  }

  select(id) {
    this.selected = this.selected === id ? null : id;
    this.go(this.now);
  }

  play() {
    const stop = () => { this.playing = clearInterval(this.playing); };
    if (this.playing) stop();
    else {
      this.playing = setInterval(() => {
        if (this.now < this.run.events.length - 1) this.go(this.now + 1);
        else this.play();
      }, PACE);
    }
    this.find("play").textContent = this.playing ? "Pause" : "Play";
    this.find("play").setAttribute("aria-pressed", String(Boolean(this.playing)));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input")) return;
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    this.go(this.now + by);
  }
}

function frame(run, number) {
  const name = `run-${number}`;
  const button = (part, text, label) => el("button", { class: part, "aria-label": label }, text);
  const panel = (title, small, part) => el("div", { class: "part" },
    el("b", {}, title, " ", el("small", {}, small)), el("div", { class: `flow ${part}` }));
  return el("section", { class: "player", "aria-labelledby": name },
    el("p", { class: "title", id: name }, el("b", {}, "See it run"), " ",
      el("small", {}, run.title)),
    el("p", { class: "sentence", "aria-live": "polite" }),
    el("div", { class: "controls" },
      button("first", "|◀", "First event"), button("back", "◀", "Back"),
      button("forth", "▶", "Forth"), button("play", "Play", null),
      el("input", { class: "slider", type: "range", min: 0, value: 0, "aria-label": "Event" }),
      el("output", { class: "position" })),
    el("div", { class: "board" },
      el("div", {},
        el("p", { class: "where" }),
        el("div", { class: "source", tabindex: 0, role: "group", "aria-label": "Source" }),
        el("div", { class: "variables" })),
      el("div", { class: "panels" },
        panel("Ready", "can go on; the first is next", "ready"),
        panel("Running", "one at a time", "running"),
        panel("Selector", "waiting for files", "files"), panel("Timers and waits", "for a time, a task, a lock", "waits"),
        panel("Done", "", "done"))));
}

async function begin() {
  if (typeof DecompressionStream === "undefined") return; // the pictures say it, too
  const { kinds, words, source, runs } = await unpack(RUNS);
  runs.forEach((run, number) => {
    const picture = document.querySelector(`img[src$="/${run.picture}.svg"]`);
    if (!picture) return;
    run.header.source = source;
    run.events = eventsOf({ ...run, kinds });
    const root = frame(run, number);
    const others = [...picture.parentNode.parentNode.querySelectorAll(`.of-${run.picture}`)];
    root.classList.add(`of-${run.picture}`);
    (others.pop() ?? picture.parentNode).after(root);
    root.player = new Player(root, run, words);
  });
  document.documentElement.dataset.ready = "true";
}

begin();
