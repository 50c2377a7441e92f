"use strict";

// Tables: a header that is pressed sorts by its column, once more turns it round. Numbers are
// compared as numbers, words as words; what is missing stays last, equal rows keep their order.

const NUMBER = /^[-−+]?(inf|(\d[\d,]*)?\.?\d+(e[-+]?\d+)?)\s*%?(\s–\s.*)?$/i;
const words = new Intl.Collator(document.documentElement.lang, { numeric: true });
const known = (text) => text !== "" && text !== "–";
const number = (text) =>
  parseFloat(text.replaceAll(",", "").replace("−", "-").replace(/inf/i, "Infinity"));

function order(texts) {
  const there = texts.filter(known);
  const compare = there.every((text) => NUMBER.test(text))
    ? (a, b) => number(a) - number(b) || 0
    : words.compare;
  return (a, b, sign) =>
    known(a) && known(b) ? sign * compare(a, b) : Number(known(b)) - Number(known(a));
}

function sortBy(header) {
  const body = header.closest("table").tBodies[0];
  const text = (row) => row.cells[header.cellIndex].textContent.trim();
  const rows = [...body.rows];
  const compare = order(rows.map(text));
  const falling = header.getAttribute("aria-sort") === "ascending";
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", falling ? "descending" : "ascending");
  body.append(...rows.sort((a, b) => compare(text(a), text(b), falling ? -1 : 1)));
}

for (const header of document.querySelectorAll("thead th")) {
  if (header.closest("table").tBodies[0].rows.length < 2) continue;
  const button = document.createElement("button");
  button.type = "button";
  button.append(...header.childNodes);
  button.addEventListener("click", () => sortBy(header));
  header.append(button);
}

// Stacks of slices: the slider shows one of each picture's steps.

for (const stack of document.querySelectorAll(".stack")) {
  const control = stack.querySelector(".control");
  const slider = control.querySelector("input");
  const said = control.querySelector("output");
  const steps = JSON.parse(stack.dataset.steps);
  const show = () => {
    const at = Number(slider.value) - 1;
    for (const picture of stack.querySelectorAll(".steps"))
      [...picture.children].forEach((image, step) => (image.hidden = step !== at));
    said.textContent = steps[at];
    slider.setAttribute("aria-valuetext", steps[at]);
  };
  slider.addEventListener("input", show);
  control.hidden = false;
  show();
}

// A figure that is wider than the screen scrolls in its box, by keyboard as well.

const fit = () => {
  for (const figure of document.querySelectorAll("figure.wide")) {
    if (figure.scrollWidth > figure.clientWidth) figure.tabIndex = 0;
    else figure.removeAttribute("tabindex");
  }
};
addEventListener("load", fit);
addEventListener("resize", fit);
document.addEventListener("toggle", fit, true); // what was folded had no width
