// A form for merge settings, built from what the server knows of them. It changes a shot: an object
// with those settings only that differ from the command's own.
const { make } = studio;

// The value of "degrade.jpeg" in {degrade: {jpeg: 3}}.
const read = (settings, name) => name.split(".").reduce((part, key) => part?.[key], settings);

function write(settings, name, value) {
  const [key, inner] = name.split(".");
  if (inner === undefined) {
    if (value === undefined) delete settings[key]; else settings[key] = value;
    return;
  }
  const part = { ...settings[key] };
  if (value === undefined) delete part[inner]; else part[inner] = value;
  if (Object.keys(part).length) settings[key] = part; else delete settings[key];
}

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const title = (name) => name.replace("args.", "").replace(/[._]/g, " ");

export class Form {
  constructor(fields, base, changed) {
    Object.assign(this, { fields, base, changed, shot: {} });
    this.element = make("form", { class: "settings", onsubmit: (event) => event.preventDefault() });
    this.rows = new Map(fields.map((field) => [field, this.row(field)]));
    this.element.append(...[...this.rows.values()].map((row) => row.element));
  }

  // The row of the field `name`, which may be placed elsewhere.
  rowOf(name) {
    return this.rows.get(this.fields.find((field) => field.name === name)).element;
  }

  // Shows the settings of `shot`, which the form changes from now on.
  edit(shot) {
    this.shot = shot;
    const mode = shot.mode ?? this.base.mode;
    for (const [field, { element, show }] of this.rows) {
      element.hidden = field.mode !== undefined && field.mode !== mode;
      const own = read(shot, field.name);
      element.classList.toggle("own", own !== undefined);
      if (!element.hidden) show(own === undefined ? this.usual(field) : own);
    }
  }

  // What a field is when the shot says nothing of it.
  usual(field) {
    const foreign = field.mode !== undefined && this.shot.mode !== undefined && this.shot.mode !== this.base.mode;
    return (foreign ? undefined : read(this.base, field.name)) ?? (field.kind === "several" ? [] : null);
  }

  set(field, value) {
    write(this.shot, field.name, same(value, this.usual(field)) ? undefined : value);
    if (field.name === "mode") delete this.shot.args; // those of another mode
    this.edit(this.shot);
    this.changed();
  }

  // Changes the number of the field `name` by `steps` of it, within its range.
  nudge(name, steps) {
    const field = this.fields.find((one) => one.name === name);
    const now = read(this.shot, name) ?? this.usual(field), { low, high, step } = field;
    this.set(field, Math.max(low, Math.min(high, +(now + steps * step).toFixed(6))));
  }

  // Takes the choice of the field `name` that follows the present one, or the one at `index`.
  next(name, index) {
    const field = this.fields.find((one) => one.name === name), { options } = field;
    const now = options.indexOf(read(this.shot, name) ?? this.usual(field));
    const at = index ?? (now + 1) % options.length;
    if (at < options.length) this.set(field, options[at]);
  }

  row(field) {
    const { inputs, show } = this[field.kind](field), unit = field.unit ? [` (${field.unit})`] : [];
    const reset = make("button", { type: "button", class: "reset", title: "as the command has it",
      onclick: () => this.set(field, this.usual(field)) }, "×");
    const element = make("div", { class: "field", title: field.help || field.name,
      "data-field": field.name }, make("span", {}, title(field.name), ...unit), ...inputs, reset);
    return { element, show };
  }

  number(field) {
    const { low, high, step } = field, set = (event) => {
      const value = event.target.valueAsNumber;
      if (Number.isFinite(value)) this.set(field, value);
    };
    const limits = { step, ...(low === null ? {} : { min: low, max: high }), "aria-label": field.name };
    const number = make("input", { type: "number", ...limits, onchange: set });
    if (low === null) return { inputs: [number], show: (value) => { number.value = value; } };
    const range = make("input", { type: "range", ...limits, "aria-label": `${field.name} slider`,
      oninput: set });
    return { inputs: [range, number], show: (value) => { range.value = number.value = value; } };
  }

  choice(field) {
    const { options } = field;
    const input = make("select", { "aria-label": field.name,
      onchange: () => this.set(field, options[input.selectedIndex]) },
      ...options.map((option) => make("option", {}, option === null ? "as the model" : `${option}`)));
    return { inputs: [input], show: (value) => { input.selectedIndex = options.indexOf(value); } };
  }

  several(field) {
    const boxes = field.options.map((option) => make("input", { type: "checkbox",
      "aria-label": `${field.name} ${option}`, onchange: () => this.set(field,
        field.options.filter((_, index) => boxes[index].checked)) }));
    const labels = boxes.map((box, index) => make("label", {}, box, field.options[index]));
    return { inputs: [make("div", { class: "several" }, ...labels)], show: (value) => {
      boxes.forEach((box, index) => { box.checked = value.includes(field.options[index]); });
    } };
  }

  words(field) {
    const input = make("input", { type: "text", "aria-label": field.name,
      onchange: () => this.set(field, input.value) });
    return { inputs: [input], show: (value) => { input.value = value ?? ""; } };
  }
}
