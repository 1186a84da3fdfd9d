// Two pictures, and which of them is better. All state is the model's (preference_panel.py); here it is drawn, and asked for.

const SIDES = ["left", "right"];
// what a key does, and how its button is called
const ANSWERS = [
  { key: "1", answer: "left", label: "left is better" },
  { key: " ", answer: "tie", label: "no difference" },
  { key: "2", answer: "right", label: "right is better" },
  { key: "s", answer: "neither", label: "neither will do" },
];
const KEYS = { " ": "space" }; // how keys are written

// An element; what takes the focus keeps its keys from the notebook's shortcuts ("d d" deletes a cell).
function make(tag, parent, properties = {}, text = "") {
  const element = Object.assign(document.createElement(tag), properties);
  if (tag === "button") element.dataset.lmSuppressShortcuts = "true";
  element.append(text);
  parent.append(element);
  return element;
}

function keyed(parent, key, label, act) {
  const button = make("button", parent, { type: "button", onclick: act }, label);
  button.prepend(Object.assign(document.createElement("kbd"), { textContent: KEYS[key] ?? key }));
  return button;
}

// The two pictures. What draws them stands nowhere in the page.
function stage(el, model, question, choose) {
  const pair = make("div", el, { className: "pair" });
  const images = SIDES.map((side) => {
    const figure = make("figure", pair, { onclick: () => choose(side) });
    return make("img", figure, { alt: `the ${side} picture`, draggable: false });
  });
  const wait = make("p", pair, { className: "wait" }, "drawing …");
  let addresses = [];
  const clear = () => addresses.forEach((address) => URL.revokeObjectURL(address));
  const fill = () => {
    clear();
    addresses = model.get("pictures").map((bytes) => URL.createObjectURL(new Blob([bytes], { type: "image/png" })));
    images.forEach((image, number) => {
      image.hidden = !addresses[number];
      if (addresses[number]) image.src = addresses[number];
      image.onload = () => image.classList.toggle("small", image.naturalWidth < 256); // pixels stay pixels
    });
  };
  const ready = () => {
    const shown = question() > 0;
    pair.setAttribute("aria-busy", String(!shown));
    wait.hidden = shown;
  };
  return { update: () => (fill(), ready()), ready, clear };
}

function row(table, tag, cells) {
  const line = make("tr", table);
  cells.forEach((cell) => make(tag, line, {}, cell));
  return line;
}

// A strength with its deviation, on the scale of all of them.
function whisker(cell, one, scale) {
  const place = (value) => `${(100 * (value - scale.low)) / (scale.high - scale.low)}%`;
  const box = make("div", cell, { className: "whisker", title: `${one.strength.toFixed(2)} ± ${one.deviation.toFixed(2)}` });
  const line = make("i", box);
  line.style.left = place(one.strength - one.deviation);
  line.style.right = `calc(100% - ${place(one.strength + one.deviation)})`;
  make("b", box).style.left = place(one.strength);
}

function ranking(el, model) {
  const box = make("div", el, { className: "ranking" });
  return () => {
    const rows = model.get("rows");
    box.replaceChildren();
    box.hidden = !model.get("names");
    if (box.hidden) return; // what is hidden is not in the page either
    if (rows.length) {
      const table = make("table", box);
      row(table, "th", ["candidate", "strength ± deviation", "the best", "won", "lost", "tied", "neither"]);
      const scale = { low: Math.min(...rows.map((one) => one.strength - one.deviation)), high: Math.max(...rows.map((one) => one.strength + one.deviation)) };
      rows.forEach((one) => {
        const line = row(table, "td", [one.name, "", `${Math.round(100 * one.best)} %`, one.won, one.lost, one.tied, one.neither]);
        whisker(line.children[1], one, scale);
      });
    }
    make("pre", box, {}, model.get("outcome"));
  };
}

function render({ model, el }) {
  el.classList.add("wb-prefer");
  el.tabIndex = 0;
  el.dataset.lmSuppressShortcuts = "true";
  el.setAttribute("role", "group");
  el.setAttribute("aria-label", "which picture is better?");
  const focus = () => el.focus({ preventScroll: true }); // so that the space bar presses no button again
  const ask = (what) => (focus(), model.send(what));
  let answered = 0; // here, before the kernel knows
  const question = () => (model.get("question") === answered ? 0 : model.get("question"));
  const choose = (answer) => {
    if (!question()) return;
    answered = question();
    ask({ do: "choose", question: answered, answer });
    ready();
  };
  const undo = () => ask({ do: "undo" });

  const asked = make("p", el, { className: "asked" });
  const pictures = stage(el, model, question, choose);
  const answers = make("div", el, { className: "row answers" });
  const buttons = ANSWERS.map(({ key, answer, label }) => keyed(answers, key, label, () => choose(answer)));
  keyed(answers, "u", "undo", undo);
  const progress = make("p", el, { className: "far", role: "status" });
  const said = make("p", el, { className: "said", role: "status" });
  const more = make("div", el, { className: "row" });
  const names = make("button", more, { type: "button", onclick: () => (focus(), model.set("names", !model.get("names")), model.save_changes()) });
  make("button", more, { type: "button", title: "write all choices, names included, as a table", onclick: () => ask({ do: "export" }) }, "Save as CSV");
  make("span", more, { className: "hint" }, "click here once, and the keys work");
  const table = ranking(el, model);

  el.onclick = (event) => event.target.closest("button, pre, table") || focus();
  el.onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.key === " " && event.target.tagName === "BUTTON") return; // which it presses
    const found = ANSWERS.find(({ key }) => key === event.key.toLowerCase());
    if (!found && event.key.toLowerCase() !== "u") return;
    event.preventDefault(); // the space bar scrolls
    event.stopPropagation();
    if (found) choose(found.answer);
    else undo();
  };
  const ready = () => {
    pictures.ready();
    buttons.forEach((button) => (button.disabled = !question()));
  };
  const tell = () => {
    asked.textContent = model.get("asked");
    progress.textContent = model.get("progress");
    said.textContent = model.get("said");
    names.textContent = model.get("names") ? "Hide names" : "Show names";
    names.setAttribute("aria-expanded", String(model.get("names")));
  };
  ["asked", "progress", "said", "names"].forEach((name) => model.on(`change:${name}`, tell));
  ["rows", "outcome", "names"].forEach((name) => model.on(`change:${name}`, table));
  model.on("change:pictures", pictures.update);
  model.on("change:question", ready);
  pictures.update();
  ready();
  tell();
  table();
  return pictures.clear;
}

export default { render };
