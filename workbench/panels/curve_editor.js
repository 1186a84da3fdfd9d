// Draws points of a curve over frequency, and charts below it, and tells Python what a person did to the points. What it means is Python's.

const LEFT = 46, RIGHT = 10, ABOVE = 10, BELOW = 20; // pixels around a plot
const STEPS = [0.01, 0.05]; // of a point's frequency and value
const NEAR = 12; // pixels within which the mouse means a point
const TWICE = 400; // milliseconds within which two presses are a double one; plots are drawn anew, and browsers count by element
const SPACE = "http://www.w3.org/2000/svg";

function node(tag, classes, parent, text = "") {
  const made = document.createElement(tag);
  made.className = classes;
  made.textContent = text;
  parent.append(made);
  return made;
}

function shape(tag, given, parent, text = "") {
  const made = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(given)) made.setAttribute(name, value);
  made.textContent = text;
  parent.append(made);
  return made;
}

// A plot in an element: places of values in it, and its axes.
function plot(parent, height, { low, high, log = false }) {
  const width = Math.max(parent.clientWidth, 200);
  const svg = shape("svg", { width, height, viewBox: `0 0 ${width} ${height}` }, parent);
  const scaled = (value) => (log ? Math.log10(value) : value);
  const inside = { width: width - LEFT - RIGHT, height: height - ABOVE - BELOW };
  const at = {
    x: (frequency) => LEFT + frequency * inside.width,
    y: (value) => ABOVE + (1 - (scaled(value) - scaled(low)) / (scaled(high) - scaled(low))) * inside.height,
    frequency: (x) => Math.min(Math.max((x - LEFT) / inside.width, 0), 1),
    value: (y) => Math.min(Math.max(low + (1 - (y - ABOVE) / inside.height) * (high - low), low), high),
  };
  for (const frequency of [0, 0.25, 0.5, 0.75, 1]) {
    shape("line", { class: "grid", x1: at.x(frequency), x2: at.x(frequency), y1: ABOVE, y2: height - BELOW }, svg);
    shape("text", { class: "tick", x: at.x(frequency), y: height - 6, "text-anchor": "middle" }, svg, String(frequency));
  }
  for (const value of ticks(low, high, log)) {
    shape("line", { class: value === 0 ? "grid zero" : "grid", x1: LEFT, x2: width - RIGHT, y1: at.y(value), y2: at.y(value) }, svg);
    shape("text", { class: "tick", x: LEFT - 10, y: at.y(value) + 4, "text-anchor": "end" }, svg, String(value));
  }
  return { svg, at };
}

function ticks(low, high, log) {
  const found = [];
  if (log) {
    for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power++)
      for (const digit of [1, 2, 5]) found.push(Number((digit * 10 ** power).toPrecision(3)));
  } else {
    const step = high - low > 2 ? 1 : 0.5;
    for (let value = Math.ceil(low / step) * step; value <= high; value += step) found.push(value);
  }
  return found.filter((value) => value >= low && value <= high);
}

function path(points) {
  return points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}

