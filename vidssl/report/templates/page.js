"use strict";
(function () {
  // Curves over steps or over time.
  document.querySelectorAll('input[name="axis"]').forEach(function (input) {
    input.addEventListener("change", function () {
      document.getElementById("charts").classList.toggle("by-time", input.value === "time");
    });
  });

  // A strip's moment as a loop, decoded only when it is wanted.
  function show(button) {
    if (button.querySelector(".loop")) { return; }
    var loop = document.createElement("img");
    loop.className = "loop";
    loop.alt = "";
    loop.decoding = "async";
    loop.src = button.dataset.loop;
    button.append(loop);
  }
  function hide(button) {
    var loop = button.querySelector(".loop");
    if (loop) { loop.remove(); }
    button.setAttribute("aria-pressed", "false");
  }
  var still = window.matchMedia("(prefers-reduced-motion: reduce)");
  document.querySelectorAll("button[data-loop]").forEach(function (button) {
    button.addEventListener("mouseenter", function () { if (!still.matches) { show(button); } });
    button.addEventListener("mouseleave", function () { hide(button); });
    button.addEventListener("blur", function () { hide(button); });
    button.addEventListener("click", function () {
      var pressed = button.getAttribute("aria-pressed") === "true";
      if (pressed) { hide(button); } else { show(button); button.setAttribute("aria-pressed", "true"); }
    });
  });

  // Maps: colours, and the frame of the video under the pointer or the keyboard's focus.
  var COLOURS = 12;
  document.querySelectorAll(".maps").forEach(function (maps) {
    var points = Array.from(maps.querySelectorAll("circle"));
    function colour(by) {
      points.forEach(function (point) {
        var number = Number(point.dataset[by]);
        point.setAttribute("class", number < 0 ? "cnone" : "c" + (number % COLOURS));
      });
      maps.querySelectorAll("[data-key]").forEach(function (key) {
        key.hidden = key.dataset.key !== by;
      });
    }
    maps.querySelectorAll("input[data-colour]").forEach(function (input) {
      input.addEventListener("change", function () { colour(input.value); });
      if (input.checked) { colour(input.value); }
    });
    var side = Number(maps.dataset.side), columns = Number(maps.dataset.columns);
    var sheet = maps.querySelector("img.sheet"), names = JSON.parse(maps.dataset.names);
    function frame(canvas, video) {
      var draw = canvas.getContext("2d");
      draw.drawImage(sheet, side * (video % columns), side * Math.floor(video / columns), side, side,
        0, 0, side, side);
    }
    function look(video) {
      points.forEach(function (point) {
        point.classList.toggle("on", Number(point.dataset.video) === video);
      });
      maps.querySelectorAll(".seen").forEach(function (seen) {
        frame(seen.querySelector("canvas"), video);
        seen.querySelector("span").textContent = names[video];
      });
    }
    points.forEach(function (point) {
      var video = Number(point.dataset.video);
      point.addEventListener("mouseenter", function () { look(video); });
      point.addEventListener("click", function () { look(video); });
    });
    maps.querySelectorAll("svg.plane").forEach(function (plane) {
      var own = Array.from(plane.querySelectorAll("circle")), at = -1;
      plane.addEventListener("keydown", function (event) {
        var step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!step) { return; }
        event.preventDefault();
        at = (at + step + own.length) % own.length;
        look(Number(own[at].dataset.video));
      });
    });
    function fill() {
      maps.querySelectorAll("canvas[data-video]").forEach(function (canvas) {
        frame(canvas, Number(canvas.dataset.video));
      });
    }
    if (sheet.complete) { fill(); } else { sheet.addEventListener("load", fill); }
  });
})();
