document.documentElement.classList.add("js");

/** The value that a cell sorts by: its number if it has one, otherwise its text; null for an empty cell. */
function sortKey(cell) {
  const value = cell.dataset.value ?? cell.textContent;
  if (value === "") return null;
  const number = Number(value);
  return Number.isNaN(number) ? value.toLowerCase() : number;
}

/** Order two keys; empty cells come last in both directions. */
function compare(a, b, direction) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a !== typeof b) return direction * (typeof a === "number" ? -1 : 1);
  return direction * (a < b ? -1 : a > b ? 1 : 0);
}

function sortBy(table, head) {
  const ascending = head.getAttribute("aria-sort") !== "ascending";
  const direction = ascending ? 1 : -1;
  for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const body = table.tBodies[0];
  const keyed = [...body.rows].map((row) => [sortKey(row.cells[head.cellIndex]), row]);
  keyed.sort((a, b) => compare(a[0], b[0], direction));
  body.append(...keyed.map(([, row]) => row));
}

function filterRows(filters, table) {
  const wanted = new Set([...filters.querySelectorAll("input:checked")].map((input) => input.value));
  const rows = [...table.tBodies[0].rows];
  for (const row of rows) row.hidden = !wanted.has(row.dataset.status);
  filters.querySelector(".shown").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} shown`;
}

/** A link to a trial opens its details. */
function openTarget() {
  const target = /^#trial-\d+$/.test(location.hash) && document.getElementById(location.hash.slice(1));
  if (target) {
    target.open = true;
    target.scrollIntoView();
  }
}

const table = document.getElementById("trials-table");
if (table) {
  for (const head of table.tHead.rows[0].cells) head.querySelector("button").addEventListener("click", () => sortBy(table, head));
  const filters = document.querySelector(".filters");
  filters.addEventListener("change", () => filterRows(filters, table));
}
addEventListener("hashchange", openTarget);
openTarget();
