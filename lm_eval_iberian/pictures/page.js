// What the page can do beyond showing: filter, sort, set two rows beside each other, follow a link to a point.
// It makes no request and keeps nothing; without it the page says the same. Texts are read and written as texts only.
"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const make = (tag, text = "", attributes = {}) => {
    const made = document.createElement(tag);
    made.textContent = text;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };

  // Filter by language and benchmark: what shows no such figure is hidden, and so is what holds nothing else.
  const filters = document.getElementById("filters");
  const filter = () => {
    const wanted = all("select", filters).filter((one) => one.value).map((one) => [one.dataset.facet, one.value]);
    const fits = (part) => wanted.every(([facet, value]) => part.dataset[facet].split("\n").includes(value));
    for (const part of all("[data-language]")) part.classList.toggle("off", !fits(part));
    for (const holder of all("[data-holder]")) {
      const parts = all("[data-language]", holder);
      holder.classList.toggle("off", parts.length > 0 && parts.every((part) => part.classList.contains("off")));
    }
    for (const link of all("nav a")) {
      const section = document.getElementById(link.hash.slice(1));
      link.parentElement.classList.toggle("off", section !== null && section.classList.contains("off"));
    }
  };
  if (filters) {
    filters.hidden = false;
    filters.addEventListener("change", filter);
  }

  // Sort a table by a column: figures by size, largest first; names by name; what has no figure, and chance, last.
  const figure = (cell) => {
    const found = /[-+\u2212]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?/i.exec(cell.textContent);
    return found ? Number(found[0].replace("\u2212", "-").replaceAll(",", "")) : NaN;
  };
  const sort = (table, number, downwards) => {
    const rows = all("tr", table.tBodies[0]);
    const byName = number === 0 || rows.every((row) => Number.isNaN(figure(row.cells[number])));
    const sign = downwards ? -1 : 1;
    const compare = (one, other) => {
      const last = one.classList.contains("chance") - other.classList.contains("chance");
      if (last) return last;
      const [a, b] = [one.cells[number], other.cells[number]];
      if (byName) return sign * a.textContent.localeCompare(b.textContent, undefined, { numeric: true });
      const [x, y] = [figure(a), figure(b)];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      return sign * (x - y);
    };
    table.tBodies[0].append(...rows.sort(compare));
    for (const [place, head] of [...table.tHead.rows[0].cells].entries()) {
      if (place === number) head.setAttribute("aria-sort", downwards ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  };
  for (const table of all("table[data-sort]")) {
    if (table.tBodies[0].rows.length < 2) continue;
    for (const [number, head] of [...table.tHead.rows[0].cells].entries()) {
      if (!head.textContent.trim()) continue;
      const button = make("button", "", { type: "button", title: "Sort by this column" });
      button.append(...head.childNodes);
      button.addEventListener("click", () => {
        const sorted = head.getAttribute("aria-sort");
        sort(table, number, sorted ? sorted === "ascending" : number > 0);
      });
      head.append(button);
    }
  }

  // Two rows' identities beside each other: from the table that says all of them.
  const between = document.getElementById("between");
  const stated = document.querySelector("table.apart");
  const choice = (label, rows, chosen) => {
    const select = make("select");
    select.append(...rows.map((row) => make("option", row.cells[0].textContent.trim())));
    select.selectedIndex = chosen;
    const named = make("label", label + " ");
    named.append(select);
    return [named, select];
  };
  if (between && stated) {
    const rows = all("tr", stated.tBodies[0]);
    const keys = [...stated.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
    const [first, one] = choice("Row", rows, 0);
    const [second, other] = choice("beside", rows, Math.min(1, rows.length - 1));
    const shown = make("div", "", {
      "aria-live": "polite", class: "scroll", role: "region", tabindex: "0", "aria-label": "What sets the two rows apart",
    });
    const compare = () => {
      const pair = [one, other].map((select) => [...rows[select.selectedIndex].cells].map((cell) => cell.textContent.trim()));
      const apart = keys.map((key, place) => [key, pair[0][place], pair[1][place]]).slice(1).filter(([, a, b]) => a !== b);
      const table = make("table", "", { class: "words" });
      const head = make("tr");
      head.append(...["", pair[0][0], pair[1][0]].map((text) => make("th", text, { scope: "col" })));
      table.createTHead().append(head);
      const body = table.createTBody();
      for (const [key, a, b] of apart) {
        const row = make("tr");
        row.append(make("th", key, { scope: "row" }), make("td", a, { class: "words" }), make("td", b, { class: "words" }));
        body.append(row);
      }
      shown.replaceChildren(apart.length ? table : make("p", "One measurement: their identities are the same."));
    };
    between.append(first, second, shown);
    between.hidden = false;
    between.addEventListener("change", compare);
    compare();
  }

  // A link to a point or a document: what is folded around it opens, and the point's rows are marked everywhere.
  const follow = () => {
    const id = decodeURIComponent(location.hash.slice(1));
    for (const row of all("tr.here")) row.classList.remove("here");
    const target = id ? document.getElementById(id) : null;
    if (!target) return;
    for (let one = target; one; one = one.parentElement) if (one.tagName === "DETAILS") one.open = true;
    for (const row of all("tr[data-point]")) row.classList.toggle("here", row.dataset.point === id);
    target.scrollIntoView();
  };
  window.addEventListener("hashchange", follow);
  follow();
})();
