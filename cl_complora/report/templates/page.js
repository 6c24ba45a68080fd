"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (head.tagName !== "TH") return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const key = row => {
        const cell = row.cells[column];
        return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.trim();
      };
      const numbers = [...body.rows].some(row => typeof key(row) === "number");
      const down = head.ariaSort ? head.ariaSort === "ascending" : numbers;
      const rows = [...body.rows].sort((a, b) => {
        const one = key(a), other = key(b);
        if (numbers && typeof one !== typeof other) return typeof one === "number" ? -1 : 1;
        const order = numbers ? one - other : String(one).localeCompare(String(other), undefined, {numeric: true});
        return down ? -order : order;
      });
      for (const other of table.tHead.rows[0].cells) other.ariaSort = null;
      head.ariaSort = down ? "descending" : "ascending";
      body.append(...rows);
    });
  });
}
for (const filter of document.querySelectorAll(".filter")) {
  const select = filter.querySelector("select");
  const body = document.getElementById(select.dataset.table).closest("table").tBodies[0];
  filter.hidden = false;
  select.addEventListener("change", () => {
    for (const row of body.rows)
      row.hidden = select.value !== "" && row.cells[select.dataset.column].textContent.trim() !== select.value;
  });
}
for (const choice of document.querySelectorAll(".choice")) {
  const show = () => {
    const chosen = choice.querySelector("input:checked").value;
    for (const part of choice.querySelectorAll(".chosen")) part.hidden = part.id !== chosen;
  };
  choice.querySelector("fieldset").hidden = false;
  choice.addEventListener("change", show);
  show();
}
const edges = part => {
  part.classList.toggle("more", part.scrollLeft + part.clientWidth < part.scrollWidth - 1);
  part.classList.toggle("moved", part.scrollLeft > 0);
};
const settle = () => {
  for (const part of document.querySelectorAll(".scroll")) {
    if (part.scrollWidth > part.clientWidth + 1) part.tabIndex = 0;
    else part.removeAttribute("tabindex");
    edges(part);
  }
};
settle();
for (const part of document.querySelectorAll(".scroll"))
  part.addEventListener("scroll", () => edges(part), {passive: true});
addEventListener("resize", settle);
document.addEventListener("change", settle);
document.addEventListener("toggle", settle, true);
