// The ledger sorts by any column and shows a selection of its claims. Without this script all of it stands in the order of
// the claims, and every claim still opens.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.sortable")) {
    sortable(table);
    selectable(table);
  }
  openTarget();
});
addEventListener("hashchange", openTarget);
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((node) => { node.open = true; }));

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const details = target?.matches("table.ledger tbody") && target.querySelector("details");
  if (!details) return;
  target.hidden = false;
  details.open = true;
  target.scrollIntoView();
}

function sortable(table) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    header.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => sort(table, headers, column));
  });
}

function sort(table, headers, column) {
  const descending = headers[column].getAttribute("aria-sort") === "ascending";
  headers.forEach((header, i) =>
    header.setAttribute("aria-sort", i !== column ? "none" : descending ? "descending" : "ascending"));
  const key = (body) => JSON.parse(body.dataset.sort)[column];
  const order = (a, b) => typeof a === "number" && typeof b === "number"
    ? a - b
    : String(a).localeCompare(String(b), "en", { numeric: true });
  const bodies = [...table.tBodies].sort((a, b) => order(key(a), key(b)) * (descending ? -1 : 1));
  table.append(...bodies);
}

// One list per attribute of the claims and a field for words; the address keeps the choice: ledger.html?paper=P3&verdict=fails
// Without a choice the page opens gently, with one paper: that of the claim in the address, else the first.
function selectable(table) {
  const names = ["paper", "source", "verdict", "scale"];
  const asked = new URLSearchParams(location.search);
  let gently = ![...asked].length;
  if (gently) asked.set("paper", opening(table));
  const form = document.createElement("form");
  form.className = "ledger-filter";
  const count = document.createElement("output");
  count.setAttribute("aria-live", "polite");
  const fields = names.map((name) => field(form, name, choices(table, name), asked.get(name)));
  const words = field(form, "words", null, asked.get("words"));
  const all = document.createElement("button");
  all.type = "button";
  all.textContent = "show all";
  form.append(count, all);
  form.addEventListener("submit", (event) => event.preventDefault());
  const apply = () => {
    const sought = words.value.trim().toLowerCase();
    let shown = 0;
    for (const body of table.tBodies) {
      body.hidden = !(names.every((name, i) => !fields[i].value || body.dataset[name].split(", ").includes(fields[i].value))
        && (!sought || body.textContent.toLowerCase().includes(sought)));
      shown += !body.hidden;
    }
    count.value = `${shown} of ${table.tBodies.length} shown`;
    all.hidden = shown === table.tBodies.length;
  };
  const choose = () => {
    const chosen = [...names.map((name, i) => [name, fields[i].value]), ["words", words.value]].filter(([, value]) => value);
    history.replaceState(history.state, "", `?${new URLSearchParams(chosen.length ? chosen : [["paper", "all"]])}`);
    apply();
  };
  form.addEventListener("input", (event) => {
    if (gently && event.target !== fields[0]) fields[0].value = "";
    gently = false;
    choose();
  });
  all.addEventListener("click", () => {
    gently = false;
    for (const input of [...fields, words]) input.value = "";
    choose();
  });
  table.parentElement.before(form);
  apply();
}

function opening(table) {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const papers = choices(table, "paper");
  return target?.dataset.paper ?? papers.find((name) => name.startsWith("P")) ?? papers[0];
}

const choices = (table, name) => [...new Set([...table.tBodies].flatMap((body) => body.dataset[name].split(", ")))].sort();

// A labelled list of choices, or a text field where there are none.
function field(form, name, values, value) {
  const label = document.createElement("label");
  const input = document.createElement(values ? "select" : "input");
  input.name = name;
  if (values) {
    input.append(new Option("all", ""), ...values.map((choice) => new Option(choice, choice)));
    input.value = values.includes(value) ? value : "";
  } else {
    input.type = "search";
    input.value = value ?? "";
  }
  label.append(`${name} `, input);
  form.append(label);
  return input;
}
