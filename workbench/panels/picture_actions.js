// What mouse and keyboard do with the pictures of the panel around: ticks, stars, the way from one to the next, shortcuts. Python does the rest.

const KEYS = {
  z: ["undo", "undo, as Ctrl+Z"], "shift+z": ["redo", "redo, as Ctrl+Shift+Z and Ctrl+Y"],
  s: ["star", "star, or take it away: the picture with the focus, or else the newest result"],
  t: ["tick", "tick that picture, to compare it"], c: ["compare", "compare two ticked pictures"],
  x: ["stop", "stop what is drawn"],
  n: ["next", "next picture"], p: ["previous", "the one before"],
};
const SHOWN = [["arrows", "from picture to picture"], ["Enter", "full size"], ["Space", "tick"]];
const TYPED = "input:not([type=checkbox], [type=radio], [type=range], [type=button]), textarea, select, [contenteditable=true]";

function make(tag, parent, properties = {}, text = "") {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(text);
  parent.append(element);
  return element;
}

// What there is to press, and where from the keyboard.
function hint(parent) {
  const details = make("details", parent, { className: "wb-keys" });
  make("summary", details, { title: "keyboard" }, "keys ?");
  const box = make("div", details);
  const list = make("dl", box);
  const say = (key, words) => (make("dt", list, {}, key), make("dd", list, {}, words));
  Object.entries(KEYS).forEach(([key, [, words]]) => say(key.replace("shift+z", "Z"), words));
  SHOWN.forEach(([key, words]) => say(key, words));
  make("p", box, {}, "They count while the focus is in the panel, and nothing is typed.");
  return details;
}

const place = (cell) => [cell.dataset.model, Number(cell.dataset.number)];
const same = (one, other) => one[0] === other[0] && one[1] === other[1];

// The cell that is next to another on the page, in a direction.
function beside(cells, from, [across, down]) {
  const middle = (cell) => ((box) => [box.x + box.width / 2, box.y + box.height / 2])(cell.getBoundingClientRect());
  const [x, y] = middle(from);
  let [best, least] = [null, Infinity];
  for (const cell of cells) {
    const [dx, dy] = ((at) => [at[0] - x, at[1] - y])(middle(cell));
    const [along, aside] = across ? [dx * across, Math.abs(dy)] : [dy * down, Math.abs(dx)];
    if (along < 2 || aside > along) continue;
    const far = along + 4 * aside;
    if (far < least) [best, least] = [cell, far];
  }
  return best;
}

// The pictures of a panel: which has the focus, which are ticked and starred; all of it is put back when they are drawn anew.
class Wall {
  constructor(panel, model) {
    Object.assign(this, { panel, model, current: null, focused: false });
    this.observer = new MutationObserver((records) => records.some(({ target }) => target.closest?.(".wb-looking")) && this.decorate());
    this.observer.observe(panel, { childList: true, subtree: true });
    this.decorate();
  }

  get cells() {
    return [...this.panel.querySelectorAll(".wb-gallery .wb-cell")];
  }

  // The picture that is meant: looked at, focused, or else the newest result.
  get meant() {
    const open = this.panel.querySelector(".wb-full-size dialog[open]");
    if (!open && !this.focused) return this.panel.querySelector(".wb-result .wb-cell");
    return this.at(this.current) ?? this.panel.querySelector(".wb-result .wb-cell");
  }

  at(wanted) {
    return wanted && this.cells.find((cell) => same(place(cell), wanted));
  }

  decorate() {
    const [ticked, starred] = ["ticked", "starred"].map((name) => this.model.get(name));
    const cells = this.cells;
    const reached = this.at(this.current) ?? this.panel.querySelector(".wb-result .wb-cell") ?? cells[0];
    for (const cell of cells) {
      const mark = (name, places) => {
        const button = cell.querySelector(name);
        button.ariaPressed = String(places.some((one) => same(one, place(cell))));
      };
      mark(".wb-tick", ticked);
      mark(".wb-star", starred);
      cell.querySelector("img").tabIndex = cell === reached ? 0 : -1;
    }
    const lost = document.activeElement === document.body || document.activeElement?.contains(this.panel);
    if (this.focused && lost) this.at(this.current)?.querySelector("img").focus({ preventScroll: true });
  }

  // The focus goes to a picture; where one is looked at, so is that.
  go(cell) {
    if (!cell) return;
    const open = this.panel.querySelector(".wb-full-size dialog[open]");
    this.current = place(cell);
    this.decorate();
    if (open) cell.querySelector("img").click();
    else cell.querySelector("img").focus();
  }

  step(by) {
    const [cells, meant] = [this.cells.toSorted(inReading), this.meant];
    this.go(this.focused || this.panel.querySelector(".wb-full-size dialog[open]") ? cells[cells.indexOf(meant) + by] : meant);
  }
}

// Row by row, as one reads.
function inReading(one, other) {
  const [first, second] = [one.getBoundingClientRect(), other.getBoundingClientRect()];
  return Math.abs(first.y - second.y) > 4 ? first.y - second.y : first.x - second.x;
}

