// Swipe comparison: two pictures of the same size, the left one clipped where the slider stands.
const shown = JSON.parse(document.getElementById("shown").textContent);
const find = (id) => document.getElementById(id);
const picture = find("picture"), left = find("left"), right = find("right"), slider = find("slider"), swipe = find("swipe");

function fill(select, names, wanted) {
  const kept = wanted ?? select.value;
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  if (names.includes(kept)) select.value = kept;
}

function show() {
  const one = shown[picture.value];
  for (const side of [left, right]) {
    find(side.id + "-image").src = one.files[side.value];
    find(side.id + "-image").alt = side.value;
    find(side.id + "-caption").textContent = one.captions[side.value];
  }
  swipe.style.aspectRatio = `${one.width} / ${one.height}`;
  swipe.style.width = `min(100%, ${one.width}px)`;
}

if (shown.length) {
  picture.replaceChildren(...shown.map((one, place) => new Option(one.key, place)));
  const names = Object.keys(shown[0].files);
  fill(left, names, names[1]);
  fill(right, names, names[2] ?? names[0]);
  for (const select of [picture, left, right]) select.addEventListener("change", show);
  slider.addEventListener("input", () => swipe.style.setProperty("--at", `${slider.value}%`));
  show();
}

// A legend entry under the pointer brings its curve forward in every plot.
for (const entry of document.querySelectorAll("[data-legend]")) {
  const plots = document.querySelector(".plots");
  entry.addEventListener("mouseenter", () => {
    plots.classList.add("picked");
    for (const curve of plots.querySelectorAll(".curve")) {
      curve.classList.toggle("on", curve.dataset.curve === entry.dataset.legend);
    }
  });
  entry.addEventListener("mouseleave", () => plots.classList.remove("picked"));
}
