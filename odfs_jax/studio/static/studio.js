// What all pages share: dark or light, calls to the server, messages.
"use strict";

const studio = {
  toggleDark() {
    const dark = !document.body.classList.contains("body--dark");
    localStorage.setItem("odfs-dark", dark ? "1" : "0");
    studio.applyDark();
  },

  applyDark() {
    const kept = localStorage.getItem("odfs-dark");
    const dark = kept === null ? matchMedia("(prefers-color-scheme: dark)").matches : kept === "1";
    if (window.Quasar) Quasar.Dark.set(dark);
    document.body.classList.toggle("body--dark", dark);
    document.body.classList.toggle("body--light", !dark);
    document.dispatchEvent(new Event("studio-dark"));
  },

  // To the same page of another workspace; without a name to the list of all.
  enter(name) {
    const page = location.pathname.split("/").pop();
    location.href = name ? `/w/${encodeURIComponent(name)}/${page}` : "/";
  },

  // JSON from the server; throws an Error with the server's words.
  async call(path, body) {
    const options = body === undefined ? {} : {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    };
    let answer;
    try {
      answer = await fetch(path, options);
    } catch {
      throw new Error("the studio does not answer; is it still running?");
    }
    const text = await answer.text();
    let data = {};
    try { data = JSON.parse(text); } catch { data = { error: text }; }
    if (!answer.ok) throw new Error(data.error || data.detail?.[0]?.msg || answer.statusText);
    return data;
  },

  say(text, bad = false, seconds = bad ? 8 : 3) {
    let box = document.getElementById("studio-say");
    if (!box) {
      box = document.createElement("div");
      box.id = "studio-say";
      box.setAttribute("role", "status");
      document.body.append(box);
    }
    box.textContent = text;
    box.className = bad ? "bad" : "";
    clearTimeout(studio.sayTimer);
    studio.sayTimer = setTimeout(() => box.classList.add("gone"), seconds * 1000);
  },

  // What is chosen of {value: text of its button}, the first being the usual one; null: Cancel, or Esc.
  ask(question, choices) {
    const button = ([value, text], at) => studio.make("button", { value, class: at ? "" : "primary" }, text);
    const dialog = studio.make("dialog", { class: "ask" }, studio.make("form", { method: "dialog" },
      studio.make("p", {}, question),
      studio.make("div", { class: "choices" }, ...Object.entries(choices).map(button),
        studio.make("button", { value: "" }, "Cancel"))));
    (document.getElementById("studio-main") || document.body).append(dialog);
    dialog.showModal();
    return new Promise((done) => {
      dialog.addEventListener("close", () => { dialog.remove(); done(dialog.returnValue || null); });
    });
  },

  // An element: make("div", {class: "a", title: "b"}, child or text, ...).
  make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== undefined && value !== false) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  },

  // True while the user writes into a field, or is asked something, so that keys are not commands.
  typing(event) {
    return event.target.closest?.("dialog") || event.ctrlKey && event.key !== "a" && event.key !== "z" || event.altKey ||
      event.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) &&
      event.target.type !== "range" && event.target.type !== "checkbox";
  },

  start() {
    return JSON.parse(document.getElementById("studio-main").dataset.start);
  },
};

window.studio = studio;
document.addEventListener("DOMContentLoaded", () => {
  studio.applyDark();
  setTimeout(studio.applyDark, 0);
});
window.addEventListener("load", () => studio.applyDark());
