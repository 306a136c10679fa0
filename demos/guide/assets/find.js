// The search: all of the guide is in ENTRIES, as [heading, page, address, words, worth].
//
// An entry is as good as the words of the query that it has, each weighed by how rare it is (BM25).
// A word in a heading counts more. So a whole message can be pasted: its names and numbers, which
// stand nowhere, count little, and what stands in one place alone decides.
"use strict";

const MOST = 60;
const SHARE = 0.4; // of the weight of a query that an entry must have
const IN_TITLE = 5;
const IN_PAGE = 2; // for a word in the title of the page
const MESSAGES = "All messages"; // a question of a few words is none for a message
const EMPTY = new Set(
  ("a an and any are as at be by can do does for from get have how i if in into is it like make me " +
    "my of on or should so that the them then there this to use using want was what when where " +
    "which who why will with without you your corolib python").split(" "),
);
// Words that people search for, and what the guide calls it.
const ALIKE = {
  abort: ["cancel"], async: ["await"], asynchronous: ["await"], blocking: ["block"],
  broadcast: ["topic"], certificate: ["tls"], concurrency: ["limit"], connection: ["stream"],
  cpu: ["comput", "core"], crash: ["fail"], cron: ["every"], delay: ["sleep"], disconnect: ["close"],
  exception: ["fail", "error"], freeze: ["hang"], goroutine: ["task"], hang: ["deadlock"],
  https: ["tls"], interval: ["every"], kill: ["cancel", "stop"], log: ["logger"], multicore: ["core"],
  multiprocess: ["process", "core"], mutex: ["lock"], nursery: ["group"], parallel: ["gather"],
  performance: ["fast"], periodic: ["every"], postgresql: ["postgre"], shutdown: ["stop"],
  sigint: ["ctrl"], speed: ["fast"], ssl: ["tls"], subprocess: ["open_process", "run_process"],
  terminate: ["stop"], timer: ["sleep", "every"], unittest: ["test"],
};

// Words and their stems ---------------------------------------------------------------------------

function stem(word) {
  if (word.length < 5 || word.includes("_")) return word;
  const short = word.replace(/(ations?|ings?|edly|ed|ly|ers?|ies|es|s|e)$/, "");
  return short.length < 3 ? word : short.replace(/([bdgmnprt])\1$/, "$1");
}

function terms(text) {
  const found = [];
  for (const word of text.toLowerCase().match(/[\p{L}\p{N}_]+/gu) ?? []) {
    found.push(stem(word));
    if (word.includes("_")) found.push(...word.split("_").filter(Boolean).map(stem));
  }
  return found;
}

function stems(text) {
  return terms(text).join(" ");
}

// The index ---------------------------------------------------------------------------------------

const index = new Map(); // of each stem: how much it counts in each entry that has it
let total = 0;

function count(at, list, worth) {
  for (const term of list) {
    let row = index.get(term);
    if (!row) index.set(term, (row = new Map()));
    row.set(at, (row.get(at) ?? 0) + worth);
  }
}

const lengths = ENTRIES.map(([title, page, , words], at) => {
  const rest = terms(words);
  count(at, terms(title), page === MESSAGES ? 1 : IN_TITLE);
  count(at, terms(page), IN_PAGE);
  count(at, rest, 1);
  total += rest.length;
  return rest.length;
});
const average = total / ENTRIES.length;

// What a stem counts in each entry; the stems that begin with it count, too, if it is unfinished.
function rows(term, unfinished) {
  const own = index.get(term);
  const found = own ? [[own, 1]] : [];
  for (const other of ALIKE[term] ?? []) {
    const row = index.get(stem(other));
    if (row) found.push([row, 0.6]);
  }
  if (unfinished && term.length > 2) {
    for (const [other, row] of index) {
      if (other !== term && other.startsWith(term)) found.push([row, 0.5]);
    }
  }
  return found;
}

// Return the entries that are found, the best first.
function search(text) {
  const words = text.toLowerCase().match(/[\p{L}\p{N}_]+/gu) ?? [];
  const said = words.filter((word) => !EMPTY.has(word));
  const wanted = [...new Set((said.length ? said : words).map((word) => [word, stem(word)]))];
  const sums = new Map(); // of each entry: its score, and the weight of the words that it has
  let all = 0;
  wanted.forEach(([word, term], place) => {
    const last = place === wanted.length - 1;
    const best = new Map();
    const seen = new Set();
    for (const key of new Set([word, term])) {
      for (const [row, worth] of rows(key, last)) {
        for (const [at, times] of row) {
          seen.add(at);
          const much = times / (times + 1.2 * (0.3 + (0.7 * lengths[at]) / average));
          best.set(at, Math.max(best.get(at) ?? 0, worth * much));
        }
      }
    }
    if (!seen.size) return; // a name or a number of the program's own
    const rare = Math.log(1 + ENTRIES.length / seen.size);
    all += rare;
    for (const [at, much] of best) {
      const [score, weight] = sums.get(at) ?? [0, 0];
      sums.set(at, [score + rare * much, weight + rare]);
    }
  });
  const whole = terms(text);
  const hits = [];
  for (const [at, [score, weight]] of sums) {
    if (weight < SHARE * all) continue;
    const [title, page, , , worth] = ENTRIES[at];
    const heading = terms(title).filter((term) => !EMPTY.has(term));
    const asked = heading.filter((term) => whole.includes(term)).length / (heading.length || 1);
    const begins = stems(title).startsWith(whole.join(" ")) ? 1.5 : 1;
    const much = page === MESSAGES && wanted.length > 4 ? 1 : worth;
    hits.push([score * (weight / all) ** 2 * much * (1 + asked) * begins, at]);
  }
  hits.sort(([one, a], [other, b]) => other - one || a - b);
  return hits.map(([, at]) => ENTRIES[at]);
}

// The page ----------------------------------------------------------------------------------------

function excerpt(words, wanted) {
  const places = wanted.map((word) => words.toLowerCase().indexOf(word)).filter((at) => at >= 0);
  const at = Math.max(0, (places.length ? Math.min(...places) : 0) - 60);
  return (at ? "… " : "") + words.slice(at, at + 180) + (words.length > at + 180 ? " …" : "");
}

function item([title, page, address, words], wanted) {
  const line = document.createElement("li");
  const link = document.createElement("a");
  link.href = address;
  link.textContent = title;
  line.append(link);
  if (page !== title) {
    const where = document.createElement("small");
    where.textContent = ` ${page}`;
    line.append(where);
  }
  const text = document.createElement("p");
  text.textContent = excerpt(words, wanted);
  line.append(text);
  return line;
}

function show(text, { found, results, all }) {
  const wanted = text.toLowerCase().match(/[\p{L}\p{N}_]+/gu) ?? [];
  if (!wanted.length) {
    results.replaceChildren(...all);
    found.textContent = "All headings and all public names.";
    return;
  }
  const hits = search(text);
  const said = wanted.filter((word) => !EMPTY.has(word));
  results.replaceChildren(...hits.slice(0, MOST).map((entry) => item(entry, said)));
  const more = hits.length > MOST ? `; the first ${MOST} are shown` : "";
  const places = hits.length === 1 ? "1 place" : `${hits.length} places`;
  found.textContent = hits.length ? `${places}${more}` : "Nothing is found.";
}

function begin() {
  const input = document.getElementById("query");
  const results = document.getElementById("results");
  const parts = { found: document.getElementById("found"), results, all: [...results.children] };
  input.value = new URLSearchParams(location.search).get("q")?.trim() ?? "";
  show(input.value, parts);
  input.addEventListener("input", () => show(input.value, parts));
}

begin();