function listen(panel, model, wall, keys) {
  const ask = (what, ...given) => model.send({ do: what, with: given });
  const does = {
    star: () => wall.meant && ask("star", ...place(wall.meant)),
    tick: () => wall.meant && ask("tick", ...place(wall.meant)),
    next: () => wall.step(1),
    previous: () => wall.step(-1),
  };
  const shortcut = (event) => {
    const key = event.key.toLowerCase();
    const held = event.ctrlKey || event.metaKey;
    if (event.altKey || (held && !"zy".includes(key)) || event.target.matches(TYPED)) return null;
    return held && key === "y" ? KEYS["shift+z"] : KEYS[event.shiftKey ? `shift+${key}` : key];
  };
  const pressed = (event) => {
    if (event.defaultPrevented) return;
    const onPicture = event.target.matches(".wb-gallery .wb-cell img");
    const looking = event.target.closest(".wb-full-size dialog");
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const found = shortcut(event);
    if (way && (onPicture || looking) && wall.at(wall.current)) wall.go(beside(wall.cells, wall.at(wall.current), way));
    else if (onPicture && event.key === "Enter") event.target.click();
    else if (onPicture && event.key === " ") does.tick();
    else if (event.key === "?" && !event.target.matches(TYPED)) keys.open = !keys.open;
    else if (found) (does[found[0]] ?? (() => ask(found[0])))();
    else return;
    event.preventDefault();
  };
  const clicked = (event) => {
    const cell = event.target.closest(".wb-gallery .wb-cell");
    if (cell) wall.current = place(cell);
    if (cell && event.target.matches(".wb-tick")) ask("tick", ...place(cell));
    if (cell && event.target.matches(".wb-star")) ask("star", ...place(cell));
  };
  const focused = (event) => {
    const cell = event.target.closest(".wb-gallery .wb-cell");
    wall.focused = Boolean(cell);
    if (!cell) return;
    wall.current = place(cell);
    wall.decorate();
  };
  const left = (event) => event.target.closest?.(".wb-gallery") || (wall.focused = false);
  // single keys are the panel's, and no shortcuts of the notebook ("d d" deletes a cell); what is pressed with others stays the notebook's
  const guard = (event) => {
    if (!panel.contains(event.target)) return;
    const undoes = (event.ctrlKey || event.metaKey) && "zy".includes(event.key.toLowerCase());
    const others = event.ctrlKey || event.metaKey || event.altKey || (event.shiftKey && event.key === "Enter");
    const { dataset } = event.target; // the element itself: a shortcut is looked for from there upwards
    if (undoes || !others) dataset.lmSuppressShortcuts ??= "here";
    else if (dataset.lmSuppressShortcuts === "here") delete dataset.lmSuppressShortcuts;
  };
  const all = [[panel, "keydown", pressed], [panel, "click", clicked], [document, "focusin", focused], [document, "pointerdown", left]];
  all.forEach(([where, what, react]) => where.addEventListener(what, react));
  window.addEventListener("keydown", guard, true);
  return () => {
    all.forEach(([where, what, react]) => where.removeEventListener(what, react));
    window.removeEventListener("keydown", guard, true);
  };
}

// What is ticked, as it was then, and what can be done with it.
function tray(row, model, ask) {
  const list = make("div", row, { className: "wb-ticked", role: "list", ariaLabel: "ticked pictures" });
  const button = (text, what, title) => make("button", row, { type: "button", title, onclick: () => ask(what) }, text);
  const compare = button("Compare", "compare", "two ticked pictures under a curtain, in turn, or as their difference");
  const beside = button("Side by side", "side_by_side", "all ticked pictures, large, in one row");
  const clear = button("Clear", "clear", "untick all");
  const none = make("span", row, { className: "wb-none" }, "Tick pictures, before and after a change, to compare them.");
  return () => {
    const held = model.get("held");
    list.replaceChildren();
    held.forEach(({ id, label, title, picture }) => {
      const chip = make("span", list, { role: "listitem", title });
      make("img", chip, { src: picture, alt: "" });
      make("span", chip, {}, label);
      make("button", chip, { type: "button", title: "untick", ariaLabel: `untick ${label}`, onclick: () => ask("untick", id) }, "✕");
    });
    compare.hidden = held.length !== 2;
    beside.hidden = held.length < 2;
    clear.hidden = held.length === 0;
    none.hidden = held.length > 0;
  };
}

function render({ model, el }) {
  el.classList.add("wb-actions");
  const ask = (what, ...given) => model.send({ do: what, with: given });
  const fill = tray(make("div", el, { className: "wb-tray" }), model, ask);
  const keys = hint(el);
  let [wall, silence] = [null, () => {}];
  const frame = requestAnimationFrame(() => {
    const panel = el.closest(".wb-panel");
    if (!panel) return;
    wall = new Wall(panel, model);
    silence = listen(panel, model, wall, keys);
  });
  model.on("change:held", fill);
  model.on("change:ticked change:starred", () => wall?.decorate());
  fill();
  return () => {
    cancelAnimationFrame(frame);
    wall?.observer.disconnect();
    silence();
  };
}

export default { render };