function render({ model, el }) {
  let moved = null; // the points as a person has them under the hand, until Python has them too
  let told = []; // what Python was told and has not answered yet, oldest first
  let held = null; // the point that is dragged
  let pressed = { point: -1, at: 0 }; // the last press of the mouse
  let focus = null; // the point that keys go to
  const points = () => moved ?? model.get("points");

  el.classList.add("wb-curve");
  node("div", "wb-curve-head", el, model.get("title"));
  const editor = node("div", "wb-curve-edit", el);
  node("div", "wb-curve-hint", el, "Drag a point; click beside it to add one; double-click it, or press Delete, to take it away.");
  const charts = node("div", "wb-curve-charts", el);
  node("div", "wb-curve-axis", el, "frequency (1: the highest)");
  let places = null; // of the editor's plot

  // Drawing anew keeps the keyboard where it is: on a point, if one has it, and with whatever else has it.
  function show(take = editor.contains(editor.getRootNode().activeElement)) {
    const now = points();
    const values = now.map(([, value]) => value);
    const bounds = { low: Math.min(model.get("low"), ...values), high: Math.max(model.get("high"), ...values) };
    editor.replaceChildren();
    const { svg, at } = plot(editor, 165, bounds);
    places = at;
    const line = [[0, values[0]], ...now, [1, values.at(-1)]];
    shape("path", { class: "curve", d: path(line.map(([x, y]) => [at.x(x), at.y(y)])) }, svg);
    now.forEach(([frequency, value], i) => {
      const roles = { role: "slider", tabindex: i === (focus ?? 0) ? 0 : -1, "aria-label": `point at frequency ${frequency}`, "aria-valuenow": value };
      const point = shape("circle", { class: "point", cx: at.x(frequency), cy: at.y(value), r: 6, ...roles }, svg);
      point.dataset.lmSuppressShortcuts = "true"; // keys typed here are not for JupyterLab
      shape("title", {}, point, `${value} at ${frequency}`);
      point.addEventListener("keydown", (event) => typed(event, i));
      point.addEventListener("focus", () => { focus = i; });
      if (take && i === focus) point.focus({ preventScroll: true });
    });
  }

  function showCharts() {
    charts.replaceChildren();
    for (const chart of model.get("charts")) {
      const head = node("div", "wb-curve-head", charts, chart.title);
      for (const { name, colour } of chart.lines) node("span", "wb-curve-name", head, name).style.setProperty("--colour", colour);
      const holder = node("div", "wb-curve-chart", charts);
      const { svg, at } = plot(holder, 125, chart);
      for (const { x, y, colour, thin, name } of chart.lines) {
        const drawn = x.map((frequency, k) => [at.x(frequency), at.y(y[k])]);
        const line = shape("path", { class: thin ? "line thin" : "line", d: path(drawn), stroke: colour }, svg);
        shape("title", {}, line, name);
        if (!thin) for (const [cx, cy] of drawn) shape("circle", { cx, cy, r: 2.2, fill: colour }, svg);
      }
    }
    charts.classList.toggle("wb-stale", model.get("stale"));
  }

  // A point where it may be: between its neighbours, on the grid of steps.
  function placed(now, i, frequency, value) {
    const before = i ? now[i - 1][0] + STEPS[0] : 0;
    const after = i < now.length - 1 ? now[i + 1][0] - STEPS[0] : 1;
    const near = (given, step) => Number((Math.round(given / step) * step).toFixed(2));
    return [near(Math.min(Math.max(frequency, before), after), STEPS[0]), near(value, STEPS[1])];
  }

  function put(i, frequency, value) {
    const now = points();
    moved = now.map((point, k) => (k === i ? placed(now, i, frequency, value) : point));
    show();
  }

  function tell() {
    if (JSON.stringify(moved) === JSON.stringify(model.get("points"))) moved = null;
    else if (moved) {
      told.push(JSON.stringify(moved));
      model.send({ points: moved, at: Date.now() });
    }
  }

  function remove(i) {
    if (points().length < 2) return;
    moved = points().filter((_, k) => k !== i);
    focus = null;
    show();
    tell();
  }

  function typed(event, i) {
    const [frequency, value] = points()[i];
    const turns = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const turn = turns[event.key];
    focus = i;
    if (turn) {
      put(i, frequency + turn[0] * STEPS[0], Math.min(Math.max(value + turn[1] * STEPS[1], model.get("low")), model.get("high")));
      tell();
    } else if (event.key === "Delete" || event.key === "Backspace") remove(i);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // Where the mouse is in the plot, and which point it means.
  function under(event) {
    const box = editor.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const apart = points().map(([frequency, value]) => Math.hypot(places.x(frequency) - x, places.y(value) - y));
    const nearest = apart.indexOf(Math.min(...apart));
    return { frequency: places.frequency(x), value: places.value(y), point: apart[nearest] <= NEAR ? nearest : -1 };
  }

  editor.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const { frequency, value, point } = under(event);
    const twice = point >= 0 && point === pressed.point && event.timeStamp - pressed.at < TWICE;
    pressed = { point, at: event.timeStamp };
    event.preventDefault();
    if (twice) return remove(point);
    held = point;
    if (point < 0) {
      const now = points();
      const at = Number(frequency.toFixed(2));
      if (now.some(([other]) => other === at)) return;
      held = now.filter(([other]) => other < at).length;
      moved = [...now.slice(0, held), [at, value], ...now.slice(held)];
      put(held, at, value);
    }
    focus = held;
    show(true);
    editor.setPointerCapture(event.pointerId);
  });
  editor.addEventListener("pointermove", (event) => {
    if (held === null || held < 0) return;
    const { frequency, value } = under(event);
    pressed.point = -1;
    put(held, frequency, value);
  });
  editor.addEventListener("pointerup", () => {
    if (held !== null && held >= 0) tell();
    held = null;
  });
  editor.addEventListener("pointercancel", () => { held = moved = null; show(); });

  // An answer to what has been moved on from since must not take that back.
  const come = () => {
    const answered = told.indexOf(JSON.stringify(model.get("points")));
    const behind = answered >= 0 && answered < told.length - 1;
    told = behind ? told.slice(answered + 1) : [];
    if (!behind) moved = null;
    show();
  };
  const dimmed = () => charts.classList.toggle("wb-stale", model.get("stale"));
  const resized = new ResizeObserver(() => { show(); showCharts(); });
  model.on("change:points", come);
  model.on("change:charts", showCharts);
  model.on("change:stale", dimmed);
  resized.observe(el);
  show();
  showCharts();
  return () => {
    resized.disconnect();
    model.off("change:points", come);
    model.off("change:charts", showCharts);
    model.off("change:stale", dimmed);
  };
}

export default { render };
