// The pictures of a page: one, or two to compare, which zoom and move together. The wheel zooms about
// the mouse, a drag moves, a double click fits. Of two, the second is wiped over, or beside, the first.

const { make } = studio;
const STEP = 1.25; // of the zoom, a click of the wheel
const MOST = 40; // times larger than fitting
const SHARP = 3; // screen pixels of one of the picture, from which on its pixels are shown as squares

export class Stage {
  constructor() {
    this.picture = make("img", { class: "frame", alt: "the frame" });
    this.other = make("img", { class: "other", alt: "dst's frame" });
    this.handle = make("div", { class: "handle", role: "slider", tabindex: "0",
      "aria-label": "how far dst is wiped over the frame", "aria-valuemin": 0, "aria-valuemax": 100 });
    const second = make("div", { class: "view second" }, this.other);
    this.element = make("div", { class: "stage one" }, make("div", { class: "view" }, this.picture), second,
      this.handle);
    [this.zoom, this.x, this.y] = [1, 0, 0];
    this.wipe(50);
    this.element.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.enlarge(event.deltaY < 0 ? STEP : 1 / STEP, this.within(event));
    }, { passive: false });
    this.drag(this.element, (event, before) => {
      this.move(this.x + event.clientX - before.clientX, this.y + event.clientY - before.clientY);
    });
    this.drag(this.handle, (event) => {
      const { left, width } = this.element.getBoundingClientRect();
      this.wipe((event.clientX - left) / width * 100);
    });
    this.handle.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      event.preventDefault();
      event.stopPropagation();
      this.wipe(this.share + (event.key === "ArrowLeft" ? -2 : 2));
    });
    this.element.addEventListener("dblclick", () => this.fit());
    for (const image of [this.picture, this.other]) image.draggable = false;
    new ResizeObserver(() => this.move(this.x, this.y)).observe(this.element);
  }

  // Calls action(event, the event before it) as the mouse moves with its first button down.
  drag(element, action) {
    let before = null;
    element.addEventListener("pointerdown", (event) => {
      if (event.button || event.target.closest(".handle") && element !== this.handle) return;
      element.setPointerCapture(event.pointerId);
      before = event;
    });
    element.addEventListener("pointermove", (event) => {
      if (!before) return;
      action(event, before);
      before = event;
    });
    for (const over of ["pointerup", "pointercancel"]) element.addEventListener(over, () => { before = null; });
  }

  // "one", "wipe" or "side".
  compare(how) {
    for (const name of ["one", "wipe", "side"]) this.element.classList.toggle(name, name === how);
    this.move(this.x, this.y);
  }

  wipe(share) {
    this.share = Math.max(0, Math.min(100, share));
    this.element.style.setProperty("--wipe", `${this.share}%`);
    this.handle.setAttribute("aria-valuenow", Math.round(this.share));
  }

  // The place of the mouse in the view that it is in.
  within(event) {
    const view = event.target.closest(".view") || this.picture.parentElement;
    const { left, top } = view.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  }

  middle() {
    const { clientWidth, clientHeight } = this.picture.parentElement;
    return [clientWidth / 2, clientHeight / 2];
  }

  enlarge(factor, [x, y] = this.middle()) {
    const zoom = Math.max(1, Math.min(MOST, this.zoom * factor)), real = zoom / this.zoom;
    this.zoom = zoom;
    this.move(x - (x - this.x) * real, y - (y - this.y) * real);
  }

  fit() {
    this.zoom = 1;
    this.move(0, 0);
  }

  // Screen pixels of one of the picture, at the present zoom.
  scale() {
    const { clientWidth, clientHeight } = this.picture.parentElement, { naturalWidth, naturalHeight } = this.picture;
    if (!naturalWidth) return 1;
    return Math.min(clientWidth / naturalWidth, clientHeight / naturalHeight) * this.zoom;
  }

  // A pixel of the picture is one of the screen.
  actual() {
    this.enlarge(1 / (this.scale() * (window.devicePixelRatio || 1)));
  }

  // To (x, y), as far as the picture still fills the view.
  move(x, y) {
    const { clientWidth, clientHeight } = this.picture.parentElement;
    this.x = Math.max(clientWidth * (1 - this.zoom), Math.min(0, x));
    this.y = Math.max(clientHeight * (1 - this.zoom), Math.min(0, y));
    const { style, classList } = this.element;
    style.setProperty("--zoom", this.zoom);
    style.setProperty("--x", `${this.x}px`);
    style.setProperty("--y", `${this.y}px`);
    classList.toggle("large", this.zoom > 1);
    classList.toggle("sharp", this.scale() >= SHARP);
  }
}
