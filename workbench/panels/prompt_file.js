// A line that takes a text file of prompts.

const MOST = 2 ** 20; // bytes of a list of prompts; of more only the beginning travels, and the kernel refuses it

function render({ model, el }) {
  el.classList.add("wb-file");
  const input = Object.assign(document.createElement("input"), { type: "file", accept: ".txt,text/plain", ariaLabel: "prompts from a file" });
  el.append(input);
  input.onchange = async () => {
    const [file] = input.files;
    if (file) model.send({ name: file.name }, undefined, [await file.slice(0, MOST + 1).arrayBuffer().catch(() => new ArrayBuffer(0))]);
    input.value = "";
  };
}

export default { render };
