// The neighbourhood of one claim at a time, drawn from the lists of its row: what it shares with which other claims. The
// address keeps which one is drawn: ledger.html?around=P3-C1#P3-C1. Without this script the lists say the same.
document.addEventListener("DOMContentLoaded", () => {
  for (const list of document.querySelectorAll("ul.around")) offer(list);
  drawAsked();
});
addEventListener("popstate", drawAsked);
addEventListener("resize", drawAsked);

const ROW = 26, INDENT = 22, CHIP = 66, ID = /\b(?:[A-Z][A-Z0-9]*-[A-Z]|S-)\d+\b/g;
const asked = () => new URLSearchParams(location.search).get("around");

function offer(list) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "around";
  button.textContent = "draw its neighbourhood";
  button.addEventListener("click", () => show(asked() === list.dataset.claim ? "" : list.dataset.claim));
  list.before(button);
}

function show(claim) {
  const address = new URL(location.href);
  if (claim) address.searchParams.set("around", claim);
  else address.searchParams.delete("around");
  if (claim) address.hash = claim;
  history.pushState(null, "", address);
  drawAsked();
}

function drawAsked() {
  document.querySelectorAll("svg.around").forEach((node) => node.remove());
  const list = [...document.querySelectorAll("ul.around")].find((each) => each.dataset.claim === asked());
  if (!list) return;
  const body = list.closest("tbody");
  body.hidden = false;
  body.querySelector("details").open = true;
  list.before(drawing(list, Math.max(260, list.clientWidth)));
  body.scrollIntoView({ block: "nearest" });
}

// A spine from the claim, a branch to each thing it shares, and behind it the claims that share it.
function drawing(list, width) {
  const svg = node("svg", { class: "around", role: "group", "aria-label": `Neighbourhood of ${list.dataset.claim}` });
  let y = ROW, last = ROW;
  chip(svg, list.dataset.claim, 0, y);
  for (const item of list.children) {
    y += ROW;
    last = y;
    svg.append(node("path", { d: `M 8 ${y - 5} H ${INDENT - 4}`, class: item.dataset.kind }));
    const label = node("text", { x: INDENT, y });
    label.textContent = item.textContent.split(": ")[0];
    svg.append(label);
    let x = INDENT;
    y += ROW;
    for (const claim of item.textContent.split(": ")[1].match(ID) ?? []) {
      if (x + CHIP > width) {
        x = INDENT;
        y += ROW;
      }
      chip(svg, claim, x, y);
      x += CHIP;
    }
  }
  svg.prepend(node("path", { d: `M 8 ${ROW + 6} V ${last - 5}` }));
  svg.setAttribute("width", width);
  svg.setAttribute("height", y + 10);
  return svg;
}

// A claim in the colour of its verdict; a click goes to its own neighbourhood.
function chip(svg, claim, x, y) {
  const verdict = document.getElementById(claim)?.dataset.verdict ?? "";
  const link = node("a", { href: `?around=${claim}#${claim}`, class: verdict.replaceAll(" ", "-") });
  const text = node("text", { x, y });
  text.textContent = claim;
  const title = node("title", {});
  title.textContent = `${claim}: ${verdict}`;
  link.append(title, text);
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    show(claim);
    document.querySelector("svg.around a")?.focus();
  });
  svg.append(link);
}

function node(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
