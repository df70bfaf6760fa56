// A grid of thousands of pictures of which only those in sight are elements: the same few cells are
// moved and given other pictures as the user scrolls. Groups have a heading and begin a row.

const GAP = 4; // pixels between cells
const AHEAD = 2; // rows beyond the edges that are there already
const HEAD = 30; // pixels of a heading
const RUSH = 0.5; // rows a frame from which on the eye follows no picture ...
const ASKED = 3; // ... and only so many are asked for in a frame: the rest would be gone when they come

export class Grid {
  // `picture(name)` gives the address of a picture, `label(name)` its text.
  constructor(scroll, { picture, label, changed }) {
    this.scroll = scroll;
    this.picture = picture;
    this.label = label;
    this.changed = changed; // called when the selection changes
    this.items = []; // names in the order they are shown
    this.heads = []; // [{first, count, text}]: the groups of neighbors, of all items or none
    this.rows = []; // [{first, top, height, head}], from the top
    this.chosen = new Set(); // names
    this.cursor = 0; // index
    this.anchor = 0; // index where a range begins
    this.side = 112; // pixels of a cell
    this.cells = [];
    this.drawnAt = 0; // where the scroll was at the last look
    this.titles = new Map(); // the elements of the headings in sight
    this.spacer = studio.make("div", { role: "presentation" });
    scroll.setAttribute("role", "listbox");
    scroll.setAttribute("aria-multiselectable", "true");
    scroll.append(this.spacer);
    scroll.addEventListener("scroll", () => this.later(), { passive: true });
    new ResizeObserver(() => this.layout()).observe(scroll);
    scroll.addEventListener("pointerdown", (event) => this.pressed(event));
    scroll.addEventListener("dblclick", (event) => {
      const element = event.target.closest(".cell");
      if (element) this.opened(element.dataset.name);
    });
  }

  show(items, heads = []) {
    this.items = items;
    this.heads = heads;
    this.cursor = Math.min(this.cursor, Math.max(0, items.length - 1));
    this.anchor = Math.min(this.anchor, this.cursor);
    this.layout();
  }

  // The names that are chosen and shown, in their order.
  get picked() { return this.items.filter((name) => this.chosen.has(name)); }

  layout() {
    const width = this.scroll.clientWidth - GAP;
    this.columns = Math.max(1, Math.floor(width / (this.side + GAP)));
    this.step = this.side + GAP;
    this.rows = [];
    this.drawTitles([]);
    let top = GAP;
    for (const head of this.heads.length ? this.heads : [{ first: 0, count: this.items.length }]) {
      for (let at = 0; at < head.count; at += this.columns) {
        const titled = at === 0 && head.text;
        const height = this.step + (titled ? HEAD : 0);
        this.rows.push({ first: head.first + at, top, height, head: titled ? head : null });
        top += height;
      }
    }
    this.spacer.style.height = `${top}px`;
    const seen = Math.ceil(this.scroll.clientHeight / this.step) + 1 + 2 * AHEAD;
    const wanted = Math.min(seen * this.columns, this.items.length);
    while (this.cells.length > wanted) this.cells.pop().element.remove();
    while (this.cells.length < wanted) this.cells.push(this.newCell());
    for (const cell of this.cells) {
      cell.index = -1;
      cell.element.style.width = cell.element.style.height = `${this.side}px`;
    }
    this.draw();
  }

  newCell() {
    const img = studio.make("img", { alt: "", draggable: "false", decoding: "async" });
    const text = studio.make("span");
    const id = `face-${this.cells.length}`;
    const element = studio.make("div", { class: "cell", role: "option", id }, img, text);
    img.addEventListener("error", () => { img.style.visibility = "hidden"; });
    img.addEventListener("load", () => { img.style.visibility = "visible"; });
    this.scroll.append(element);
    return { element, img, text, index: -1, lacks: false };
  }

