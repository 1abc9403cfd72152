// Sort the ledger by any column. Without this script the table stands in the order of the claims.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.sortable")) {
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
});

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
