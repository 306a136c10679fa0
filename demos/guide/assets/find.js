// The search: all of the guide is in ENTRIES, as [heading, page, address, words].
"use strict";

const MOST = 60;
const query = new URLSearchParams(location.search).get("q")?.trim() ?? "";
const input = document.getElementById("query");
const found = document.getElementById("found");
const results = document.getElementById("results");
const all = [...results.children];

function rank([title, page, , words], wanted) {
  const heading = title.toLowerCase();
  const rest = `${page} ${words}`.toLowerCase();
  let sum = 0;
  for (const word of wanted) {
    if (heading === word) sum += 100;
    else if (heading.includes(word)) sum += 20;
    else if (rest.includes(word)) sum += 1;
    else return 0;
  }
  return sum;
}

function excerpt(words, wanted) {
  const at = Math.max(0, words.toLowerCase().indexOf(wanted[0]) - 60);
  return (at ? "… " : "") + words.slice(at, at + 180) + (words.length > at + 180 ? " …" : "");
}

function item(entry, wanted) {
  const [title, page, address, words] = entry;
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

function show(text) {
  const wanted = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!wanted.length) {
    results.replaceChildren(...all);
    found.textContent = "All headings and all public names.";
    return;
  }
  const hits = ENTRIES.map((entry) => [rank(entry, wanted), entry]).filter(([sum]) => sum);
  hits.sort(([one], [other]) => other - one);
  results.replaceChildren(...hits.slice(0, MOST).map(([, entry]) => item(entry, wanted)));
  const more = hits.length > MOST ? `; the first ${MOST} are shown` : "";
  found.textContent = hits.length ? `${hits.length} places${more}` : "Nothing is found.";
}

input.value = query;
show(query);
input.addEventListener("input", () => show(input.value));