  later() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => { this.frame = 0; this.draw(); });
  }

  // The last row that begins at or above `y`, or whose first item is at or before `index`.
  rowAt(y) { return this.lastRow((row) => row.top <= y); }
  rowOf(index) { return this.lastRow((row) => row.first <= index); }

  lastRow(holds) {
    let low = 0, high = this.rows.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (holds(this.rows[middle])) low = middle; else high = middle - 1;
    }
    return low;
  }

  end(row) { return this.rows[row + 1]?.first ?? this.items.length; }

  // Each index in sight has the cell `index % cells`, so that few cells change on a scroll.
  draw() {
    const { scroll, rows } = this;
    const from = Math.max(0, this.rowAt(scroll.scrollTop) - AHEAD);
    const to = Math.min(rows.length - 1, this.rowAt(scroll.scrollTop + scroll.clientHeight) + AHEAD);
    const first = rows[from]?.first ?? 0, count = this.cells.length;
    const end = Math.min(rows.length ? this.end(to) : 0, first + count);
    const titled = [];
    for (let row = from; row <= to; row++) {
      const { first: begin, top, head } = rows[row];
      if (head) titled.push([head, top]);
      for (let index = begin; index < Math.min(this.end(row), end); index++) {
        const cell = this.cells[index % count];
        if (cell.index === index) continue;
        this.place(cell, index, GAP + (index - begin) * this.step, top + (head ? HEAD : 0));
      }
    }
    for (const cell of this.cells) {
      const seen = cell.index >= first && cell.index < end;
      if (cell.seen === seen) continue;
      cell.seen = seen;
      cell.element.style.display = seen ? "" : "none";
    }
    this.drawTitles(titled);
    this.mark();
    this.ask();
  }

  // Asks for the pictures that cells in sight lack.
  ask() {
    const rushes = Math.abs(this.scroll.scrollTop - this.drawnAt) > RUSH * this.step;
    this.drawnAt = this.scroll.scrollTop;
    const lacking = this.cells.filter((cell) => cell.seen && cell.lacks);
    const now = rushes ? lacking.slice(0, ASKED) : lacking;
    for (const cell of now) {
      cell.lacks = false;
      cell.img.src = this.picture(this.items[cell.index]);
    }
    if (now.length < lacking.length) this.later();
  }

  drawTitles(titled) {
    const there = new Map(titled);
    for (const [head, element] of this.titles) {
      if (!there.has(head)) { element.remove(); this.titles.delete(head); }
    }
    for (const [head, top] of titled) {
      if (this.titles.has(head)) continue;
      const choose = (event) => this.chooseRange(head.first, head.first + head.count - 1, event);
      const element = studio.make("button", { class: "head", title: "choose this group", onclick: choose,
        style: `transform: translate(0, ${top}px)` }, head.text);
      this.titles.set(head, element);
      this.scroll.append(element);
    }
  }

  place(cell, index, x, y) {
    cell.index = index;
    const name = this.items[index];
    cell.element.style.transform = `translate(${x}px, ${y}px)`;
    cell.img.style.visibility = "hidden";
    cell.img.removeAttribute("src");
    cell.lacks = true;
    cell.text.textContent = this.label(name);
    cell.element.title = name;
    cell.element.dataset.name = name;
  }

  // Only what differs is set: a hundred cells are looked at in each frame of a scroll.
  mark() {
    for (const cell of this.cells) {
      const chosen = this.chosen.has(this.items[cell.index]), current = cell.index === this.cursor;
      if (cell.chosen !== chosen) {
        cell.chosen = chosen;
        cell.element.classList.toggle("chosen", chosen);
        cell.element.setAttribute("aria-selected", `${chosen}`);
      }
      if (cell.current !== current) {
        cell.current = current;
        cell.element.classList.toggle("cursor", current);
        if (current) this.scroll.setAttribute("aria-activedescendant", cell.element.id);
      }
    }
  }

  pressed(event) {
    const element = event.target.closest(".cell");
    if (!element || event.button !== 0) return;
    event.preventDefault();
    this.scroll.focus({ preventScroll: true });
    const cell = this.cells.find((c) => c.element === element);
    this.go(cell.index, event);
  }

  // Moves the cursor to `index`: alone it chooses that face, with shift a range, with ctrl one more.
  go(index, { shiftKey = false, ctrlKey = false, metaKey = false } = {}) {
    if (!this.items.length) return;
    index = Math.max(0, Math.min(this.items.length - 1, index));
    const name = this.items[index];
    this.cursor = index;
    this.into(index);
    if (shiftKey) {
      this.chooseRange(Math.min(this.anchor, index), Math.max(this.anchor, index), { ctrlKey });
      return;
    }
    this.anchor = index;
    if (!ctrlKey && !metaKey) this.chosen = new Set([name]);
    else if (!this.chosen.delete(name)) this.chosen.add(name);
    this.mark();
    this.changed();
  }

  // Chooses the items from `low` to `high`; with ctrl also what was chosen before.
  chooseRange(low, high, { ctrlKey = false } = {}) {
    if (!ctrlKey) this.chosen.clear();
    for (let i = low; i <= high; i++) this.chosen.add(this.items[i]);
    this.mark();
    this.changed();
  }

  into(index) {
    const { top, height } = this.rows[this.rowOf(index)];
    const bottom = top + height + GAP;
    if (top < this.scroll.scrollTop) this.scroll.scrollTop = top;
    else if (bottom > this.scroll.scrollTop + this.scroll.clientHeight) {
      this.scroll.scrollTop = bottom - this.scroll.clientHeight;
    }
  }

  // The index `rows` below `index`, in the same column where that row is long enough.
  below(index, rows) {
    const row = this.rowOf(index), column = index - this.rows[row].first;
    const to = row + rows;
    if (to < 0 || to >= this.rows.length) return rows < 0 ? 0 : this.items.length - 1;
    return Math.min(this.rows[to].first + column, this.end(to) - 1);
  }

  // True when the key was one of the grid's.
  key(event) {
    const page = Math.max(1, Math.floor(this.scroll.clientHeight / this.step));
    const down = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page }[event.key];
    const steps = {
      ArrowRight: 1, ArrowLeft: -1, Home: -this.items.length, End: this.items.length,
    };
    if (!this.items.length) return false;
    if (down) {
      this.go(this.below(this.cursor, down), { shiftKey: event.shiftKey });
    } else if (event.key in steps) {
      this.go(this.cursor + steps[event.key], { shiftKey: event.shiftKey });
    } else if (event.key === " ") {
      this.go(this.cursor, { ctrlKey: true });
    } else if (event.key === "a" && event.ctrlKey) {
      this.chooseRange(0, this.items.length - 1);
    } else return false;
    return true;
  }
}
