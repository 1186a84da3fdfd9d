// A picture of the panel that is clicked, in full size. Its pixels come when it is looked at; which is next to it, picture_actions.js knows.

function render({ model, el }) {
  el.classList.add("wb-full-size");
  const look = (place) => (model.set("looked_at", place), model.save_changes());
  const box = document.createElement("dialog");
  box.dataset.lmSuppressShortcuts = "true";
  const image = Object.assign(document.createElement("img"), { title: "click: one pixel is one pixel, or all of it" });
  const told = document.createElement("p");
  const hint = Object.assign(document.createElement("small"), { textContent: "arrows: the pictures beside it · s: star · t: tick · Esc: close" });
  const close = Object.assign(document.createElement("button"), { textContent: "Close", onclick: () => box.close() });
  box.append(image, told, close, hint);
  el.append(box);
  let panel = null;
  let address = "";
  const clicked = (event) => {
    const cell = event.target.matches(".wb-cell img") && event.target.closest(".wb-cell");
    if (cell) look([cell.dataset.model, Number(cell.dataset.number)]);
  };
  box.onclose = () => look([]);
  image.onclick = () => {
    box.classList.toggle("wb-exact");
    size();
  };
  // pixels of the screen, not of CSS, where one is to be one
  const size = () => (image.style.width = box.classList.contains("wb-exact") ? `${image.naturalWidth / window.devicePixelRatio}px` : "");
  image.onload = size;
  model.on("change:full", () => {
    const full = model.get("full");
    if (!full.byteLength) return;
    URL.revokeObjectURL(address);
    image.src = address = URL.createObjectURL(new Blob([full], { type: "image/png" }));
    image.alt = told.textContent = model.get("said");
    if (!box.open) box.showModal();
  });
  const listen = requestAnimationFrame(() => {
    panel = el.closest(".wb-panel") ?? el;
    panel.addEventListener("click", clicked);
  });
  return () => {
    cancelAnimationFrame(listen);
    panel?.removeEventListener("click", clicked);
    URL.revokeObjectURL(address);
  };
}

export default { render };
