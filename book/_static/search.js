// A long table that can be searched and sorted in the page. Its rows lie in a script of their own, which is loaded when
// the reader asks for them: a script may be loaded from file://, where fetch() may not.
(() => {
  const PAGE = 15;
  const waiting = new Map();
  window.epigenRows = (table) => waiting.get(document.currentScript.src)(table);

  const element = (tag, attributes = {}, text = "") => {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  };

  const shown = (cell) => {
    if (cell === null) return "";
    if (typeof cell !== "number" || Number.isInteger(cell)) return String(cell);
    return Math.abs(cell) < 0.001 ? cell.toExponential(1) : String(cell);
  };

  const compare = (column, up) => (a, b) => {
    const [x, y] = [a[column], b[column]];
    if (x === null || y === null) return (x === null) - (y === null);
    const order = typeof x === "number" ? x - y : String(x).localeCompare(String(y));
    return up ? order : -order;
  };

  function draw(box, { columns, rows }) {
    let found = rows;
    let first = 0;
    let sorted = { column: -1, up: true };
    const search = element("input", { type: "search", placeholder: "gene symbol or id", "aria-label": "Search the table" });
    const head = element("tr");
    const body = element("tbody");
    const place = element("span", { "aria-live": "polite" });
    const before = element("button", { type: "button" }, "Back");
    const after = element("button", { type: "button" }, "Next");

    const refresh = () => {
      body.replaceChildren(...found.slice(first, first + PAGE).map((row) => {
        const line = element("tr");
        line.append(...row.map((cell) => element("td", {}, shown(cell))));
        return line;
      }));
      const last = Math.min(first + PAGE, found.length);
      place.textContent = found.length ? `${first + 1} to ${last} of ${found.length.toLocaleString("en")} rows` : "no such gene";
      before.disabled = first === 0;
      after.disabled = last >= found.length;
      [...head.children].forEach((cell, i) =>
        cell.setAttribute("aria-sort", i === sorted.column ? (sorted.up ? "ascending" : "descending") : "none"));
    };
    const select = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const text = (row) => row.filter((cell) => typeof cell === "string").join(" ").toLowerCase();
      found = words.length ? rows.filter((row) => words.every((word) => text(row).includes(word))) : [...rows];
      if (sorted.column >= 0) found.sort(compare(sorted.column, sorted.up));
      first = 0;
      refresh();
    };
    columns.forEach((name, column) => {
      const cell = element("th", { scope: "col" });
      const button = element("button", { type: "button" }, name.replaceAll("_", " "));
      button.addEventListener("click", () => {
        sorted = { column, up: sorted.column === column ? !sorted.up : true };
        select();
      });
      cell.append(button);
      head.append(cell);
    });
    search.addEventListener("input", select);
    before.addEventListener("click", () => { first -= PAGE; refresh(); });
    after.addEventListener("click", () => { first += PAGE; refresh(); });

    const table = element("table", { class: "table" });
    const top = element("thead");
    const scroll = element("div", { class: "epigen-search-rows" });
    const feet = element("p");
    top.append(head);
    table.append(top, body);
    scroll.append(table);
    feet.append(before, " ", after, " ", place);
    box.prepend(search, scroll, feet);
    select();
    search.focus();
  }

  document.addEventListener("DOMContentLoaded", () => {
    for (const box of document.querySelectorAll(".epigen-search")) {
      const link = box.querySelector('a[href$=".js"]');
      if (!link) continue;
      const open = element("button", { type: "button", class: "epigen-search-open" }, link.textContent);
      link.replaceWith(open);
      open.addEventListener("click", () => {
        open.disabled = true;
        waiting.set(link.href, (table) => { open.remove(); draw(box, table); });
        document.head.append(element("script", { src: link.href }));
      });
    }
  });
})();
