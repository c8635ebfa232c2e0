"use strict";
(() => {
  // Exact values: from titles, which work without this script, to a tip that also opens on a tap.
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  document.body.append(tip);
  for (const element of document.querySelectorAll("[title]")) {
    element.dataset.tip = element.title;
    element.removeAttribute("title");
  }
  for (const title of document.querySelectorAll("svg title")) {
    title.parentNode.dataset.tip = title.textContent;
    title.remove();
  }
  const hide = () => { tip.hidden = true; };
  const show = (event) => {
    const target = event.target.closest && event.target.closest("[data-tip]");
    if (!target) { hide(); return; }
    tip.textContent = target.dataset.tip;
    tip.hidden = false;
    const gap = 14;
    const left = Math.min(event.clientX + gap, innerWidth - tip.offsetWidth - 8);
    const below = event.clientY + gap;
    const top = below + tip.offsetHeight + 8 > innerHeight ? event.clientY - tip.offsetHeight - gap : below;
    tip.style.left = Math.max(8, left) + "px";
    tip.style.top = Math.max(8, top) + "px";
  };
  for (const name of ["pointermove", "pointerdown", "click"]) document.addEventListener(name, show);
  document.addEventListener("scroll", hide, { passive: true, capture: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  document.documentElement.addEventListener("pointerleave", hide);

  // A click on a column's name sorts by it.
  const value = (row, column) => {
    const cell = row.cells[column];
    const key = cell.dataset.v === undefined ? cell.textContent : cell.dataset.v;
    const number = Number(key);
    return key !== "" && !Number.isNaN(number) ? number : key;
  };
  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => {
      const head = button.parentNode;
      const body = head.closest("table").tBodies[0];
      const down = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
      for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down < 0 ? "descending" : "ascending");
      const order = (a, b) => {
        const x = value(a, head.cellIndex), y = value(b, head.cellIndex);
        if (typeof x === typeof y) return (x < y ? -1 : x > y ? 1 : 0) * down;
        return typeof x === "number" ? -1 : 1;
      };
      body.append(...[...body.rows].sort(order));
    });
  }
})();
