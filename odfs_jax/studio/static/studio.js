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

  say(text, bad = false) {
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
    studio.sayTimer = setTimeout(() => box.classList.add("gone"), bad ? 8000 : 3000);
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

  // True while the user writes into a field, so that keys are not commands.
  typing(event) {
    return event.ctrlKey && event.key !== "a" && event.key !== "z" || event.altKey ||
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
